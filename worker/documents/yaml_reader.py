"""YAML text of a Compose document, read safely and as Compose reads it.

Plain scalars follow YAML 1.2 (`yes`, `22:22` and dates are text). Less is allowed than in YAML: no tags, no
key twice, and nothing that grows over `MAX_BYTES` when its aliases are expanded. Messages never quote the
text, since it may hold secrets; they give line and column.
"""

import re
from typing import Any

import yaml

from worker.documents.limits import MAX_BYTES, MAX_DEPTH, InvalidDocument, too_deep, too_large

try:
    from yaml import CSafeLoader as YamlLoader
except ImportError:  # PyYAML was built without libyaml: the same, slower
    from yaml import SafeLoader as YamlLoader  # type: ignore[assignment]

MAX_EVENTS = 100_000

_TEXT_TAGS = (None, "!", "tag:yaml.org,2002:str")


def load(text: str) -> object:
    """The value of one YAML document. Raises InvalidDocument."""
    if len(text) > MAX_BYTES:
        raise too_large()
    try:
        _check_yaml(text)
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of the safe loader
    except yaml.MarkedYAMLError as error:
        # A longer quotation may be part of the document, a single character is YAML's own.
        quoted = r"(['\"]).\1|(['\"]).*\2"
        problem = re.sub(quoted, lambda found: found[0] if found[1] else "", error.problem or "syntax error")
        problem = " ".join(problem.split())
        raise InvalidDocument(f"not valid YAML: {problem}{_position(error.problem_mark)}") from None
    except yaml.YAMLError:
        raise InvalidDocument("not valid YAML: it has a character that YAML doesn't allow") from None
    except UnicodeEncodeError:
        raise InvalidDocument("not valid YAML: it has text that isn't Unicode") from None


class _Loader(YamlLoader):
    """Resolves plain scalars as Go's yaml.v3, which Compose uses, and not as YAML 1.1."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own attribute


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9_]{0,18}|0[0-7_]{1,20}|0x[0-9a-fA-F]{1,15})", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"({_pattern})\Z"), list(_first))


class _Level:
    """One open collection while events are counted."""

    def __init__(self, event: yaml.Event) -> None:
        self.anchor: str | None = getattr(event, "anchor", None)
        self.keys: set[str] | None = set() if isinstance(event, yaml.MappingStartEvent) else None
        self.at_key = self.keys is not None
        self.size = 1


def _check_yaml(text: str) -> None:
    """Refuse what the loader would expand without bound, overflow its stack on, or silently merge.

    Works on events, which cost no recursion, before any object is built ("billion laughs").
    """
    sizes: dict[str, int] = {}
    open_levels = [_Level(yaml.Event())]
    for count, event in enumerate(yaml.parse(text, Loader=YamlLoader)):
        if count > MAX_EVENTS:
            raise InvalidDocument(f"the document has more than {MAX_EVENTS} values; no decky needs that many")
        if isinstance(event, yaml.CollectionStartEvent):
            _check_node(event, open_levels[-1])
            open_levels.append(_Level(event))
            if len(open_levels) > MAX_DEPTH:
                raise too_deep()
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            level = open_levels.pop()
            anchor, size = level.anchor, level.size
        elif isinstance(event, yaml.ScalarEvent):
            _check_node(event, open_levels[-1])
            anchor, size = event.anchor, 1 + len(event.value)
        elif isinstance(event, yaml.AliasEvent):
            _check_node(event, open_levels[-1])
            if any(level.anchor == event.anchor for level in open_levels):
                raise InvalidDocument(f"the document contains itself{_position(event.start_mark)}")
            anchor, size = None, sizes.get(str(event.anchor), 0)
        elif isinstance(event, yaml.DocumentStartEvent) and open_levels[0].size > 1:
            raise InvalidDocument(
                f"the text holds several YAML documents{_position(event.start_mark)}; give one"
            )
        else:
            continue
        if anchor is not None:
            sizes[anchor] = size
        open_levels[-1].size += size
        if open_levels[-1].size > MAX_BYTES:
            raise too_large()


def _check_node(event: Any, parent: _Level) -> None:
    if getattr(event, "tag", None) not in _TEXT_TAGS:
        raise InvalidDocument(
            f"YAML tags are not supported{_position(event.start_mark)}; write the value plainly"
        )
    if parent.keys is None:
        return
    if parent.at_key:
        if not isinstance(event, yaml.ScalarEvent):
            raise InvalidDocument(f"a key must be text{_position(event.start_mark)}")
        if event.value in parent.keys:
            raise InvalidDocument(
                f"a key is there twice in one mapping{_position(event.start_mark)}; remove one"
            )
        parent.keys.add(event.value)
    parent.at_key = not parent.at_key


def _position(mark: Any) -> str:
    return "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
