"""JSON as everyone reads it, or not at all (RFC 8259, RFC 7493).

Two readers that make different things of one text are how a check is passed by. Refused is what
they disagree about: members that are there twice, NaN and Infinity, text that is not UTF-8, lone
surrogates, a byte order mark, numbers beyond what a double can hold, nesting without end. Numbers
keep their exact value: what a double would round becomes a Decimal.
"""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

MAX_DEPTH: Final = 128
_MAX_EXPONENT: Final = 400
_MAX_DIGITS: Final = 4300
# Doubles show the same text again up to this many characters.
_EXACT_LENGTH: Final = 16
_TWICE: Final = "an object has a member twice"

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_SKELETON: Final = b"[]{}:0123456789.+-"
_BUT_SKELETON: Final = bytes(set(range(256)) - set(_SKELETON))
_BUT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


class MalformedJson(ValueError):
    """The text is no JSON, or not read by everyone in the same way. `reason` holds no value."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode(data: bytes) -> Any:
    """The value of a JSON text. Raises MalformedJson."""
    try:
        value = _decode(data)
        again = _encode(value)
    except RecursionError:
        raise MalformedJson("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise MalformedJson("it is not UTF-8") from None
    except msgspec.DecodeError as error:
        raise MalformedJson(_reason(data, str(error))) from None
    if again != data:
        bones = data.translate(None, _BUT_SKELETON)
        # A member that was there twice is gone when the value is written again, and a number that
        # was rounded is another text; an escape could put a colon of its own in the lost one's
        # place. Whatever is not told from that at once is read with care.
        if b"\\u00" in data or bones != again.translate(None, _BUT_SKELETON):
            value = _decode_with_care(data)
    # As many brackets as the bound has levels, or the text can't be too deep.
    if len(data) > 2 * MAX_DEPTH and len(data.translate(None, _BUT_BRACKETS)) > 2 * MAX_DEPTH:
        _check_depth(value)
    return value


def _decode_with_care(data: bytes) -> Any:
    """Read what is known to be well-formed once more, looking at every member and number."""
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_members,
            parse_float=exact_number,
            parse_int=_whole_number,
        )
    except RecursionError:
        raise MalformedJson("it is nested too deeply") from None


def decode_file(data: bytes, notes: list[str]) -> Any:
    """The value of a JSON file, whose members may be there twice; `notes` then says so.

    Raises MalformedJson.
    """
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return decode(data)
    except MalformedJson as error:
        if error.reason != _TWICE:
            raise
    notes.append(f"{_TWICE}; the last one counts")
    return _decode(data)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MalformedJson(_TWICE)
    return members


def _whole_number(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise MalformedJson("a number is out of range")
    return int(text)


def exact_number(text: str) -> float | Decimal:
    """The number of a text with a point or an exponent, exactly. Raises MalformedJson.

    Exponents are bounded, because a few characters could stand for gigabytes of digits.
    """
    if len(text) <= _EXACT_LENGTH and "e" not in text and "E" not in text:
        return float(text)
    if len(text) > _MAX_DIGITS:
        raise MalformedJson("a number is out of range")
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise MalformedJson("a number is out of range") from None
    if abs(number.adjusted()) > _MAX_EXPONENT:
        raise MalformedJson("a number is out of range")
    return number


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return
    raise MalformedJson("it is nested too deeply")


def _reason(data: bytes, message: str) -> str:
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        return "it starts with a byte order mark"
    if not data.strip():
        return "it is empty"
    if "out of range" in message:
        return "a number is out of range"
    # Its messages tell positions, never values.
    reason = message.removeprefix("JSON is malformed: ")
    return "it ends too early" if reason == "Input data was truncated" else reason
