"""Routing and the built-in policies, from the client to the upstream and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import Serve
from tests.support.gateway import RunningGateway, eventually, routes
from tests.support.scripted import ScriptedUpstream, answer, echo, respond

CONFIG = """\
upstreams:
  api: {{targets: ["{url}"]}}
defaults: {{timeout: 15s}}
routes:
  - name: items
    match: {{path: "/items/{{id}}", methods: [GET, POST]}}
    upstream: api
    rewrite: {{path: "/v2/{{id}}/x", query: {{add: {{seen: "a b"}}, remove: [secret]}}}}
    headers:
      request: {{set: {{X-Set: one}}, add: {{X-Add: two}}, remove: [X-Gone]}}
      response: {{set: {{X-Served-By: lockgate}}, remove: [Server]}}
  - {{name: named, match: {{path: /named}}, upstream: api, rewrite: {{host: orders.internal}}}}
  - {{name: theirs, match: {{path: /theirs}}, upstream: api, rewrite: {{host: upstream}}}}
  - name: shop
    match: {{path: "/shop/{{rest:path}}"}}
    upstream: api
    cors: {{origins: ["https://app.internal"], credentials: true, expose: [X-Total]}}
  - {{name: any, match: {{path: "/any/{{rest:path}}"}}, upstream: api, body: {{max: 1KiB}}}}
  - {{name: closed, match: {{path: /closed}}, upstream: api, access: {{deny: [127.0.0.0/8]}}}}
  - {{name: lenient, match: {{path: /lenient}}, upstream: api, body: {{max: 1KiB, mode: report}},
     access: {{allow: [10.0.0.0/8], mode: report}}}}
  - {{name: off, match: {{path: /off}}, upstream: api, enabled: false}}
  - {{name: here, match: {{path: /here}}, respond: {{json: {{a: é}}, headers: {{X-A: b}}}}}}
  - {{name: moved, match: {{path: /moved}}, respond: {{status: 301, headers: {{Location: /here}}}}}}
  - {{name: empty, match: {{path: /empty}}, respond: {{status: 204}}}}
"""


def config(upstream: ScriptedUpstream) -> str:
    return CONFIG.format(url=upstream.url)


def fields_of(got: httpx.Response) -> dict[str, list[str]]:
    """The header fields that the upstream was sent."""
    found: dict[str, list[str]] = {}
    for name, value in got.json()["headers"]:
        found.setdefault(name, []).append(value)
    return found


async def test_rewrite_and_headers(serve: Serve) -> None:
    """Path, query and fields are what the route says; an encoded slash stays in its segment."""
    async with ScriptedUpstream(echo) as upstream, serve(config(upstream)) as gateway:
        async with gateway.client() as client:
            got = await client.get(
                "/items/a%2Fb?secret=1&keep=%2f&sec%72et=2",
                headers={"X-Set": "mine", "X-Add": "mine", "X-Gone": "x"},
            )
            seen = fields_of(got)

    assert got.json()["target"] == "/v2/a%2Fb/x?keep=%2f&seen=a%20b"
    assert (seen["x-set"], seen["x-add"]) == (["one"], ["mine", "two"])
    assert "x-gone" not in seen
    assert got.headers["x-served-by"] == "lockgate"


async def test_answer_fields_are_dressed(serve: Serve) -> None:
    """What the upstream says of itself is replaced or removed on the way back."""
    reply = respond(b"", "200 OK", b"Server: secret/1.0", b"X-Served-By: other")
    async with ScriptedUpstream(answer(reply)) as upstream:
        async with serve(config(upstream)) as gateway, gateway.client() as client:
            got = await client.get("/items/1")

    assert got.headers.get_list("x-served-by") == ["lockgate"]
    assert "server" not in got.headers


async def test_host_rules(serve: Serve) -> None:
    """The client's Host, the target's, or the one that the route names."""
    async with ScriptedUpstream(echo) as upstream, serve(config(upstream)) as gateway:
        async with gateway.client(headers={"Host": "shop.example"}) as client:
            hosts = [fields_of(await client.get(path))["host"] for path in
                     ("/any/x", "/named", "/theirs")]  # fmt: skip
        assert hosts == [["shop.example"], ["orders.internal"], [f"127.0.0.1:{upstream.port}"]]


async def test_respond(serve: Serve) -> None:
    """Answers of the gateway's own need no upstream; HEAD gets the head of GET."""
    async with serve(CONFIG.format(url="http://127.0.0.1:1")) as gateway:
        async with gateway.client() as client:
            here = await client.get("/here")
            head = await client.head("/here")
            moved = await client.get("/moved")
            empty = await client.get("/empty")

    assert (here.json(), here.headers["x-a"]) == ({"a": "é"}, "b")
    assert here.headers["content-type"] == "application/json"
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == here.headers["content-length"]
    assert (moved.status_code, moved.headers["location"]) == (301, "/here")
    assert (empty.status_code, empty.content) == (204, b"")
    assert "content-length" not in empty.headers


