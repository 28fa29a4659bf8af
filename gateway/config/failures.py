"""What may be called a failure of an upstream: status codes, and words for what is no answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final

from pydantic import BeforeValidator, WithJsonSchema

from gateway.config.types import refuse

WORDS: Final = ("connect", "tls", "reset", "timeout", "invalid")
CLASS: Final = "5xx"


def _failure(value: object) -> int | str:
    if isinstance(value, str) and (value in WORDS or value == CLASS):
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == 3:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599:
        return value
    words = ", ".join(WORDS)
    raise refuse("failure", f"expected {words}, {CLASS} or a status code from 400 to 599")


Failure = Annotated[
    int | str,
    BeforeValidator(_failure),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": [*WORDS, CLASS]},
                {"type": "integer", "minimum": 400, "maximum": 599},
            ],
            "description": "connect: no connection, so nothing was sent; tls: TLS failed; reset: "
            "the connection broke before an answer; timeout: no answer in time; invalid: the "
            "answer is not HTTP; a status code, or 5xx for all of them.",
        },
        mode="validation",
    ),
]
"""A word of `WORDS`, `5xx`, or a status code."""


def words(failures: Iterable[int | str]) -> frozenset[str]:
    """The words among them."""
    return frozenset(each for each in failures if isinstance(each, str) and each != CLASS)


def statuses(failures: Iterable[int | str]) -> frozenset[int]:
    """The status codes among them."""
    listed = list(failures)
    found = {each for each in listed if isinstance(each, int)}
    return frozenset(found | set(range(500, 600)) if CLASS in listed else found)
