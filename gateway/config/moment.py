"""Moments in configuration: a date and time with its zone (RFC 3339), or a date, which is its
first second in UTC.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from gateway.config.address import refuse

_PATTERN: Final = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2}))?$"
)
_MOMENT: Final = re.compile(_PATTERN, re.ASCII)


def parse_moment(value: object) -> float:
    """Unix seconds from `2026-12-31` or `2026-12-31T12:00:00Z`. A time without a zone is refused:
    two machines would read it differently.
    """
    if isinstance(value, float):
        # What was parsed before is given back when a model is copied.
        return value
    if isinstance(value, str) and _MOMENT.fullmatch(value):
        try:
            moment = datetime.fromisoformat(value.upper())
        except ValueError:
            pass
        else:
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    raise refuse("moment", "expected a date such as 2026-12-31, or 2026-12-31T12:00:00Z")


def format_moment(seconds: float) -> str:
    """The moment in UTC; a midnight as a date alone."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat()
    return text.removesuffix("T00:00:00+00:00").replace("+00:00", "Z")


Moment = Annotated[
    float,
    BeforeValidator(parse_moment),
    PlainSerializer(format_moment, when_used="json"),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": _PATTERN,
            "description": "A date (its first second in UTC), or a date and time with its zone.",
            "examples": ["2026-12-31", "2026-12-31T12:00:00Z"],
        },
        mode="validation",
    ),
]
"""Unix seconds."""
