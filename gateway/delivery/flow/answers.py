"""What the expressions of a flow may name: the event, and what earlier steps answered.

    steps.<name>    status (0 without an answer), body (parsed JSON; text for what is none; null for
                    an empty one), headers (by lower-case name), state (done, skipped)

Steps are named as they stand there, never by an index that is computed: so it is known when the
configuration is loaded which answers must be kept, and that each was given before it is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from gateway.delivery.flow.progress import Kept, Progress, State
from gateway.delivery.mapping import KEPT_ROOTS
from gateway.expressions import Expression, ExpressionFailed, Maker
from gateway.message import Exchange, RawHeaders

STEPS: Final = "steps"
_STATE: Final = "lockgate.flow"
_TEXT: Final = re.compile(r"""r?(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')""", re.DOTALL)
_NAMED: Final = re.compile(r"\bsteps\b(?:\s*\.\s*([A-Za-z_]\w*)(?:\s*\.\s*([A-Za-z_]\w*))?)?")
_PARTS: Final = frozenset({"body", "headers"})


def _steps(exchange: Exchange) -> object:
    return (exchange.state or {}).get(_STATE, {})


FLOW_ROOTS: Final[Mapping[str, Maker]] = {
    **KEPT_ROOTS,
    STEPS: _steps,
}
"""The roots by name."""


class UnnamedStep(ValueError):
    """An expression uses `steps` without the name of one."""


def named_in(text: str) -> Iterator[tuple[str, frozenset[str]]]:
    """The steps that an expression names, and which parts of their answers. Raises UnnamedStep."""
    bare = _TEXT.sub('""', text)
    for found in _NAMED.finditer(bare):
        if bare[: found.start()].rstrip().endswith("."):
            # A member of something else that is called so.
            continue
        name, part = found.groups()
        if name is None:
            raise UnnamedStep
        # Without a part, all of it may be meant.
        yield name, _PARTS if part is None else _PARTS & {part}


def expressions_in(template: Any) -> Iterator[str]:
    """The texts of a template's expressions, see `mapping`."""
    if isinstance(template, dict):
        for value in template.values():
            yield from expressions_in(value)
    elif isinstance(template, list | tuple):
        for value in template:
            yield from expressions_in(value)
    elif isinstance(template, str) and template.startswith("=") and not template.startswith("=="):
        yield template[1:]


class Answers:
    """What the steps of one event answered, for the expressions over `exchange`."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self._shown: dict[str, dict[str, Any]] = {}
        exchange.state = {_STATE: self._shown}

    def show(self, progress: Progress) -> None:
        """Let expressions see all that was done so far, and nothing else."""
        known = self._shown.copy()
        self._shown.clear()
        for step in progress.steps:
            if step.state in (State.DONE, State.SKIPPED):
                self._shown[step.name] = known.get(step.name) or _view(
                    step.status, step.state, step.kept
                )

    def show_one(self, name: str, status: int, kept: Kept) -> None:
        """Let expressions see an answer that has just come."""
        self._shown[name] = _view(status, State.DONE, kept)


def _view(status: int, state: State, kept: Kept) -> dict[str, Any]:
    return {
        "status": status,
        "state": str(state),
        "body": _parsed(kept.body or b""),
        "headers": kept.headers or {},
    }


def _parsed(body: bytes) -> Any:
    if not body:
        return None
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return body.decode("utf-8", "replace")


def fields_of(headers: RawHeaders) -> dict[str, str]:
    """Header fields by name; what was sent several times is joined with ", "."""
    found: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


def seconds_until(expression: Expression, exchange: Exchange, now: float) -> float:
    """How long to wait: until a timestamp (also as RFC 3339 text), or for a duration or a number of
    seconds. `now` is Unix seconds. Raises ExpressionFailed.
    """
    value = expression.value(exchange)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ExpressionFailed("the result is no time") from None
    if isinstance(value, datetime):
        # Without an offset it is UTC (RFC 3339 asks for one).
        moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return moment.timestamp() - now
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e10:
        return float(value)
    raise ExpressionFailed("the result is no time")
