"""What operations are given, which comes from outside, and how they refuse it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)


class Unusable(ValueError):
    """What was given can't be meant. The text says what and why."""


class Missing(LookupError):
    """What was asked for is not there. The text says what."""


class Conflict(Exception):
    """What was asked for can't be done in the state that things are in. The text says why."""


def given(params: Mapping[str, Any], kind: type[T]) -> T:
    """The parameters as `kind`; numbers may be text, as in a query. Raises Unusable."""
    try:
        return msgspec.convert(params, kind, strict=False)
    except msgspec.ValidationError as error:
        raise Unusable(str(error)) from None