async def test_refusals_are_problems(serve: Serve) -> None:
    """404, 405 with Allow, 403 and 413: with code and correlation id, and none goes further."""
    async with ScriptedUpstream(echo) as upstream, serve(config(upstream)) as gateway:
        async with gateway.client() as client:
            got = {
                "route_not_found": await client.get("/nothing"),
                "method_not_allowed": await client.delete("/items/1"),
                "access_denied": await client.get("/closed"),
                "body_too_large": await client.post("/any/x", content=b"x" * 1025),
            }
            off = await client.get("/off")
        lines = await gateway.lines(5)
        counted = {
            code: gateway.metric("gateway_requests_total", code=code, status_class="4xx")
            for code in got
        }

    for code, each in got.items():
        assert each.headers["content-type"] == "application/problem+json"
        problem = each.json()
        assert problem["code"] == code
        assert problem["status"] == each.status_code
        assert problem["correlation_id"] == each.headers["x-correlation-id"]
    assert [each.status_code for each in got.values()] == [404, 405, 403, 413]
    assert got["method_not_allowed"].headers["allow"] == "GET, HEAD, POST"
    assert off.json()["code"] == "route_not_found"
    assert upstream.requests == []
    assert [line["code"] for line in lines] == [*got, "route_not_found"]
    assert [line.get("route", "") for line in lines] == ["", "", "closed", "any", ""]
    assert counted == {**dict.fromkeys(got, 1), "route_not_found": 2}


async def test_a_chunked_body_that_is_too_large(serve: Serve) -> None:
    """It is refused as soon as it is, and what the upstream saw of it is cut, not ended."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x" * 512

    async with ScriptedUpstream(echo) as upstream, serve(config(upstream)) as gateway:
        async with gateway.client() as client:
            got = await client.post("/any/x", content=pieces())
        await gateway.quiet()
        line = await gateway.line()

    assert got.json()["code"] == line["code"] == "body_too_large"
    assert b"0\r\n\r\n" not in b"".join(bytes(peer.received) for peer in upstream.peers)


async def test_report_mode(serve: Serve) -> None:
    """What would have been refused passes; log and metrics say so."""
    async with ScriptedUpstream(echo) as upstream, serve(config(upstream)) as gateway:
        async with gateway.client() as client:
            got = await client.post("/lenient", content=b"x" * 2000)
        line = await gateway.line()
        reported = {
            policy: gateway.metric("gateway_policy_reported_total", policy=policy)
            for policy in ("access", "body", "cors")
        }

    assert got.status_code == 200
    assert line["reported"] == ["access:access_denied", "body:body_too_large"]
    assert "code" not in line
    assert reported == {"access": 1, "body": 1, "cors": 0}


async def test_cors(serve: Serve) -> None:
    """Preflights are answered here; answers carry the fields, the upstream's own ones do not."""
    reply = respond(b"", "200 OK", b"Access-Control-Allow-Origin: *", b"Vary: Accept")
    mine = {"Origin": "https://app.internal"}
    other = {"Origin": "https://evil.test"}
    asks = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "x-a"}
    async with ScriptedUpstream(answer(reply)) as upstream:
        async with serve(config(upstream)) as gateway, gateway.client() as client:
            preflight = await client.options("/shop/1", headers=mine | asks)
            refused = await client.options("/shop/1", headers=other | asks)
            assert upstream.requests == []
            plain = await client.get("/shop/1", headers=mine)
            strange = await client.get("/shop/1", headers=other)
            options = await client.options("/shop/1", headers=mine)
            uncovered = await client.options("/here", headers=mine | asks)

    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "https://app.internal"
    assert preflight.headers["access-control-allow-methods"] == "PUT"
    assert preflight.headers["access-control-allow-headers"] == "x-a"
    assert (refused.status_code, refused.json()["code"]) == (403, "origin_denied")
    assert "access-control-allow-origin" not in refused.headers
    assert plain.headers.get_list("access-control-allow-origin") == ["https://app.internal"]
    assert plain.headers["access-control-expose-headers"] == "X-Total"
    assert "Origin" in plain.headers["vary"] and "Accept" in plain.headers["vary"]
    assert "access-control-allow-origin" not in strange.headers
    # OPTIONS that is no preflight is the upstream's to answer.
    assert options.status_code == 200
    assert [request.method for request in upstream.requests] == ["GET", "GET", "OPTIONS"]
    # respond takes every method, but a route without cors says nothing to a preflight.
    assert "access-control-allow-origin" not in uncovered.headers


