"""What each endpoint of the admin application answers: JSON of the structures in `control.py`.

Health endpoints follow the Kubernetes API server: `ok` as text, and one line a check with
`?verbose`. They answer whatever state the data path is in.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from gateway.admin.control import BreakerOrder, Control, FlagOrder, Health, Purge
from gateway.admin.problems import problem
from gateway.observability.exposition import (
    OPENMETRICS_TYPE,
    TEXT_TYPE,
    render,
    wants_openmetrics,
)

audit = logging.getLogger("gateway.audit")

_METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"}
)


class _Order(msgspec.Struct, forbid_unknown_fields=True):
    state: Literal["open", "closed", "auto"]
    route: str = ""


class _FlagValue(msgspec.Struct, forbid_unknown_fields=True):
    value: Any


class Endpoints:
    """The handlers, bound to the data path they ask."""

    def __init__(self, control: Control) -> None:
        self._control = control

    async def livez(self, request: Request) -> Response:
        """200 while the process works; 503 if only a restart can help."""
        health = await self._control.health()
        return _health(request, health, health.live)

    async def readyz(self, request: Request) -> Response:
        """200 while new requests are welcome; 503 from the first moment of a drain."""
        health = await self._control.health()
        return _health(request, health, health.ready)

    async def healthz(self, request: Request) -> Response:
        """Both of the above in one."""
        health = await self._control.health()
        return _health(request, health, health.live and health.ready)

    async def metrics(self, request: Request) -> Response:
        """All metrics, in the format that Accept asks for."""
        openmetrics = wants_openmetrics(request.headers.get("accept", ""))
        snapshot = await self._control.metrics_snapshot()
        body = await asyncio.to_thread(render, snapshot, openmetrics)
        kind = OPENMETRICS_TYPE if openmetrics else TEXT_TYPE
        return Response(body, headers={"content-type": kind})

    async def routes(self, _: Request) -> Response:
        """Every route with its match, chain and upstream."""
        return _json({"routes": list(await self._control.routes())})

    async def route(self, request: Request) -> Response:
        """One route by its name."""
        name = request.path_params["name"]
        for route in await self._control.routes():
            if route.name == name:
                return _json(route)
        return problem(404, "not_found", "There is no such route", f"No route is named {name}.")

    async def upstreams(self, _: Request) -> Response:
        """Every upstream with its targets and connections."""
        return _json({"upstreams": list(await self._control.upstreams())})

    async def mirrors(self, _: Request) -> Response:
        """The last differences between a mirror's answers and the clients', by route."""
        return _json({"mirrors": list(await self._control.mirrors())})

    async def store(self, _: Request) -> Response:
        """The store: its state, since when, the last error, and what it keeps."""
        return _json({"store": list(await self._control.store())})

    async def order_breaker(self, request: Request) -> Response:
        """Open or close a circuit breaker by hand, or leave it to itself: `{"state": "open"}`."""
        upstream = request.path_params["name"]
        try:
            asked = msgspec.json.decode(await request.body(), type=_Order)
        except msgspec.DecodeError as error:
            return problem(
                400, "invalid_body", "The body is not an order to a circuit breaker",
                f'{error}. Send {{"state": "open"}}, closed or auto, perhaps with a route.',
            )  # fmt: skip
        order = BreakerOrder(upstream, asked.state, asked.route)
        if not await self._control.order_breaker(order):
            which = f"the route {asked.route}" if asked.route else f"the upstream {upstream}"
            detail = f"There is none of {which}; GET /api/v1/upstreams shows those there are."
            return problem(404, "not_found", "There is no such circuit breaker", detail)
        return _json(order)

    async def flags(self, _: Request) -> Response:
        """Every flag."""
        return _json({"flags": list(await self._control.flags())})

    async def flag(self, request: Request) -> Response:
        """One flag: what it is (GET), to be another (PUT), as configured again (DELETE)."""
        name = request.path_params["name"]
        if request.method == "PUT":
            return await self._change(request, name)
        if request.method == "DELETE":
            return await self._order(request, FlagOrder(name, reset=True))
        return await self._flag(name)

    async def _flag(self, name: str) -> Response:
        for each in await self._control.flags():
            if each["name"] == name:
                return _json(each)
        return problem(404, "not_found", "There is no such flag", "GET /api/v1/flags lists them.")

    async def _change(self, request: Request, name: str) -> Response:
        try:
            asked = msgspec.json.decode(await request.body(), type=_FlagValue)
        except msgspec.DecodeError as error:
            return _no_flag_value(str(error))
        return await self._order(request, FlagOrder(name, asked.value))

    async def _order(self, request: Request, order: FlagOrder) -> Response:
        outcome = await self._control.order_flag(order)
        if outcome.state == "invalid":
            return _no_flag_value(outcome.detail)
        if outcome.state == "unavailable":
            return problem(
                503, "store_unavailable", "The store can't be reached",
                f"Nothing was changed: {outcome.detail}.", headers={"Retry-After": "1"},
            )  # fmt: skip
        if outcome.state == "done":
            who = request.client.host if request.client is not None else ""
            audit.info(
                "flag %s changed from %s to %s", order.name, outcome.before, outcome.after,
                extra={"flag": order.name, "before": outcome.before, "after": outcome.after,
                       "reset": order.reset, "client": who},
            )  # fmt: skip
        return await self._flag(order.name)

    async def config(self, _: Request) -> Response:
        """What is served, since when, and how the last reload ended."""
        return _json(await self._control.config())

    async def reload(self, _: Request) -> Response:
        """Load the configuration again: 200, or 422 with every error, and the old one stays."""
        result = await self._control.reload()
        if result.ok:
            return _json(result)
        return problem(
            422,
            "invalid_config",
            "The configuration is not usable",
            f"Generation {result.generation} stays in service.",
            **msgspec.to_builtins(result),
        )

    async def purge(self, request: Request) -> Response:
        """Forget cached answers: `{"route": ...}`, or `prefix`, `tag`, or `"all": true`.

        503 if the gateways that share the store could not all be told; what could be forgotten is.
        """
        try:
            what = msgspec.json.decode(await request.body(), type=Purge)
        except msgspec.DecodeError:
            what = Purge()
        if not what.usable:
            return problem(
                400, "invalid_parameter", "The body does not say what to forget",
                'Give one of {"route": "name"}, {"prefix": "/path"}, {"tag": "name"} and '
                '{"all": true}, as JSON.',
            )  # fmt: skip
        result = await self._control.purge(what)
        if result.shared == "failed":
            return problem(
                503, "store_unavailable", "The store can't be reached",
                "This gateway has forgotten the answers; the store and the other gateways may not.",
                headers={"Retry-After": "1"}, removed=result.removed,
            )  # fmt: skip
        return _json(result)

    async def explain(self, request: Request) -> Response:
        """What would happen to a request, by the query parameters `method` and `url`."""
        query = request.query_params
        method = query.get("method", "GET").upper()
        url = query.get("url", "")
        if not url or not (url.startswith("/") or "://" in url):
            return problem(
                400, "invalid_parameter", "The parameter url is missing or not a URL",
                "Give url=/path or url=http://host/path, percent-encoded.",
            )  # fmt: skip
        if method not in _METHODS and not method.isalpha():
            return problem(400, "invalid_parameter", "The parameter method is not a method")
        return _json(await self._control.explain(method, url))


def _no_flag_value(detail: str) -> Response:
    return problem(
        400, "invalid_body", "The body is not the value of a flag",
        f'{detail}. Send {{"value": "on"}}, off, "10%", or a mapping with percent, consumers, '
        "tags, header.",
    )  # fmt: skip


def _json(data: Any) -> Response:
    return Response(msgspec.json.encode(data), media_type="application/json")


def _health(request: Request, health: Health, good: bool) -> Response:
    status = 200 if good else 503
    if "verbose" not in request.query_params:
        return PlainTextResponse("ok\n" if good else "not ok\n", status)
    lines = [f"[{'+' if check.ok else '-'}]{check.name} {_state(check.ok, check.detail)}"
             for check in health.checks]  # fmt: skip
    lines.append(f"live: {health.live}, ready: {health.ready}".lower())
    return PlainTextResponse("\n".join([*lines, "ok" if good else "not ok"]) + "\n", status)


def _state(good: bool, detail: str) -> str:
    state = "ok" if good else "failed"
    return f"{state}: {detail}" if detail else state
