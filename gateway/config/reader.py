"""YAML text to nodes, from the events of libyaml: one pass, with positions, bounded and strict.

Refused here: duplicate keys, tags, several documents, recursive or exploding aliases, deep nesting,
large files, control characters. Scalars are read by `scalars.py`, references by `references.py`;
what the data means is for others.
"""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from gateway.config.issues import Issue
from gateway.config.nodes import Mark, Node
from gateway.config.references import ReferenceFailed, References
from gateway.config.scalars import AmbiguousNumber, read_plain

try:
    from yaml import _yaml
except ImportError:  # PyYAML built without libyaml; said in one line when a file is read
    _PARSER: Any = None
else:
    _PARSER = _yaml.CParser

MAX_BYTES: Final = 16 * 1024 * 1024
MAX_DEPTH: Final = 64
# What aliases stand for, written out. An honest file repeats a few profiles; a bomb multiplies.
MAX_ALIASED: Final = 500_000

# What YAML 1.2 calls printable (section 5.1), turned round.
_CONTROL: Final = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# What libyaml counts as the end of a line (YAML 1.1 section 5.4).
_LINE_BREAK: Final = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_CANNOT_START: Final = "found character that cannot start any token"


class Unreadable(Exception):
    """The file can't be read on: a syntax error, or a bound was passed."""

    def __init__(self, message: str, line: int = 0, column: int = 0, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column
        self.hint = hint


def read_yaml(data: bytes, file: str, references: References, issues: list[Issue]) -> Node | None:
    """The mapping in `data`, or None if it can't be read. What is wrong is added to `issues`."""
    try:
        return _Reader(_decode(data), file, references, issues).read()
    except Unreadable as error:
        issues.append(Issue(file, error.line, error.column, "", error.message, error.hint))
    return None


def _decode(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise Unreadable("the file is larger than 16 MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise Unreadable("the file is not UTF-8 text", line, column) from None
    bad = _CONTROL.search(text)
    if bad is not None:
        line = text.count("\n", 0, bad.start()) + 1
        column = bad.start() - text.rfind("\n", 0, bad.start())
        message = f"the control character U+{ord(bad[0]):04X} can't stand in YAML"
        raise Unreadable(message, line, column)
    return text


class _Reader:
    """Builds the nodes of one file."""

    def __init__(self, text: str, file: str, references: References, issues: list[Issue]) -> None:
        if _PARSER is None:
            raise Unreadable("PyYAML was installed without its C loader, libyaml, which is needed")
        self._parser = _PARSER(text)
        self._text = text
        self._file = file
        self._references = references
        self._issues = issues
        # An anchor's node and how many nodes it stands for; None while it is still being read.
        self._anchors: dict[str, tuple[Node, int] | None] = {}
        self._count = 0
        self._aliased = 0

    def read(self) -> Node | None:
        try:
            return self._document()
        except yaml.MarkedYAMLError as error:
            raise _translate(error, self._text) from None
        except yaml.YAMLError:
            raise Unreadable("the file is not valid YAML") from None

    def _document(self) -> Node | None:
        self._parser.get_event()  # stream start
        if type(self._parser.get_event()) is yaml.StreamEndEvent:
            raise Unreadable("the file is empty", hint="start with version: 1")
        node = self._node(self._parser.get_event(), 0)
        self._parser.get_event()  # document end
        rest = self._parser.get_event()
        if type(rest) is not yaml.StreamEndEvent:
            line, column = _mark(rest)
            raise Unreadable("the file holds more than one YAML document", line, column)
        if node.value is None:
            raise Unreadable("the file is empty", hint="start with version: 1")
        if not isinstance(node.value, dict):
            raise Unreadable("expected a mapping at the top of the file", node.line, node.column)
        return node

    def _node(self, event: Any, depth: int) -> Node:
        kind = type(event)
        if kind is yaml.AliasEvent:
            return self._alias(event)
        anchor = event.anchor
        if anchor is None:
            return self._content(kind, event, depth)
        self._anchors[anchor] = None
        before = self._count
        node = self._content(kind, event, depth)
        self._anchors[anchor] = (node, self._count - before)
        return node

    def _content(self, kind: type, event: Any, depth: int) -> Node:
        self._count += 1
        mark = event.start_mark
        if depth > MAX_DEPTH:
            message = f"nested deeper than {MAX_DEPTH} levels"
            raise Unreadable(message, mark.line + 1, mark.column + 1)
        node = Node(None, self._file, mark.line + 1, mark.column + 1)
        if event.tag is not None:
            self._complain(node, "tags are not used here", "put text in quotes")
        if kind is yaml.ScalarEvent:
            self._scalar(node, event)
        elif kind is yaml.MappingStartEvent:
            self._mapping(node, depth)
        else:
            items = []
            while type(item := self._parser.get_event()) is not yaml.SequenceEndEvent:
                items.append(self._node(item, depth + 1))
            node.value = items
        return node

    def _alias(self, event: Any) -> Node:
        line, column = _mark(event)
        if event.anchor not in self._anchors:
            raise Unreadable(f"the alias *{event.anchor} has no anchor before it", line, column)
        anchored = self._anchors[event.anchor]
        if anchored is None:
            raise Unreadable(f"the alias *{event.anchor} stands inside itself", line, column)
        node, size = anchored
        self._count += size
        self._aliased += size
        if self._aliased > MAX_ALIASED:
            message = f"the aliases stand for more than {MAX_ALIASED} values"
            raise Unreadable(message, line, column)
        return node

    def _scalar(self, node: Node, event: Any) -> None:
        text = event.value
        if "${" in text:
            try:
                node.value, node.reference = self._references.resolve(text)
            except ReferenceFailed as error:
                node.reference = "a reference"
                self._complain(node, error.message, error.hint)
        elif event.implicit[0]:
            try:
                node.value = read_plain(text)
            except AmbiguousNumber:
                hint = "drop the zero, write 0o for octal, or put text in quotes"
                self._complain(node, "a number with a leading zero can be read in two ways", hint)
        else:
            node.value = text

    def _mapping(self, node: Node, depth: int) -> None:
        entries: dict[str, Node] = {}
        keys: dict[str, Mark] = {}
        merges: list[Node] = []
        node.value, node.keys = entries, keys
        while type(event := self._parser.get_event()) is not yaml.MappingEndEvent:
            key, mark = self._key(event, depth)
            child = self._node(self._parser.get_event(), depth + 1)
            if key == "<<" and event.implicit[0]:
                merges.append(child)
            elif key in entries:
                first = keys[key]
                message = f'duplicate key "{key}"; it is already set at '
                message += f"{self._file}:{first[0]}:{first[1]}"
                self._issues.append(Issue(self._file, *mark, "", message))
            else:
                entries[key] = child
                keys[key] = mark
        for merge in merges:
            self._merge(node, merge)

    def _key(self, event: Any, depth: int) -> tuple[str, Mark]:
        """A key is text, whatever it looks like: `no`, `200` and `1:30` too."""
        mark = _mark(event)
        if type(event) is yaml.AliasEvent:
            value = self._alias(event).value
            if isinstance(value, str):
                return value, mark
        if type(event) is not yaml.ScalarEvent:
            raise Unreadable("a key must be text", *mark)
        if event.tag is not None or event.anchor is not None:
            self._node(event, depth + 1)
        text: str = event.value
        if "${" in text:
            message = "references stand in values, not in keys"
            self._issues.append(Issue(self._file, *mark, "", message))
        return text, mark

    def _merge(self, node: Node, merge: Node) -> None:
        """YAML 1.1's merge key: what the mapping does not say itself comes from the other."""
        sources = merge.value if isinstance(merge.value, list) else [merge]
        for source in sources:
            if not isinstance(source.value, dict):
                message = "<< takes a mapping or a list of mappings"
                self._issues.append(Issue(self._file, merge.line, merge.column, "", message))
                return
            for key, child in source.value.items():
                if key not in node.value:
                    node.value[key] = child
                    node.keys[key] = source.keys[key]

    def _complain(self, node: Node, message: str, hint: str = "") -> None:
        node.broken = True
        self._issues.append(Issue(self._file, node.line, node.column, "", message, hint))


def _mark(event: Any) -> Mark:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _translate(error: yaml.MarkedYAMLError, text: str) -> Unreadable:
    """The words of libyaml, and the few that mislead in plainer ones."""
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    problem = error.problem or "unreadable"
    hint = ""
    if problem == _CANNOT_START:
        start = _LINE_BREAK.split(text)[mark.line][mark.column :] if mark else ""
        if start.startswith("\t"):
            return Unreadable("a tab can't indent YAML", line, column, "use spaces")
        hint = "text that starts with @, ` or % needs quotes"
    elif problem == "mapping values are not allowed in this context":
        hint = "put text that contains a colon and a space in quotes, and check the indentation"
    message = f"not valid YAML: {problem}"
    if error.context and error.context_mark and error.context_mark.line + 1 != line:
        message += f" ({error.context} that starts at line {error.context_mark.line + 1})"
    return Unreadable(message, line, column, hint)
