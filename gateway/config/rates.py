"""Rates: so many requests in a stretch of time, or in each day or month of the calendar."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema

from gateway.config.address import refuse

RATE_PATTERN: Final = r"^[1-9][0-9]*/(?:[1-9][0-9]*)?(?:ms|s|m|h|d)$|^[1-9][0-9]*/(?:day|month)$"

_RATE: Final = re.compile(r"([0-9]{1,15})/([0-9]{0,9})([A-Za-z]+)", re.ASCII)
_MICROSECONDS: Final = {
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
_LONGEST_US: Final = 366 * _MICROSECONDS["d"]
# Above any traffic, and small enough that everything that is made of it stays an exact integer.
_MOST: Final = 10**12
_CALENDAR: Final = ("day", "month")
_MEANT: Final = {
    "sec": "s", "second": "s", "seconds": "s", "min": "m", "minute": "m", "minutes": "m",
    "hr": "h", "hour": "h", "hours": "h", "days": "d", "mo": "month", "months": "month",
    "week": "7d", "weeks": "7d", "w": "7d", "year": "365d", "y": "365d",
}  # fmt: skip
_EXPECTED: Final = "expected a rate such as 100/s, 5000/m, 1000000/30d, 10000/day or 200000/month"


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` requests in every `period_us` microseconds, or in every `calendar` day or month.

    `period_us` is 0 if `calendar` is not empty. `window` is how the stretch was written: `s`,
    `30d`, `day`.
    """

    count: int
    period_us: int
    window: str
    calendar: Literal["", "day", "month"] = ""

    def __str__(self) -> str:
        return f"{self.count}/{self.window}"


def parse_rate(value: object) -> Rate:
    """A rate from `100/s`, `5000/m`, `1000000/30d`, `10000/day` or `200000/month`."""
    if isinstance(value, Rate):
        return value
    match = _RATE.fullmatch(value.replace(" ", "")) if isinstance(value, str) else None
    if match is None:
        plain = isinstance(value, int) and not isinstance(value, bool)
        hint = f"write {value}/s" if plain or (isinstance(value, str) and value.isdigit()) else ""
        raise refuse("rate", _EXPECTED, hint)
    count, number, unit = int(match[1]), match[2], match[3]
    if not 0 < count <= _MOST:
        raise refuse("rate", "a rate is at least 1 and at most 1000000000000")
    if unit in _CALENDAR and not number:
        return Rate(count, 0, unit, "day" if unit == "day" else "month")
    if unit not in _MICROSECONDS:
        raise refuse("rate", _EXPECTED, _hint(count, number, unit))
    period_us = int(number or 1) * _MICROSECONDS[unit]
    if not 0 < period_us <= _LONGEST_US:
        raise refuse("rate", "a rate's stretch of time is more than zero and at most 366d")
    return Rate(count, period_us, f"{number}{unit}")


def _hint(count: int, number: str, unit: str) -> str:
    if unit in _CALENDAR:
        return f"write {count}/{number}d" if unit == "day" else f"write {count}/month"
    meant = _MEANT.get(unit.lower(), "")
    if not meant or (number and meant[0].isdigit()):
        return ""
    return f"did you mean {count}/{number}{meant}?"


def _no_calendar(rate: Rate) -> Rate:
    if rate.calendar:
        hint = f"write {rate.count}/{'1d' if rate.calendar == 'day' else '30d'}"
        raise refuse("rate", "a quota by the calendar can't be used here", hint)
    return rate


AnyRate = Annotated[
    Rate,
    BeforeValidator(parse_rate),
    PlainSerializer(str, when_used="json"),
    WithJsonSchema(
        {
            "type": "string",
            "description": "A rate: requests in a stretch of time (100/s, 5000/m, 1000000/30d), or "
            "in each day or month of the calendar in UTC (10000/day, 200000/month).",
            "pattern": RATE_PATTERN,
            "examples": ["100/s", "5000/m", "1000000/30d", "10000/day", "200000/month"],
        },
        mode="validation",
    ),
]
"""A `Rate` of either sort."""

SteadyRate = Annotated[
    Rate,
    BeforeValidator(parse_rate),
    AfterValidator(_no_calendar),
    PlainSerializer(str, when_used="json"),
    WithJsonSchema(
        {
            "type": "string",
            "description": "A rate: a number and the stretch of time it is for.",
            "pattern": RATE_PATTERN.partition("$|")[0] + "$",
            "examples": ["100/s", "5000/m"],
        },
        mode="validation",
    ),
]
"""A `Rate` that is no quota by the calendar."""