@pytest.mark.parametrize(
    "path",
    [
        "/any/..%2f..%2fclosed",
        "/any/%2e%2e/%2e%2e/closed/..%5c",
        "/any/..;/closed",
        "/any/%00",
        "/any/%zz",
        "/any/..%5c..%5cclosed",
    ],
)
async def test_ambiguous_paths(serve: Serve, path: str) -> None:
    """A path that somebody behind us could read as another one is refused."""
    async with ScriptedUpstream(echo) as upstream, serve(config(upstream)) as gateway:
        async with gateway.raw() as client:
            got = await client.ask(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode())

    assert got.status in (400, 404), got.body
    assert upstream.requests == []


@pytest.mark.parametrize("path", ["/any/../closed", "//closed", "/any/%2e%2e/closed", "/./closed"])
async def test_dot_segments_are_resolved_before_anything_is_decided(
    serve: Serve, path: str
) -> None:
    """They lead to the route that they mean, or to none; never past its policies."""
    async with ScriptedUpstream(echo) as upstream, serve(config(upstream)) as gateway:
        async with gateway.raw() as client:
            got = await client.ask(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode())

    assert got.status in (400, 403), got.body
    assert upstream.requests == []


PLUGIN = """
from gateway.plugin import (
    Around, ErrorCode, Exchange, Field, Guard, Handler, PolicyConfig, Rejection, Response, Source,
)

TEAPOT = ErrorCode("teapot", 418, Source.CLIENT, transient=False, title="No coffee")


class BrewConfig(PolicyConfig):
    drink: str = Field(default="tea", description="What is served.")


class Brew(Guard):
    name = "brew"
    Config = BrewConfig

    def __init__(self, drink):
        self.drink = drink.encode()

    @classmethod
    def build(cls, config, context):
        return cls(config.drink)

    async def check(self, exchange):
        if exchange.request.headers.get(b"x-drink") == b"coffee":
            return Rejection(TEAPOT, "short and stout", extensions={"drinks": ["tea"]})
        exchange.request.headers.set(b"x-drink", self.drink)
        exchange.reply_headers.append((b"x-brewed", self.drink))
        return None


class NoConfig(PolicyConfig):
    pass


class Shout(Around):
    name = "shout"
    Config = NoConfig

    @classmethod
    def build(cls, config, context):
        return cls()

    async def handle(self, exchange: Exchange, forward: Handler) -> Response:
        if exchange.request.headers.get(b"x-fail"):
            raise ValueError("a plugin's own mistake")
        response = await forward(exchange)
        if response.body is None:
            body = b"".join([piece async for piece in response.stream])
        else:
            body = response.body
        return Response(response.status, [(b"content-type", b"text/plain")], body.upper())
"""


