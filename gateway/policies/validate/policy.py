"""The policy: which operation a request means, its body read once, verdicts turned to refusals.

Requests are a guard's business; only if answers are looked at as well does the policy stand around
the rest of the chain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final

from gateway.contracts.contract import Contract
from gateway.contracts.operation import Operation
from gateway.errors import (
    BODY_TOO_LARGE,
    INVALID_BODY,
    INVALID_REQUEST,
    METHOD_NOT_ALLOWED,
    OPERATION_NOT_FOUND,
    UNSUPPORTED_MEDIA_TYPE,
    ConfigError,
    Refused,
    Rejection,
)
from gateway.message import Exchange, Handler, Response
from gateway.policies.base import Around, BuildContext, Guard, Policy, judge_key
from gateway.policies.validate.answers import AnswerCheck
from gateway.policies.validate.compiling import build_contract, build_inline
from gateway.policies.validate.config import ValidateConfig
from gateway.policies.validate.reading import read_request
from gateway.policies.validate.rules import (
    body_violations,
    media_type,
    parameter_violations,
    refusal,
    unsupported,
)

# A body that nothing else bounds.
_LIMIT: Final = 10 * 1024 * 1024
_QUARANTINED: Final = frozenset({INVALID_BODY, INVALID_REQUEST, UNSUPPORTED_MEDIA_TYPE})
Find = Callable[[Exchange], "tuple[Operation, dict[str, str]] | Rejection"]


class ValidatePolicy(Policy):
    """Builds the guard, or what stands around the chain, of one route."""

    name: ClassVar[str] = "validate"
    Config: ClassVar[type[ValidateConfig]] = ValidateConfig

    @classmethod
    def build(cls, config: ValidateConfig, context: BuildContext) -> Any:
        """The policy of a route. Raises ConfigError for names and schemas that can't be used."""
        if config.contract is not None:
            contract, path_of = build_contract(config.contract, context)
            find: Find = _ByContract(contract, path_of).find
        else:
            find = _Fixed(build_inline(config, context)).find
        check = None
        if config.checks_requests:
            check = RequestGuard(find, _limit(context), context.server.timeouts.body_idle)
            check.quarantines = _quarantines(config, context)
            if config.mode == "enforce" and _is_kept(context):
                # An event that is replayed with another body must keep the contract as well.
                context.shared(judge_key(context), lambda: check)
        if _is_kept(context):
            # What the client gets is the gateway's own answer, of which no contract speaks.
            if check is None or config.response is not None:
                message = "an asynchronous route answers by itself: only requests can be checked"
                raise ConfigError(message, "response")
            return check
        if not config.checks_responses and check is not None:
            return check
        report = context.metrics.route(context.route).report
        return AnswerAround(find, check, AnswerCheck(config.response_mode, report))


def _quarantines(config: ValidateConfig, context: BuildContext) -> bool:
    if config.on_invalid != "quarantine":
        return False
    if not _is_kept(context):
        message = "quarantine needs delivery, which keeps what is invalid"
        raise ConfigError(message, "on_invalid")
    # Reported, they pass as if they were valid.
    return config.mode != "report"


def _is_kept(context: BuildContext) -> bool:
    """Whether the route keeps what comes, to deliver it later."""
    route = context.config.routes_by_name.get(context.route)
    return route is not None and "delivery" in route.policies


def _limit(context: BuildContext) -> int:
    """How many bytes a body may have: what the route's own limit says, or the server's."""
    route = context.config.routes_by_name.get(context.route)
    body = route.policies.get("body") if route is not None else None
    own: int | None = getattr(body, "max", None)
    if own is None:
        own = context.server.limits.body
    return _LIMIT if own is None else own


