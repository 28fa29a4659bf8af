"""YAML to plain data as OpenAPI means it: YAML 1.2, text keys, nothing but what JSON can say.

Unlike the configuration's reader it keeps no positions, takes merge keys, and lets the last of two
equal keys win, with a note: descriptions come from elsewhere, and are what they are. Bounded in
depth and in what aliases stand for.
"""

from __future__ import annotations

from typing import Any, Final

import yaml

from gateway.config.scalars import AmbiguousNumber, read_plain

try:
    from yaml import _yaml
except ImportError:  # PyYAML built without libyaml
    _PARSER: Any = None
else:
    _PARSER = _yaml.CParser

MAX_DEPTH: Final = 200
# What a document holds once its aliases are written out; an alias bomb multiplies.
MAX_NODES: Final = 5_000_000
_MERGE: Final = "<<"
_STRING_TAG: Final = "tag:yaml.org,2002:str"


class UnreadableYaml(ValueError):
    """The text is no YAML that can be read here."""


class _Open:
    """A collection under construction. `weight` counts its nodes, aliases written out."""

    __slots__ = ("anchor", "key", "value", "weight")

    def __init__(self, value: dict[str, Any] | list[Any], anchor: str | None) -> None:
        self.value = value
        self.anchor = anchor
        self.key: str | None = None
        self.weight = 1


class _Builder:
    def __init__(self, notes: list[str]) -> None:
        self._notes = notes
        self._stack: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._merges: list[tuple[dict[str, Any], Any]] = []
        self.root: Any = None
        self.documents = 0

    def build(self, text: str) -> Any:
        parser = _PARSER(text)
        try:
            while parser.check_event():
                self._take(parser.get_event())
        finally:
            parser.dispose()
        return self.root

    def _take(self, event: Any) -> None:
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event)
            self._add(value, 1, event)
            if event.anchor:
                self._anchors[event.anchor] = (value, 1)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            if len(self._stack) >= MAX_DEPTH:
                raise UnreadableYaml(f"{_at(event)}nested more than {MAX_DEPTH} levels deep")
            opened: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
            self._stack.append(_Open(opened, event.anchor))
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            done = self._stack.pop()
            if done.anchor:
                self._anchors[done.anchor] = (done.value, done.weight)
            self._add(done.value, done.weight, event)
        else:
            self._take_other(event)

    def _take_other(self, event: Any) -> None:
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise UnreadableYaml(f"{_at(event)}an alias of nothing, or of what it stands in")
            self._add(*self._anchors[event.anchor], event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise UnreadableYaml(f"{_at(event)}there is more than one document")

    def _add(self, value: Any, weight: int, event: Any) -> None:
        if not self._stack:
            self.root = value
            return
        parent = self._stack[-1]
        parent.weight += weight
        if parent.weight > MAX_NODES:
            raise UnreadableYaml(f"{_at(event)}more than {MAX_NODES} values")
        if isinstance(parent.value, list):
            parent.value.append(value)
        elif parent.key is None:
            parent.key = _key(event, value)
        else:
            self._set(parent, value, event)

    def _set(self, parent: _Open, value: Any, event: Any) -> None:
        key, parent.key = parent.key, None
        assert isinstance(parent.value, dict) and key is not None
        if key == _MERGE and isinstance(value, dict | list):
            for source in value if isinstance(value, list) else [value]:
                if isinstance(source, dict):
                    for name, inherited in source.items():
                        parent.value.setdefault(name, inherited)
            return
        if key in parent.value and len(self._notes) < MAX_DEPTH:
            self._notes.append(
                f"{_at(event)}the key {key[:80]} is there twice; the last one counts"
            )
        parent.value[key] = value


def parse(text: str, notes: list[str]) -> Any:
    """The data of a YAML text; what is odd is added to `notes`. Raises UnreadableYaml."""
    try:
        return _Builder(notes).build(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise UnreadableYaml(f"{where}{error.problem or 'no YAML'}") from None
    except yaml.YAMLError as error:
        raise UnreadableYaml(str(error).partition("\n")[0]) from None


def _key(event: Any, value: Any) -> str:
    if isinstance(event, yaml.ScalarEvent):
        text: str = event.value
        return text
    if isinstance(value, str):
        return value
    raise UnreadableYaml(f"{_at(event)}a key is not a text")


def _scalar(event: Any) -> Any:
    text: str = event.value
    if not event.implicit[0] or event.tag == _STRING_TAG:
        # Quoted, or tagged.
        return text
    try:
        return read_plain(text)
    except AmbiguousNumber:
        return int(text.replace("_", ""))


def _at(event: Any) -> str:
    return f"line {event.start_mark.line + 1}: "
