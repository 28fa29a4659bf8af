"""Moments as people type them: a duration ago, or a date and time."""

from __future__ import annotations

import time

import click
from pydantic_core import PydanticCustomError

from gateway.config.moment import parse_moment
from gateway.config.types import parse_duration


def moment(text: str) -> float:
    """Unix seconds of `2h` (ago), `2026-12-31` or `2026-12-31T12:00:00Z`. Raises UsageError."""
    try:
        return time.time() - parse_duration(text)
    except PydanticCustomError:
        pass
    try:
        return parse_moment(text)
    except PydanticCustomError:
        pass
    message = f'"{text}" is no moment: write 2h (ago), 2026-12-31 or 2026-12-31T12:00:00Z'
    raise click.UsageError(message)
