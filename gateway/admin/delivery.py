"""The endpoints for asynchronous routes: each is one operation of `gateway/delivery/operations.py`.

What an operation takes comes from the path, the query, and the JSON object in the body of a POST;
an answer is what the operation gives, as JSON.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.admin.control import Control, DeliveryAnswer, DeliveryCall
from gateway.admin.problems import problem

_BASE: Final = "/api/v1/delivery"
_TABLE: Final = (
    # method, path below the base, operation
    ("GET", "/queues", "queues"),
    ("GET", "/letters", "letters.list"),
    ("POST", "/letters/replay", "letters.replay"),
    ("POST", "/letters/purge", "letters.purge"),
    ("GET", "/letters/{event}", "letters.show"),
    ("GET", "/schedules", "schedules"),
    ("GET", "/streams", "streams"),
    ("GET", "/trace/{correlation_id}", "trace"),
    ("GET", "/events/{event_id}", "event"),
    ("GET", "/audit", "audit"),
)
# status, code and title of what was not done
_REFUSALS: Final = {
    "unused": (404, "no_delivery", "No route is asynchronous"),
    "unknown": (404, "not_found", "There is no such operation"),
    "invalid": (400, "invalid_parameter", "A parameter can't be used"),
    "missing": (404, "not_found", "It is not there"),
    "conflict": (409, "conflict", "It can't be done now"),
    "unavailable": (503, "store_unavailable", "The store can't be reached"),
}


def delivery_routes(control: Control) -> list[Route]:
    """The endpoints, bound to the data path they ask."""
    return [
        Route(_BASE + path, _endpoint(control, name), methods=[method])
        for method, path, name in _TABLE
    ]


def _endpoint(control: Control, name: str) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        params: dict[str, Any] = dict(request.query_params)
        by = ""
        if request.method == "POST":
            try:
                params |= msgspec.json.decode(await request.body() or b"{}", type=dict[str, Any])
            except (msgspec.DecodeError, RecursionError) as error:
                return problem(400, "invalid_body", "The body is no JSON object", f"{error}.")
            by = _who(request, params.pop("by", ""))
        params |= request.path_params
        return _response(await control.delivery(DeliveryCall(name, params, by)))

    return endpoint


def _who(request: Request, named: Any) -> str:
    """Who gave an order: what they call themselves, and where they came from."""
    place = request.client.host if request.client is not None else "local"
    return f"{str(named)[:100]} ({place})" if named else place


def _response(answer: DeliveryAnswer) -> Response:
    if answer.state == "done":
        return Response(msgspec.json.encode(answer.data), media_type="application/json")
    status, code, title = _REFUSALS[answer.state]
    headers = {"Retry-After": "1"} if status == 503 else None
    return problem(status, code, title, answer.detail, headers)
