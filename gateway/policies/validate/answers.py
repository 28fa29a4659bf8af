"""Answers held to their contract: read within a bound, passed on or turned into a 502."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from gateway.contracts import media
from gateway.contracts.media import MediaTable
from gateway.contracts.operation import Content, Operation
from gateway.contracts.violations import Violation
from gateway.errors import RESPONSE_CONTRACT, Refused, Rejection
from gateway.message import Exchange, Response
from gateway.policies.validate.reading import read_response
from gateway.policies.validate.rules import describe, response_violations

logger = logging.getLogger("gateway")

# Answers above this size are not held back to be looked at.
LIMIT: Final = 1024 * 1024
_BODILESS: Final = frozenset({101, 204, 205, 304})
_EVENTS: Final = b"text/event-stream"
# Different kinds of faults that are logged; counted are all.
_MAX_TOLD: Final = 100


class AnswerCheck:
    """Judges answers. In `report` mode, `report(policy, code)` counts what would have failed."""

    def __init__(self, mode: str, report: Callable[[str, str], None]) -> None:
        self._enforce = mode == "enforce"
        self._report = report
        self._told: set[str] = set()

    async def check(self, exchange: Exchange, operation: Operation, response: Response) -> Response:
        """The answer, if it may leave. Raises Refused if not; the answer is closed then."""
        if (
            response.status in _BODILESS
            or exchange.request.method == "HEAD"
            or response.error is not None
        ):
            return response
        table = operation.response(response.status)
        if table is None or not table.names:
            return response
        violations = await self._violations(response, table)
        if violations:
            self._fault(exchange, operation, response, violations)
        return response

    async def _violations(self, response: Response, table: MediaTable[Content]) -> list[Violation]:
        fields = dict(response.headers)
        stated = fields.get(b"content-type")
        if stated is not None and stated[: len(_EVENTS)].lower() == _EVENTS:
            return []
        found = table.find(stated.decode("latin-1")) if stated is not None else None
        if found is not None and (found[0].kind != media.JSON or found[1].schema() is None):
            return []
        length = fields.get(b"content-length", b"")
        if response.body is None and length.isdigit() and int(length[:18]) > LIMIT:
            return []
        if found is None and (length == b"0" or response.body == b""):
            return []
        data = b"" if found is None else await read_response(response, LIMIT)
        if data is None:
            return []
        encoding = fields.get(b"content-encoding", b"").decode("latin-1").strip().lower()
        return response_violations(table, found, encoding, data, LIMIT)

    def _fault(
        self, exchange: Exchange, operation: Operation, response: Response,
        violations: list[Violation],
    ) -> None:  # fmt: skip
        code = RESPONSE_CONTRACT.code
        detail = f"{operation.label}, status {response.status}: {describe(violations)}"
        if not self._enforce:
            self._report("validate", code)
            exchange.reported = [*(exchange.reported or ()), f"validate:{code}"]
            if detail not in self._told and len(self._told) < _MAX_TOLD:
                self._told.add(detail)
                logger.warning("an answer breaks its contract: %s", detail)
            return
        response.close()
        # The log is told where; the client only that.
        exchange.fail(Rejection(RESPONSE_CONTRACT, detail))
        raise Refused(Rejection(RESPONSE_CONTRACT))
