"""How a plain scalar is read: the core schema of YAML 1.2, not the guesses of YAML 1.1.

Only `true`, `false`, `null`, `~` and numbers are special. `no`, `on`, `1:30`, `1_000` and dates
stay text, so a country list `[no, se]` is one of texts; where true or false is wanted, the model
reads `no` and `on` as people mean them. A number with a leading zero is 8 to one parser and 10
to the next, and so it is refused.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.config.nodes import Scalar

_CONSTANTS: Final[dict[str, bool | None]] = {
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
    "null": None,
    "Null": None,
    "NULL": None,
    "~": None,
    "": None,
}
_FLOATS: Final = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}
_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,400}", re.ASCII)
_LEADING_ZERO: Final = re.compile(r"[-+]?0[0-9_]+", re.ASCII)
_OCTAL: Final = re.compile(r"0o[0-7]{1,400}", re.ASCII)
_HEXADECIMAL: Final = re.compile(r"0x[0-9a-fA-F]{1,400}", re.ASCII)
_FLOAT: Final = re.compile(
    r"[-+]?(\.[0-9]{1,400}|[0-9]{1,400}(\.[0-9]{0,400})?)([eE][-+]?[0-9]{1,9})?", re.ASCII
)
_NUMBER_STARTS: Final = frozenset("0123456789+-.")


class AmbiguousNumber(ValueError):
    """The scalar is a number that is read in two ways."""


def read_plain(text: str) -> Scalar:
    """The value of a plain (unquoted) scalar. Raises AmbiguousNumber for `010`."""
    if not text:
        return None
    if text[0] in _NUMBER_STARTS:
        return _read_number(text)
    return _CONSTANTS.get(text, text)


def _read_number(text: str) -> Scalar:
    if _INTEGER.fullmatch(text):
        if _LEADING_ZERO.fullmatch(text):
            raise AmbiguousNumber
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if text.lower() in _FLOATS:
        return float(_FLOATS[text.lower()])
    if _OCTAL.fullmatch(text):
        return int(text, 0)
    if _HEXADECIMAL.fullmatch(text):
        return int(text, 0)
    return text
