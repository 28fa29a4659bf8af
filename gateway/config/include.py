"""The main file and the files it includes, as one tree of nodes.

Included files may include others; a circle is an error, a file named twice is read once. Top-level
mappings are joined key by key, lists one after the other, in sorted order of the files. Globs are
relative to the file that holds them; a glob may match nothing, a literal name may not.
"""

from __future__ import annotations

import glob
import os
import stat
from pathlib import Path
from typing import Any, Final

from gateway.config import later
from gateway.config.issues import Issue
from gateway.config.model import GatewayConfig
from gateway.config.nodes import Node
from gateway.config.reader import MAX_BYTES, read_yaml
from gateway.config.references import References
from gateway.config.suggest import unknown_key

_KNOWN: Final = frozenset(GatewayConfig.model_fields)
_MAIN_ONLY: Final = ("version", "server")


class Sources:
    """Reads the files. Afterwards `root` holds the data and `contents` every file's bytes.

    `complete` is False if a file could not be read: then a name that seems to be missing may stand
    in it. `directories` are those whose new files an include would pick up.
    """

    def __init__(self, references: References, issues: list[Issue]) -> None:
        self.contents: dict[str, bytes] = {}
        self.directories: list[Path] = []
        self.complete = True
        self.root: Node | None = None
        self._references = references
        self._issues = issues
        self._open: list[str] = []
        self._seen: set[str] = set()

    def read(self, file: str) -> None:
        """Read the main file and what it includes; what is wrong is added to the issues."""
        try:
            self._read(file, None)
        except _Missing as error:
            self.complete = False
            self._issues.append(Issue(file, 0, 0, "", error.message))

    def _read(self, file: str, origin: Node | None) -> None:
        """Read one file. `origin` is the entry of `include:` that named it; raises _Missing."""
        if "\0" in file:
            raise _Missing("the path can't be a file's")
        identity = os.path.realpath(file)
        if identity in self._open:
            self._refuse(origin, f"{file} includes itself in a circle")
            return
        if identity in self._seen:
            return
        self._seen.add(identity)
        data = _read_bytes(file)
        self.contents[file] = data
        top = read_yaml(data, file, self._references, self._issues)
        if top is None:
            self.complete = False
            return
        self._check_keys(top, is_main=origin is None)
        include = top.value.get("include")
        if origin is not None:
            top.value.pop("include", None)
        self._join(top)
        if include is not None:
            self._open.append(identity)
            self._include(include, Path(file).parent)
            self._open.pop()

    def _include(self, include: Node, directory: Path) -> None:
        if include.value is None:
            return
        if not isinstance(include.value, list):
            self._refuse(include, "expected a list of files", "write [file.yaml]")
            return
        for entry in include.value:
            if entry.broken:
                self.complete = False
            elif not isinstance(entry.value, str) or not entry.value:
                self._refuse(entry, "expected the name of a file or a glob")
            else:
                self._expand(entry, directory)

    def _expand(self, entry: Node, directory: Path) -> None:
        pattern = str(directory / entry.value)
        if not glob.has_magic(entry.value):
            matches = [pattern]
        else:
            self.directories.append(_fixed_part(directory, entry.value))
            # The directory may itself hold characters that a glob would read.
            found = glob.glob(entry.value, root_dir=directory, recursive=True)  # noqa: PTH207
            matches = sorted(str(directory / name) for name in found)
            matches = [name for name in matches if not Path(name).is_dir()]
        for match in matches:
            try:
                self._read(match, entry)
            except _Missing as error:
                # The name may come from a reference, and then it is not printed.
                shown = "a file of " + entry.reference if entry.reference else match
                self._refuse(entry, f"can't include {shown}: {error.message}")

    def _check_keys(self, top: Node, *, is_main: bool) -> None:
        """Take out, with an error, the keys that can't stand at the top of this file."""
        for key in list(top.value):
            line, column = top.keys[key]
            issue: Issue | None = None
            if key in later.TOP_LEVEL:
                issue = Issue(top.file, line, column, key, later.MESSAGE)
            elif key not in _KNOWN:
                issue = unknown_key(top, (), key, _KNOWN)
            elif not is_main and key in _MAIN_ONLY:
                message = f"{key} can only be set in the main file"
                issue = Issue(top.file, line, column, key, message)
            if issue is not None:
                self._issues.append(issue)
                del top.value[key]

    def _join(self, top: Node) -> None:
        if self.root is None:
            self.root = top
            return
        for key, node in top.value.items():
            self._join_key(key, node, top.keys[key])

    def _join_key(self, key: str, node: Node, mark: tuple[int, int]) -> None:
        assert self.root is not None
        mine: Node | None = self.root.value.get(key)
        if mine is None or mine.value is None:
            self.root.value[key] = node
            self.root.keys[key] = mark
        elif node.value is None:
            return
        elif isinstance(mine.value, dict) and isinstance(node.value, dict):
            self.root.value[key] = self._join_mappings(key, mine, node)
        elif isinstance(mine.value, list) and isinstance(node.value, list):
            joined = Node([*mine.value, *node.value], mine.file, mine.line, mine.column)
            self.root.value[key] = joined
        else:
            expected = "a list" if isinstance(mine.value, list) else "a mapping"
            message = f"expected {expected}, as at {mine.position}"
            self._issues.append(Issue(node.file, node.line, node.column, key, message))

    def _join_mappings(self, key: str, mine: Node, other: Node) -> Node:
        # A new node, because an anchor may share the old one with another key.
        joined = Node({**mine.value}, mine.file, mine.line, mine.column, {**mine.keys})
        for name, child in other.value.items():
            mark = other.keys[name]
            if name in joined.value:
                first = mine.value[name]
                message = f'"{name}" is already set at {first.position}'
                path = f"{key}.{name}"
                self._issues.append(Issue(other.file, mark[0], mark[1], path, message))
            else:
                joined.value[name] = child
                joined.keys[name] = mark
        return joined

    def _refuse(self, node: Node | None, message: str, hint: str = "") -> None:
        self.complete = False
        assert node is not None
        node.broken = True
        self._issues.append(Issue(node.file, node.line, node.column, "include", message, hint))


class _Missing(Exception):
    """A file can't be opened."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def _read_bytes(file: str) -> bytes:
    """One byte more than is allowed, at most, so that the reader can tell. Raises _Missing."""
    try:
        path = Path(file)
        # A pipe would block for ever, a device never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise _Missing("not a regular file")
        with path.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _Missing("the file does not exist") from None
    except OSError as error:
        raise _Missing(f"the file can't be read: {error.strerror or error}") from None


def _fixed_part(directory: Path, pattern: str) -> Path:
    """The deepest directory of a glob that holds no wildcard."""
    for part in Path(pattern).parts[:-1]:
        if glob.has_magic(part):
            break
        directory /= part
    return directory


def top_level(root: Node, key: str) -> Any:
    """The node of a top-level key, or None if it is not there or null."""
    node = root.value.get(key)
    return None if node is None or node.value is None else node
