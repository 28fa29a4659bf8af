"""Bodies made of an event: a template whose strings that begin with `=` are CEL expressions.

    {id: "=body.order_id", total: "=body.total", source: lockgate}

`==` at the beginning stands for one `=` that is text.
"""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from typing import Any, Final

import msgspec

from gateway.expressions import ROOTS, Expression, ExpressionFailed, Maker, NotJson
from gateway.message import Exchange


def _body(exchange: Exchange) -> object:
    body = exchange.request.body
    if not body:
        return None
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise NotJson from None


BODY_ROOTS: Final[MappingType[str, Maker]] = {**ROOTS, "body": _body}
"""What an expression over a new event may name: a request's roots, and the parsed JSON body."""
KEPT_ROOTS: Final[MappingType[str, Maker]] = {
    name: maker for name, maker in BODY_ROOTS.items() if name != "claims"
}
"""The same for an event that was kept: the caller's claims were not."""


class MappingFailed(Exception):
    """An expression of the template has no answer for this event. The text names no value."""


class Mapping:
    """A compiled template. `roots` are what its expressions may name.

    Raises ExpressionError for an expression that can't be compiled.
    """

    def __init__(self, template: Any, roots: MappingType[str, Maker] = KEPT_ROOTS) -> None:
        self._template = _compile(template, roots)

    def value(self, exchange: Exchange) -> Any:
        """The template filled in. Raises MappingFailed."""
        return _fill(self._template, exchange)

    def body(self, exchange: Exchange) -> bytes:
        """The same as JSON. Raises MappingFailed."""
        value = self.value(exchange)
        try:
            return msgspec.json.encode(value)
        except (TypeError, ValueError, msgspec.MsgspecError):
            raise MappingFailed("the result can't be written as JSON") from None


def _compile(template: Any, roots: MappingType[str, Maker]) -> Any:
    if isinstance(template, dict):
        return {key: _compile(value, roots) for key, value in template.items()}
    if isinstance(template, list | tuple):
        return [_compile(value, roots) for value in template]
    if isinstance(template, str) and template.startswith("=="):
        return template[1:]
    if isinstance(template, str) and template.startswith("="):
        return Expression(template[1:], roots)
    return template


def _fill(template: Any, exchange: Exchange) -> Any:
    if isinstance(template, dict):
        return {key: _fill(value, exchange) for key, value in template.items()}
    if isinstance(template, list):
        return [_fill(value, exchange) for value in template]
    if isinstance(template, Expression):
        try:
            return template.value(exchange)
        except ExpressionFailed as error:
            raise MappingFailed(f"={template.text}: {error.reason}") from None
    return template
