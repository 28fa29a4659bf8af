"""Path templates: `/v1/orders/{order_id}`, `/files/{rest:path}`. Reading, capturing, expanding.

The grammar is small on purpose:
- a segment is literal, or one parameter and nothing else; `v{id}.json` is refused. What a whole
  segment matches can be told at a glance, and the table needs one lookup a segment;
- `{name}` matches one segment, never an empty one;
- `{name:path}` stands last and matches everything behind its slash, which may be nothing:
  `/files/{rest:path}` takes `/files/` and `/files/a/b`, not `/files`. So `/{rest:path}` takes all;
- case and a final slash matter: `/orders` and `/orders/` are two paths;
- literal segments are brought to the normal form of `path.py`; characters beyond ASCII may be
  written as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, unquote

from gateway.routing.path import PathError, normalise

_PARAMETER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(:path)?\}", re.ASCII)
# Segments that can only be literal, and are in normal form as they are: most of them.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_~-]+", re.ASCII)
_BEYOND_ASCII: Final = re.compile(r"[^\x00-\x7f]+")


class TemplateError(Exception):
    """The text is not a template. `reason` says why, for the person who wrote it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Template:
    """A path template, read once.

    `segments` holds each literal segment in normal form, and None for a parameter of one segment;
    a final slash is a last segment "". `rest` is the name of the `{name:path}` parameter, which is
    not among the segments, or "". `singles` is the place in `segments` of each other parameter.
    `shape` is the same for templates that match the same paths.
    """

    __slots__ = ("_format", "_only", "rest", "segments", "shape", "singles", "text")

    def __init__(self, text: str) -> None:
        """Read `text`. Raises TemplateError."""
        self.text = text
        self.rest = ""
        self.segments: list[str | None] = []
        self.singles: dict[str, int] = {}
        if not text.startswith("/"):
            raise TemplateError("a path starts with /")
        parts = text[1:].split("/")
        for position, part in enumerate(parts):
            self._add(part, last=position == len(parts) - 1)
        # Most templates have one parameter; for them, capturing needs no loop.
        only = len(self.singles) == 1 and not self.rest
        self._only = next(iter(self.singles.items())) if only else None
        # Literals hold no braces, so the normal form with its parameters is a format string.
        names = {place: name for name, place in self.singles.items()}
        pieces = [
            f"{{{names[place]}}}" if literal is None else literal
            for place, literal in enumerate(self.segments)
        ]
        marks = ["{}" if literal is None else literal for literal in self.segments]
        if self.rest:
            pieces.append(f"{{{self.rest}}}")
            marks.append("{:path}")
        self._format = "/" + "/".join(pieces)
        self.shape = "/" + "/".join(marks)

    def _add(self, part: str, *, last: bool) -> None:
        if _PLAIN.fullmatch(part):
            self.segments.append(part)
            return
        parameter = _PARAMETER.fullmatch(part)
        if parameter is None:
            self.segments.append(_literal(part, last=last))
            return
        name = parameter[1]
        if name in self.singles:
            raise TemplateError(f"the parameter {name} is there twice")
        if not parameter[2]:
            self.singles[name] = len(self.segments)
            self.segments.append(None)
        elif last:
            self.rest = name
        else:
            raise TemplateError(f"{{{name}:path}} may only stand at the end")

    @property
    def is_literal(self) -> bool:
        """Whether it matches one path only, which is then `shape`."""
        return not self.rest and not self.singles

    def capture(self, segments: list[str]) -> dict[str, str]:
        """The parameters, still encoded, in a path that matches; `segments` is that path split."""
        if self._only is not None:
            name, place = self._only
            return {name: segments[place]}
        raw = {name: segments[place] for name, place in self.singles.items()}
        if self.rest:
            raw[self.rest] = "/".join(segments[len(self.segments) :])
        return raw

    def check_expands(self, match: Template) -> None:
        """See that the parameters of `match` suffice for `expand`. Raises TemplateError.

        A `{name:path}` must be one there and here: put elsewhere it could be empty, and a path of
        several segments would stand where the template promises one.
        """
        for name in self.singles:
            if name not in match.singles:
                hint = f"; write {{{name}:path}}" if name == match.rest else ""
                raise TemplateError(f"{{{name}}} is no parameter of {match.text}{hint}")
        if self.rest and self.rest != match.rest:
            raise TemplateError(f"{{{self.rest}:path}} is no parameter of {match.text}")

    def expand(self, raw: Mapping[str, str]) -> str:
        """The path with its parameters put in; `raw` holds them as `capture` gave them.

        They are still encoded and in normal form, so the result is in normal form too: nothing
        decoded can change its structure.
        """
        return self._format.format_map(raw)

    def __repr__(self) -> str:
        return f"Template({self.text!r})"


def _literal(part: str, *, last: bool) -> str:
    if "{" in part or "}" in part:
        raise TemplateError(
            f"{part} is no parameter; a parameter is a whole segment, {{name}} or {{name:path}}"
        )
    if not part:
        if last:
            return ""
        raise TemplateError("an empty segment (//) can't match: paths are matched without them")
    encoded = _BEYOND_ASCII.sub(lambda found: quote(found[0]), part).encode("ascii")
    try:
        normal = normalise(b"/" + encoded)[1:]
    except PathError as error:
        raise TemplateError(f"{part}: {error.reason}") from None
    if not normal or normal == "/":
        raise TemplateError(f"{part} can't match: paths are matched without dot segments")
    return normal


def decode(raw: dict[str, str]) -> dict[str, str]:
    """The parameters as text. Escapes of a path in normal form are UTF-8, so this can't fail."""
    return {name: unquote(value, "utf-8", "strict") for name, value in raw.items()}