class _ByContract:
    def __init__(self, contract: Contract, path_of: Callable[[Exchange], str]) -> None:
        self._contract = contract
        self._path_of = path_of

    def find(self, exchange: Exchange) -> tuple[Operation, dict[str, str]] | Rejection:
        """The operation that the request means."""
        found = self._contract.find(self._path_of(exchange))
        if found is None:
            return Rejection(OPERATION_NOT_FOUND)
        operations, path = found
        operation = operations.find(exchange.request.method)
        if operation is None:
            allow = ", ".join(operations.allowed)
            detail = f"the contract has {allow} here"
            return Rejection(METHOD_NOT_ALLOWED, detail, [(b"allow", allow.encode())])
        return operation, path


class _Fixed:
    def __init__(self, operation: Operation) -> None:
        self._operation = operation

    def find(self, exchange: Exchange) -> tuple[Operation, dict[str, str]]:
        """The route's own rules."""
        return self._operation, dict(exchange.raw_params)


class RequestGuard(Guard):
    """Refuses requests that break the contract. `limit` in bytes, `idle` in seconds.

    If it `quarantines`, they pass with `Exchange.invalid`; what has no place in the contract at all
    is still refused.
    """

    name: ClassVar[str] = "validate"
    Config: ClassVar[type[ValidateConfig]] = ValidateConfig

    def __init__(self, find: Find, limit: int, idle: float) -> None:
        self._find = find
        self._limit = limit
        self._idle = idle
        self.quarantines = False

    async def check(self, exchange: Exchange) -> Rejection | None:
        """Every violation of the request in one refusal, or None."""
        found = self._find(exchange)
        if isinstance(found, Rejection):
            return found
        operation, path = found
        return await self.judge(exchange, operation, path)

    async def judge(
        self, exchange: Exchange, operation: Operation, path: dict[str, str]
    ) -> Rejection | None:
        """The same for an operation that was found already."""
        rejection = await self._judge(exchange, operation, path)
        if rejection is not None and self.quarantines and rejection.kind in _QUARANTINED:
            exchange.invalid = rejection
            return None
        return rejection

    async def review(self, exchange: Exchange) -> Rejection | None:
        """The verdict on a request that was kept, with nothing done to it."""
        found = self._find(exchange)
        return found if isinstance(found, Rejection) else await self._judge(exchange, *found)

    async def _judge(
        self, exchange: Exchange, operation: Operation, path: dict[str, str]
    ) -> Rejection | None:
        request = exchange.request
        body = operation.body
        if body is None:
            wrong = parameter_violations(operation, request, path)
            return refusal(wrong, [], readable=True) if wrong else None
        kind = None
        data = b""
        if request.body or request.stream is not None:
            found = media_type(request, body)
            if isinstance(found, Rejection):
                return found
            kind = found
            whole = await read_request(request, self._limit, self._idle)
            if whole is None:
                return Rejection(BODY_TOO_LARGE, f"the body may have {self._limit} bytes")
            data = whole
            if data and kind is None:
                return unsupported(body)
        wrong = parameter_violations(operation, request, path)
        wrong_body, readable = body_violations(body, kind, data)
        if not (wrong or wrong_body):
            return None
        return refusal(wrong, wrong_body, readable=readable)


class AnswerAround(Around):
    """Judges answers, and requests before them if `guard` is given."""

    name: ClassVar[str] = "validate"
    Config: ClassVar[type[ValidateConfig]] = ValidateConfig

    def __init__(self, find: Find, guard: RequestGuard | None, answers: AnswerCheck) -> None:
        self._find = find
        self._guard = guard
        self._answers = answers

    async def handle(self, exchange: Exchange, forward: Handler) -> Response:
        """Raises Refused for a request, or in the end an answer, that breaks the contract."""
        found = self._find(exchange)
        if isinstance(found, Rejection):
            if self._guard is not None:
                raise Refused(found)
            return await forward(exchange)
        operation, path = found
        if self._guard is not None:
            rejection = await self._guard.judge(exchange, operation, path)
            if rejection is not None:
                raise Refused(rejection)
        response = await forward(exchange)
        return await self._answers.check(exchange, operation, response)