async def test_a_plugin_from_a_file(serve: Serve, tmp_path: Path) -> None:
    """Its guard refuses and speaks on the answer, its around changes the answer, a bug is a 500."""
    (tmp_path / "brew.py").write_text(PLUGIN)
    async with ScriptedUpstream(answer(respond(b"ok"))) as upstream:
        text = "plugins: [brew.py]\n" + routes(
            upstream.url, options="plugins: [{use: brew, with: {drink: mate}}, {use: shout}]"
        )
        async with serve(text) as gateway, gateway.client() as client:
            got = await client.get("/")
            refused = await client.get("/", headers={"X-Drink": "coffee"})
            failed = await client.get("/", headers={"X-Fail": "1"})
            lines = await gateway.lines(3)

    assert (got.text, got.headers["x-brewed"]) == ("OK", "mate")
    assert upstream.requests[0].get("x-drink") == "mate"
    assert (refused.status_code, refused.json()["code"]) == (418, "teapot")
    assert refused.json()["drinks"] == ["tea"]
    assert (failed.status_code, failed.json()["code"]) == (500, "internal_error")
    assert "mistake" not in failed.text
    assert [line.get("code") for line in lines] == [None, "teapot", "internal_error"]


async def test_a_plugin_whose_body_fails(serve: Serve, tmp_path: Path) -> None:
    """An answer that has begun is cut, noted as the gateway's failure, and nothing is left."""
    (tmp_path / "half.py").write_text("""
from gateway.plugin import Around, PolicyConfig, Response


class NoConfig(PolicyConfig):
    pass


async def half():
    yield b"half"
    raise ValueError("lost")


class Half(Around):
    name = "half"
    Config = NoConfig

    @classmethod
    def build(cls, config, context):
        return cls()

    async def handle(self, exchange, forward):
        return Response(200, [], None, half())
""")
    text = "plugins: [half.py]\n" + routes("http://127.0.0.1:1", options="plugins: [{use: half}]")
    async with serve(text) as gateway:
        async with gateway.client() as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get("/")
        await gateway.quiet()
        line = await gateway.line()

    assert line["code"] == "internal_error"


async def test_log_and_metrics_agree_with_what_happened(serve: Serve) -> None:
    """One line and one count for each exchange, with what went in and out."""
    async with ScriptedUpstream(echo) as upstream, serve(config(upstream)) as gateway:
        async with gateway.client(headers={"User-Agent": "test/1"}) as client:
            got = await client.post("/any/x?api_key=secret&a=b", content=b"12345")
            line = await gateway.line()

        await _counted(gateway)
        label = f"127.0.0.1:{upstream.port}"
        assert line.items() >= {
            "method": "POST", "path": "/any/x", "status": 200, "route": "any", "bytes_in": 5,
            "bytes_out": len(got.content), "generation": 1, "http_version": "1.1",
            "host": "127.0.0.1", "client": "127.0.0.1", "user_agent": "test/1", "upstream": "api",
            "target": label, "upstream_status": 200,
            "correlation_id": got.headers["x-correlation-id"],
        }.items()  # fmt: skip
        assert "secret" not in line["query"] and line["query"].endswith("&a=b")
        assert 0 <= line["upstream_ms"] <= line["duration_ms"]
        assert "code" not in line


async def _counted(gateway: RunningGateway) -> None:
    counted = {"route": "any", "method": "POST", "status_class": "2xx", "code": ""}
    await eventually(lambda: gateway.metric("gateway_requests_total", **counted) == 1)
    assert gateway.metric("gateway_requests_total") == 1
    assert gateway.metric("gateway_request_duration_seconds", route="any") == 1
    assert gateway.metric("gateway_upstream_duration_seconds", upstream="api") == 1
    assert gateway.metric("gateway_requests_in_flight") == 0
    assert gateway.metric("gateway_upstream_connects_total") == 1
