"""Log set-up: one stream of structured lines on stderr, for our own events and for the libraries' records."""

import json
import logging
import logging.handlers
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import msgspec
import structlog

from repo.settings import SYSTEM_STATE_DIR
from worker.documents.masking import without_credentials
from worker.logging.console import ConsoleLine, printable
from worker.logging.emit import emit
from worker.logging.events import EVENTS
from worker.service.systemd import is_journal
from worker.settings import WorkerSettings

# At their lower levels SQLAlchemy logs what it binds, documents included; the others are chatter.
_QUIET = ("sqlalchemy", "alembic", "arq", "asyncio")
_TOO_LONG = 4000
"""Characters of one text. journald splits lines of more than 48 KiB (LineMax=), and in ASCII JSON a character
can take 12 bytes."""

# sd-daemon(3), in the numbers of syslog(3).
_PRIORITY = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}

SYSLOG = Path("/dev/log")
COMMAND = "decnet-command"
"""What the commands of a person or a script are called in the system's log."""


def configure(settings: WorkerSettings, stream: TextIO | None = None) -> None:
    """Send a daemon's records to one stream: JSON lines, or short coloured ones on a terminal.

    In the journal each line begins with its priority, which journald takes off again, see sd-daemon(3). An
    error that nobody foresaw becomes one line of JSON too.

    Args:
        settings: `log_format` and `log_level`.
        stream: default stderr.
    """
    stream = sys.stderr if stream is None else stream
    terminal = settings.log_format == "auto" and stream.isatty()
    if settings.log_format == "console" or terminal:
        renderer: structlog.types.Processor = _console(stream)
    else:
        renderer = _JSONLine(priorities=is_journal(stream))
        sys.excepthook = _crashed
    level = _configure_libraries(settings.log_level, _handler(logging.StreamHandler(stream), renderer))
    # Past the logging module, whose records and locks take longer than all else that a line needs.
    structlog.configure(
        processors=[*_STAMPS, *_FINISH, renderer],
        logger_factory=structlog.WriteLoggerFactory(stream),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )


def configure_command(settings: WorkerSettings) -> None:
    """Send the records of a one-shot command where they belong: errors to the person, at the terminal.

    What it accepts or cancels in the system's own store is told to the system's log too (syslog(3)), so that
    the journal has the whole story; a store elsewhere is nobody else's business.

    Args:
        settings: `state_dir`, `log_level`.
    """
    console = _handler(logging.StreamHandler(sys.stderr), _Sentence(colours=False))
    console.setLevel(logging.ERROR)
    handlers = [console]
    if settings.state_dir == SYSTEM_STATE_DIR and SYSLOG.exists():
        system = logging.handlers.SysLogHandler(str(SYSLOG), logging.handlers.SysLogHandler.LOG_DAEMON)
        system.ident, system.append_nul = f"{COMMAND}: ", False
        handlers.append(_handler(system, _JSONLine(priorities=False)))
    _configure_libraries(settings.log_level, *handlers)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_STAMPS,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _console(stream: TextIO) -> ConsoleLine:
    terminal = stream.isatty()
    return ConsoleLine(colours=terminal, width=shutil.get_terminal_size().columns if terminal else 0)


def log_failure(reason: str, exit_status: int) -> bool:
    """Log why this process ends, if its stderr is read by programs; False where it is for a person to read.

    Args:
        reason: one line.
        exit_status: with which it will end.
    """
    if sys.excepthook is not _crashed:
        if not is_journal(sys.stderr):
            return False
        configure(WorkerSettings())  # the settings given may be what is wrong
    emit("daemon.failed", exit_status=exit_status, reason=reason)
    return True


def _configure_libraries(level_name: str, *handlers: logging.Handler) -> int:
    level = logging.getLevelNamesMapping()[level_name.upper()]
    logging.basicConfig(handlers=handlers, level=level, force=True)
    logging.captureWarnings(True)
    logging.raiseExceptions = False
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    return level


_STAMPS: tuple[structlog.types.Processor, ...] = (
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def _handler(handler: logging.Handler, renderer: structlog.types.Processor) -> logging.Handler:
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_STAMPS, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_FINISH,
                renderer,
            ],
        )
    )
    return handler


def _tidy(_: object, __: str, line: Mapping[str, Any]) -> dict[str, Any]:
    """When and what first, tracebacks last; no text too long for the journal, no password in any."""
    whole = {**{name: line[name] for name in ("timestamp", "level", "event")}, **line}
    if (exception := whole.pop("exception", None)) is not None:
        whole["exception"] = exception[-_TOO_LONG:]  # the end says what it was
    for name, value in whole.items():
        if isinstance(value, str) and (len(value) > _TOO_LONG or "://" in value):
            whole[name] = without_credentials(value)[:_TOO_LONG]
    return whole


_FINISH: tuple[structlog.types.Processor, ...] = (structlog.processors.format_exc_info, _tidy)


class _Sentence(ConsoleLine):
    """Renders an event of ours as a command says it: what is wrong, and what to do."""

    def __call__(self, logger: object, method: str, line: Mapping[str, Any]) -> str:
        if (event := EVENTS.get(str(line.get("event")))) is None:
            return super().__call__(logger, method, line)
        what = event.when.partition(" (")[0]
        return f"decnet-reaper: {what}: {printable(str(line.get('reason') or ''))}; {event.advice}"


class _JSONLine:
    """Renders one JSON object, in ASCII: no character in it can end a line or steer a terminal."""

    def __init__(self, *, priorities: bool) -> None:
        self._priorities = priorities
        self._encode = msgspec.json.Encoder(enc_hook=repr).encode
        self._encode_in_ascii = json.JSONEncoder(default=repr).encode

    def __call__(self, logger: Any, method: str, line: structlog.typing.EventDict) -> str:
        try:
            # with a blank after each : and ,
            text = msgspec.json.format(self._encode(line), indent=0).decode("ascii")
        except UnicodeError:  # a path in it may not even be UTF-8
            text = self._encode_in_ascii(line)
        return f"<{_PRIORITY[line['level']]}>{text}" if self._priorities else text


def _crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        emit("daemon.failed", exc_info=error, exit_status=1, reason=f"{kind.__name__}: {error}")
