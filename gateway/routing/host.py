"""Host names as routes see them: lower case, without port, without the root's final dot."""

from __future__ import annotations

from typing import Final

_MEMO_SIZE: Final = 2048
_MEMO_KEY: Final = 256
_names: dict[bytes, str] = {}


def host_name(field: bytes) -> str:
    """The name in a Host field or an authority: `API.internal:8080` is `api.internal`.

    IPv6 literals keep their brackets. The field's syntax was checked by the server.
    """
    name = _names.get(field)
    return _new_name(field) if name is None else name


def _new_name(field: bytes) -> str:
    text = field.decode("latin-1").lower()
    if text.startswith("["):
        name = text.partition("]")[0] + "]"
    else:
        name = text.partition(":")[0]
        # A name with the root's dot is the same name (RFC 1034 section 3.1).
        name = name.removesuffix(".")
    # Bounded, so that a hostile client gains nothing by varying its Host.
    if len(_names) < _MEMO_SIZE and len(field) < _MEMO_KEY:
        _names[field] = name
    return name


def parents(name: str) -> list[str]:
    """The domains above `name`, nearest first: those whose wildcard takes it."""
    above = []
    _, dot, rest = name.partition(".")
    while dot:
        above.append(rest)
        _, dot, rest = rest.partition(".")
    return above
