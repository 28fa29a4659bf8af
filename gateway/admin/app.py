"""The admin application: its table of endpoints, and how it is put together.

It is served by a listener of its own and knows the data path only as `Control`. What the endpoints
do is in `endpoints.py`; who may call them is decided in `guard.py`.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from gateway import __version__
from gateway.admin.control import Control, ControlUnavailable
from gateway.admin.delivery import delivery_routes
from gateway.admin.endpoints import Endpoints
from gateway.admin.guard import Gatekeeper
from gateway.admin.pages import STYLE, index_page
from gateway.admin.problems import problem


def create_app(
    control: Control, *, token: str | None = None, version: str = __version__
) -> ASGIApp:
    """The ASGI application for the admin listener.

    With a `token`, everything but health and metrics asks for it as a bearer token.
    """
    endpoints = Endpoints(control)

    async def index(_: Request) -> Response:
        config = await control.config()
        health = await control.health()
        return Response(index_page(version, config, health), media_type="text/html")

    async def style(_: Request) -> Response:
        return Response(STYLE, media_type="text/css")

    routes = [
        Route("/", index),
        Route("/style.css", style),
        Route("/livez", endpoints.livez),
        Route("/readyz", endpoints.readyz),
        Route("/healthz", endpoints.healthz),
        Route("/metrics", endpoints.metrics),
        Route("/api/v1/routes", endpoints.routes),
        Route("/api/v1/routes/{name}", endpoints.route),
        Route("/api/v1/upstreams", endpoints.upstreams),
        Route("/api/v1/store", endpoints.store),
        Route("/api/v1/mirrors", endpoints.mirrors),
        Route(
            "/api/v1/upstreams/{name}/circuit_breaker", endpoints.order_breaker, methods=["POST"]
        ),
        Route("/api/v1/flags", endpoints.flags),
        Route("/api/v1/flags/{name}", endpoints.flag, methods=["GET", "PUT", "DELETE"]),
        Route("/api/v1/config", endpoints.config),
        Route("/api/v1/explain", endpoints.explain),
        Route("/api/v1/reload", endpoints.reload, methods=["POST"]),
        Route("/api/v1/cache/purge", endpoints.purge, methods=["POST"]),
        *delivery_routes(control),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            HTTPException: _http_problem,
            ControlUnavailable: _unavailable,
            Exception: _failed,
        },
    )
    app.router.redirect_slashes = False
    return Gatekeeper(app, token)


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        detail = f"GET / lists what is here; {request.url.path} is not."
        return problem(404, "not_found", "There is no such endpoint", detail)
    return problem(
        error.status_code, "method_not_allowed", "The endpoint does not take this method",
        headers=error.headers,
    )  # fmt: skip


async def _unavailable(_: Request, error: Exception) -> Response:
    return problem(
        503, "unavailable", "The gateway can't answer this now", str(error),
        headers={"Retry-After": "1"},
    )  # fmt: skip


async def _failed(_: Request, __: Exception) -> Response:
    # Starlette raises it again behind this answer, so the server logs the traceback.
    return problem(500, "internal_error", "The admin application failed")
