"""The ids of events."""

from __future__ import annotations

import os
from typing import Final

# Random digits, a few hundred ids' worth at a time: asking for them is a system call.
_BYTES: Final = 10
_digits: list[str] = []
# The two highest bits of a digit that must be 10.
_VARIANTS: Final = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))
os.register_at_fork(after_in_child=_digits.clear)


def new_id(wall: float) -> str:
    """A UUID version 7 (RFC 9562 section 5.7) of this moment (Unix seconds): ordered by time, and
    not to be guessed.
    """
    # Not formatted with "012x", which costs several times as much.
    stamp = (int(wall * 1000) & 0xFFFFFFFFFFFF).to_bytes(6, "big").hex()
    if not _digits:
        _digits.extend(os.urandom(256 * _BYTES).hex("-", _BYTES).split("-"))
    digits = _digits.pop()
    variant = _VARIANTS[digits[3]]
    return f"{stamp[:8]}-{stamp[8:]}-7{digits[:3]}-{variant}{digits[4:7]}-{digits[7:19]}"
