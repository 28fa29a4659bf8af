"""JSON as security needs it: one reading only. For what tokens carry and identity providers answer.

Python's parser takes the last of several members of one name, NaN and Infinity, and numbers of any
size; another reader of the same token may not (RFC 8725 section 2.4, RFC 8259 section 4).
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

MAX_DEPTH: Final = 16
MAX_DIGITS: Final = 19

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


class NotStrict(ValueError):
    """The bytes are no JSON object that has one meaning. `reason` quotes nothing of them."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def parse_object(data: bytes) -> dict[str, Any]:
    """A JSON object: UTF-8, no name twice, at most 16 levels deep, finite numbers of usual size.

    Raises NotStrict. The caller bounds the size of `data`.
    """
    try:
        text = data.decode("utf-8")
        _check_depth(text)
        value = _DECODER.decode(text)
    except NotStrict:
        raise
    except UnicodeDecodeError:
        raise NotStrict("is not UTF-8") from None
    except (ValueError, RecursionError):
        raise NotStrict("is not JSON") from None
    if not isinstance(value, dict):
        raise NotStrict("is not a JSON object")
    if "\\u" in text:
        _check_text(value)
    return value


def _check_depth(text: str) -> None:
    if text.count("{") + text.count("[") <= MAX_DEPTH:
        return
    depth = 0
    for char in _STRING.sub("", text):
        if char in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise NotStrict("is nested too deeply")
        elif char in "]}":
            depth -= 1


def _check_text(value: dict[str, Any]) -> None:
    # Half of a surrogate pair is no character: it could be logged, sent or compared by nobody.
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise NotStrict("holds half a character") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise NotStrict("has a member twice")
    return members


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise NotStrict("holds a number that is too large")
    return int(digits)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise NotStrict("holds a number that is too large")
    return value


def _constant(name: str) -> Any:
    raise NotStrict(f"holds {name}, which is no JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_whole, parse_float=_number, parse_constant=_constant
)
