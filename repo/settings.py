"""Where settings come from. The only place that reads the environment.

A setting is looked up as `DECNET_REAPER_<NAME>` in the environment, then as a systemd credential called
`<name>` (root's own commands find the service's in /etc/credstore), then as `<name>` in the TOML file, then
its default applies. Each package adds its own settings to the class of the package below it, so that one
object serves a whole process.
"""

import math
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args, get_origin

import msgspec

from repo.errors import DecnetReaperError

PREFIX = "DECNET_REAPER_"
DEFAULT_CONFIG = Path("/etc/decnet-reaper/config.toml")
NOT_SETTINGS = {"CONFIG", "PRIVATE", "BOOT_ID", "STRICT_EVENTS"}

_SECRET = {"redis", "database", "database_password", "presence_database", "web_tokens"}

_UNITS = {"": 1, "ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")


def as_setting(seconds: float) -> str:
    """A duration as it is written in the settings: 1h, 5m, 90s."""
    for unit in ("d", "h", "m"):
        if seconds >= _UNITS[unit] and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:g}{unit}"
    return f"{seconds:g}s"


class SettingsError(DecnetReaperError, ValueError):
    """A setting that can't be used: which one, its value, and what would do."""


class Seconds(float):
    """A duration in seconds; written as a number, or with a unit: 500ms, 30s, 5m, 1h, 30d."""

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a duration.

        Raises:
            ValueError: it isn't one, or it isn't above zero, or longer than a century.
        """
        match = _DURATION.fullmatch(str(value).strip().lower())
        if match is None or match[2] not in _UNITS or (seconds := float(match[1]) * _UNITS[match[2]]) <= 0:
            raise ValueError("expected a duration above zero, such as 30s, 5m or 1h")
        if seconds > 100 * 365 * 86400:
            raise ValueError("at most 36500d, a century")
        return cls(seconds)


class SecondsOrNever(Seconds):
    """A duration, or `never`, which is infinity."""

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a duration, or `never`.

        Raises:
            ValueError: it is neither.
        """
        if str(value).strip().lower() == "never":
            return cls(math.inf)
        try:
            return super().parse(value)
        except ValueError as error:
            raise ValueError(f"{error}, or never") from None


def _home(variable: str, fallback: str) -> Path:
    try:
        return Path(os.environ.get(variable) or Path.home() / fallback) / "decnet-reaper"
    except RuntimeError:
        raise SettingsError(
            f"state_dir has no default, since user {os.geteuid()} has no home directory: set"
            f" {PREFIX}STATE_DIR, {variable} or HOME"
        ) from None


CREDENTIALS = Path("/etc/credstore/decnet-reaper.")
"""What the units' credentials begin with; the setting's name follows."""

SYSTEM_STATE_DIR = Path("/var/lib/decnet-reaper")
"""Where a system-wide installation keeps what must last."""


