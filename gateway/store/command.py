"""Commands as bytes on the wire (RESP: an array of bulk strings), written for short words."""

from __future__ import annotations

from typing import Final

from gateway.store.base import Part
from gateway.store.script import Script

# What stands before a word of that many bytes.
_SIZES: Final = [b"\r\n$%d\r\n" % size for size in range(512)]
_COUNTS: Final = [b"*%d" % count for count in range(64)]
_ONE_KEY: Final = b"\r\n$1\r\n1"


def encode(parts: tuple[Part, ...]) -> bytes:
    """A command of these words. Raises TypeError for what is no word."""
    return _encode(len(parts), b"", parts)


def encode_script(script: Script, keys: tuple[Part, ...], args: tuple[Part, ...]) -> bytes:
    """EVALSHA of a script. Raises TypeError for what is no word."""
    if len(keys) == 1 and len(args) == 1:
        # What each request asks of a limit.
        key, arg = keys[0], args[0]
        if isinstance(key, bytes) and isinstance(arg, bytes) and len(key) + len(arg) < 512:
            key_size, arg_size = _SIZES[len(key)], _SIZES[len(arg)]
            return b"".join((b"*5", script.begin, _ONE_KEY, key_size, key, arg_size, arg, b"\r\n"))
    count = b"1" if len(keys) == 1 else b"%d" % len(keys)
    return _encode(3 + len(keys) + len(args), script.begin, (count, *keys, *args))


def _encode(count: int, begin: bytes, parts: tuple[Part, ...]) -> bytes:
    pieces = [_COUNTS[count] if count < 64 else b"*%d" % count, begin]
    for part in parts:
        word = part if isinstance(part, bytes) else _word(part)
        size = len(word)
        pieces.append(_SIZES[size] if size < 512 else b"\r\n$%d\r\n" % size)
        pieces.append(word)
    pieces.append(b"\r\n")
    return b"".join(pieces)


def _word(part: object) -> bytes:
    if isinstance(part, str):
        return part.encode()
    # One by one: in compiled code a union of types is made anew for each call.
    if isinstance(part, float) or (isinstance(part, int) and not isinstance(part, bool)):
        return str(part).encode("ascii")
    raise TypeError(f"{type(part).__name__} is no part of a command")
