"""Words for a name that nobody knows: what was meant, if something is close."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from gateway.config.issues import Issue
from gateway.config.nodes import Node, Path, format_path


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint that names the closest of `known`, or ""."""
    choices = {choice.lower(): choice for choice in sorted(known)}
    # difflib is quadratic in the length of a word; no key is that long.
    close = difflib.get_close_matches(name.lower()[:100], choices, n=1, cutoff=0.7)
    return f'did you mean "{choices[close[0]]}"?' if close else ""


def unknown_key(parent: Node, path: Path, key: str, known: Iterable[str]) -> Issue:
    """The issue for a key that the mapping `parent`, at `path`, does not know."""
    line, column = parent.keys.get(key, (parent.line, parent.column))
    shown = key if len(key) <= 80 else key[:77] + "..."
    return Issue(
        parent.file,
        line,
        column,
        format_path((*path, shown)),
        f'unknown key "{shown}"',
        did_you_mean(key, known),
    )