def is_private(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a store and a queue of one's own were asked for, with DECNET_REAPER_PRIVATE=1."""
    return environ.get(PREFIX + "PRIVATE", "") not in {"", "0"}


def is_system_wide(directory: Path) -> bool:
    """Whether this directory of a system-wide installation is the one to use.

    It is for root, for the directory's owner, and, where the service is installed (its configuration is
    there), for everybody: who may not use it is told so, instead of given an empty store of his own.
    """
    if is_private():
        return False
    try:
        owner = directory.stat().st_uid
    except OSError:
        owner = 0
    return os.geteuid() in {0, owner} or DEFAULT_CONFIG.exists()


def default_state_dir() -> Path:
    """/var/lib/decnet-reaper where `is_system_wide` says so, else below $XDG_STATE_HOME."""
    return SYSTEM_STATE_DIR if is_system_wide(SYSTEM_STATE_DIR) else _home("XDG_STATE_HOME", ".local/state")


def without_password(url: str) -> str:
    """A URL, or a DSN, as everybody may know it: without passwords in its authority or its options."""
    url = re.sub(r"(://[^/@:]*):[^/]*@", r"\1@", url)
    return re.sub(r"(?<=[?&])[a-z_]*password=[^&]*&?", "", url).rstrip("?&")


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the store needs to know.

    Attributes:
        state_dir: what must last: the store, the deckies' documents, the embedded queue's data.
        database: path or URL of the store: a file, or `postgresql://USER@HOST/DATABASE` with libpq's own
            parameters (several hosts, `target_session_attrs`, `sslmode`, `service` and so on).
        database_password: of the PostgreSQL user; better a systemd credential than in the URL.
        presence_database: where `database` goes through a pooler such as PgBouncer: URL of the server itself,
            for the sessions that say which hosts are there.
    """

    state_dir: Path = msgspec.field(default_factory=default_state_dir)
    database: str = ""
    database_password: str = ""
    presence_database: str = ""

    @property
    def database_name(self) -> str:
        """The database as it may be printed: without a password."""
        return without_password(self.database)

    def __post_init__(self) -> None:
        if not self.database:
            msgspec.structs.force_setattr(self, "database", str(self.state_dir / "decnet-reaper.db"))

    @property
    def makes_store(self) -> bool:
        """Whether the store is made where it is missing: the one that nobody named is.

        One that was named may be DECNET's, which makes it itself and must not find ours in its place.
        """
        return self.database == str(self.state_dir / "decnet-reaper.db")


S = TypeVar("S", bound=StoreSettings)


def _convert(kind: type, value: object) -> object:
    if issubclass(kind, Seconds):
        return kind.parse(value)
    if kind is Path:
        if not isinstance(value, str) or not value:
            raise ValueError("expected a path")
        try:
            return Path(value).expanduser().absolute()
        except RuntimeError:
            raise ValueError("there is no such home directory; write the path without ~") from None
    raise NotImplementedError(kind)


def _credentials(environ: Mapping[str, str], names: set[str]) -> dict[str, str]:
    if directory := environ.get("CREDENTIALS_DIRECTORY"):
        start = f"{directory}/"
    elif environ.get(PREFIX + "CONFIG") or is_private(environ):
        return {}
    else:  # the service's own settings, asked for by root
        start = str(CREDENTIALS)
    found = {}
    for name in names:
        try:
            found[name] = Path(start + name).read_text().strip()
        except (FileNotFoundError, PermissionError):
            # systemd before 256 names the directory to ExecStopPost= too, and lets it read nothing there.
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"the credential {start}{name} can't be read: {_why(error)}") from None
    return found


def _why(error: OSError | UnicodeDecodeError) -> str:
    return str(error.strerror) if isinstance(error, OSError) else "it is not UTF-8 text"


def _config(environ: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    named = environ.get(PREFIX + "CONFIG")
    path = Path(named) if named else DEFAULT_CONFIG
    if not named and is_private(environ):
        return str(path), {}
    try:
        return str(path), tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if named:
            raise SettingsError(f"{PREFIX}CONFIG names {path}, which does not exist") from None
        return str(path), {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the configuration {path} can't be read: {_why(error)}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"the configuration {path} is not TOML: {error}") from None


def _converted(value: object, kind: Any) -> object:
    texts = value if isinstance(value, list) else [value]
    if any(isinstance(text, str) and "\0" in text for text in texts):
        raise ValueError("expected text without a NUL character")
    return msgspec.convert(value, kind, strict=False, dec_hook=_convert)


def load(kind: type[S], environ: Mapping[str, str] | None = None, *, strict: bool = False) -> S:
    """Read the settings of one package and of those below it.

    Args:
        kind: the settings class.
        environ: the environment to read (default: this process's).
        strict: refuse names that no setting has. For daemons and commands, which know them all.

    Raises:
        SettingsError: one line: the setting, its value (never that of a DSN), and what would do.
    """
    environ = os.environ if environ is None else environ
    path, config = _config(environ)
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    variables = {key.removeprefix(PREFIX): text for key, text in environ.items() if key.startswith(PREFIX)}
    if strict:
        unknown = [PREFIX + key for key in variables if key.lower() not in fields and key not in NOT_SETTINGS]
        unknown += [f"{key} in {path}" for key in config if key not in fields]
        if unknown:
            raise SettingsError(f"unknown setting {unknown[0]}; there are: {', '.join(sorted(fields))}")
    given: dict[str, object] = {name: config[name] for name in fields if name in config}
    given = {name: value for name, value in given.items() if value != "" or fields[name].default is not None}
    given |= _credentials(environ, _SECRET & fields.keys())
    given |= {name: variables[name.upper()] for name in fields if variables.get(name.upper(), "") != ""}
    values: dict[str, Any] = {}
    for name, value in given.items():
        try:
            values[name] = _converted(value, fields[name].type)
        except (msgspec.ValidationError, ValueError) as error:
            shown = "its value" if name in _SECRET else repr(value)
            reason = str(error).replace("`", "").partition(" - at ")[0]
            if reason.startswith("Expected int"):
                reason = f"expected a whole number{reason.removeprefix('Expected int').partition(',')[0]}"
            if get_origin(fields[name].type) is Literal:
                reason = f"expected one of {', '.join(get_args(fields[name].type))}"
            raise SettingsError(f"the setting {name} can't be {shown}: {reason}") from None
    return kind(**values)
