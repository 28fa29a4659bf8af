"""The demo upstream: a small "orders" system API, described by orders.openapi.yaml beside it.

It stands for a service behind the gateway, so it knows nothing of the gateway. Orders are kept in
memory and gone when it stops. Start it alone with `python config/demo/orders.py --port 8081`.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

SLOWEST_S = 30.0
LONGEST_STREAM = 100
OPTIONAL = ("event_id", "channel", "currency", "priority")
Order = dict[str, Any]


def first_orders() -> dict[str, Order]:
    """What a fresh start knows."""
    orders: list[Order] = [
        {"id": "1001", "status": "open", "total": 42.5, "lines": [{"sku": "A-1", "quantity": 2}]},
        {
            "id": "1002",
            "status": "shipped",
            "total": 9.99,
            "lines": [{"sku": "B-7", "quantity": 1}],
        },
    ]
    return {order["id"]: order for order in orders}


def problem(status: int, detail: str) -> JSONResponse:
    """A refusal as RFC 9457 has it."""
    body = {"status": status, "detail": detail}
    return JSONResponse(body, status, media_type="application/problem+json")


async def health(_: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def list_orders(request: Request) -> Response:
    wanted = request.query_params.get("status")
    orders = request.app.state.orders.values()
    items = [order for order in orders if wanted in (None, order["status"])]
    return JSONResponse({"items": items, "count": len(items)})


async def read_order(request: Request) -> Response:
    order = request.app.state.orders.get(request.path_params["order_id"])
    return JSONResponse(order) if order is not None else problem(404, "No such order")


async def create_order(request: Request) -> Response:
    try:
        given = json.loads(await request.body())
        lines = given["lines"]
        total = float(sum(line["quantity"] * line.get("price", 1) for line in lines))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return problem(422, f"Not an order: {error}")
    order_id = str(next(request.app.state.ids))
    order = {"id": order_id, "status": "open", "total": total, "lines": lines}
    order |= {name: given[name] for name in OPTIONAL if name in given}
    request.app.state.orders[order_id] = order
    return JSONResponse(order, 201, headers={"Location": f"/orders/{order_id}"})


async def alert(request: Request) -> Response:
    """What a chat or a pager would be told: printed."""
    try:
        told = json.loads(await request.body())["text"]
    except (ValueError, KeyError, TypeError) as error:
        return problem(422, f"Not an alert: {error}")
    print(f"ALERT {told}", flush=True)
    return Response(status_code=204)


async def slow(request: Request) -> Response:
    """Answer after ?seconds=, to see what a timeout does."""
    try:
        seconds = min(float(request.query_params.get("seconds", "2")), SLOWEST_S)
    except ValueError:
        return problem(422, "seconds must be a number")
    await asyncio.sleep(max(seconds, 0))
    return JSONResponse({"slept": seconds})


async def events(request: Request) -> Response:
    """Server-sent events: ?count= of them, ?every= seconds apart."""
    try:
        count = min(int(request.query_params.get("count", "5")), LONGEST_STREAM)
        every = min(float(request.query_params.get("every", "1")), SLOWEST_S)
    except ValueError:
        return problem(422, "count and every must be numbers")

    async def stream() -> AsyncIterator[str]:
        for number in range(1, count + 1):
            yield f"id: {number}\nevent: order\ndata: {json.dumps({'number': number})}\n\n"
            if number < count:
                await asyncio.sleep(every)

    headers = {"Cache-Control": "no-store"}
    return StreamingResponse(stream(), media_type="text/event-stream", headers=headers)


async def live(websocket: WebSocket) -> None:
    """Echo each text message with its number."""
    await websocket.accept()
    try:
        for number in itertools.count(1):
            text = await websocket.receive_text()
            await websocket.send_json({"number": number, "echo": text})
    except WebSocketDisconnect:
        pass


def make_app() -> Starlette:
    """A service with its own orders."""
    app = Starlette(
        routes=[
            Route("/healthz", health),
            Route("/orders", list_orders, methods=["GET"]),
            Route("/orders", create_order, methods=["POST"]),
            Route("/orders/events", events),
            Route("/orders/{order_id}", read_order),
            Route("/alerts", alert, methods=["POST"]),
            Route("/slow", slow),
            WebSocketRoute("/live", live),
        ]
    )
    app.state.orders = first_orders()
    app.state.ids = itertools.count(2001)
    return app


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description="The demo upstream of Lockgate: orders.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8081)
    options = parser.parse_args()
    config = uvicorn.Config(
        make_app(),
        host=options.host,
        port=options.port,
        log_level="warning",
        ws="websockets-sansio",
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main()
