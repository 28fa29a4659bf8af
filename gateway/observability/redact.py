"""Keeping secrets and control characters out of what is logged. Pure functions of a few bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Final
from urllib.parse import unquote_to_bytes

MASK: Final = "***"


class QueryRedactor:
    """Replaces the values of some query parameters. Names are compared decoded, without case."""

    __slots__ = ("_names", "_suspicious")

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(name.lower().encode() for name in names)
        known = b"|".join(re.escape(name) for name in sorted(self._names))
        # One search says for nearly every query that it holds no such name, not even encoded.
        self._suspicious = re.compile(
            rb"(?:^|[&;])(?:[^=&;]*[%+\s]|(?:" + known + rb")(?:[=&;]|$))", re.IGNORECASE
        ).search

    def __call__(self, query: bytes) -> str:
        """The query as text, ASCII only, with the values of secret parameters masked.

        Upstreams differ in what separates parameters, so `;` counts as well as `&`.
        """
        if not self._names or self._suspicious(query) is None:
            return text(query)
        pieces = query.replace(b";", b"&").split(b"&")
        if not any(self._is_secret(piece) for piece in pieces):
            return text(query)
        return "&".join(
            f"{text(piece.partition(b'=')[0])}={MASK}" if self._is_secret(piece) else text(piece)
            for piece in pieces
        )

    def _is_secret(self, piece: bytes) -> bool:
        name = piece.partition(b"=")[0]
        if b"%" in name or b"+" in name:
            name = unquote_to_bytes(name.replace(b"+", b" "))
        return name.strip().lower() in self._names


def text(value: bytes) -> str:
    r"""Bytes from the wire as ASCII text; a byte beyond it is shown as `\xNN`."""
    return value.decode("ascii", "backslashreplace")


def ascii_json(line: bytes) -> bytes:
    """The same JSON with everything but printable ASCII escaped.

    JSON lets DEL, C1 controls and line separators stand as they are; a terminal or a log shipper
    that acts on them would be in the hands of whoever sent them.
    """
    return json.dumps(json.loads(line), separators=(",", ":")).replace("\x7f", "\\u007f").encode()
