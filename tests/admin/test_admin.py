"""The admin application over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gateway.admin.app import create_app
from gateway.admin.control import (
    BreakerOrder,
    Check,
    ConfigInfo,
    ControlUnavailable,
    DeliveryAnswer,
    DeliveryCall,
    Explanation,
    FlagOrder,
    FlagOutcome,
    Health,
    IssueInfo,
    PolicyInfo,
    Purge,
    PurgeInfo,
    ReloadInfo,
    RouteInfo,
    WorkerInfo,
)
from gateway.clock import ManualClock
from gateway.observability.metrics import Metrics
from gateway.observability.snapshot import Snapshot

ROUTE = RouteInfo(
    name="orders.read",
    match={"path": "/v1/orders/{order_id}", "methods": ["GET"]},
    upstream="orders",
    chain=[PolicyInfo("correlation", "admission", "guard")],
)
ISSUE = IssueInfo("gateway.yaml", 3, 5, "routes[0].<script>", "unknown key", "did you mean cors?")
TOKEN = "a-very-secret-token"


class FakeControl:
    """A data path that says what the test wants."""

    def __init__(self) -> None:
        self.state = Health(True, True, [Check("listener", True), Check("workers", True, "2 of 2")])
        self.result = ReloadInfo(ok=True, generation=2, at=1_700_000_000.0, fingerprint="ab" * 32)
        self.reloads = 0
        self.explained: list[tuple[str, str]] = []
        self.ordered: list[BreakerOrder] = []
        self.unavailable = False
        self.purged: list[Purge] = []
        self.shared = "told"
        self.flag: Any = "off"
        self.called: list[DeliveryCall] = []
        self.answer = DeliveryAnswer("unused")

    async def health(self) -> Health:
        return self.state

    async def mirrors(self) -> Sequence[dict[str, Any]]:
        return [{"route": "one", "upstream": "two", "samples": []}]

    async def flags(self) -> Sequence[dict[str, Any]]:
        return [{"name": "new", "value": self.flag}]

    async def order_flag(self, order: FlagOrder) -> FlagOutcome:
        if order.name != "new":
            return FlagOutcome("unknown")
        if order.value in ("what", "away"):
            return FlagOutcome("invalid" if order.value == "what" else "unavailable", "no such")
        before, self.flag = self.flag, "off" if order.reset else order.value
        return FlagOutcome("done", "", before, self.flag)

    async def delivery(self, call: DeliveryCall) -> DeliveryAnswer:
        self.called.append(call)
        return self.answer

    async def store(self) -> Sequence[dict[str, Any]]:
        return [{"state": "down", "last_error": "refused"}]

    async def routes(self) -> Sequence[RouteInfo]:
        if self.unavailable:
            raise ControlUnavailable("worker 1 is restarting")
        return [ROUTE, RouteInfo("health", {"path": "/h"}, respond={"status": 200})]

    async def upstreams(self) -> Sequence[dict[str, Any]]:
        return [{"name": "orders", "targets": [{"url": "http://10.0.0.1:80", "idle": 2}]}]

    async def config(self) -> ConfigInfo:
        return ConfigInfo(
            generation=1,
            fingerprint="cd" * 32,
            loaded_at=1_700_000_000.0,
            files=["gateway.yaml"],
            last_reload=self.result if self.reloads else None,
            workers=[WorkerInfo(100, 1, True)],
        )

    async def reload(self) -> ReloadInfo:
        self.reloads += 1
        return self.result

    async def purge(self, what: Purge) -> PurgeInfo:
        if self.unavailable:
            raise ControlUnavailable("worker 1 may still have what was purged")
        self.purged.append(what)
        return PurgeInfo(3, self.shared)

    async def order_breaker(self, order: BreakerOrder) -> bool:
        self.ordered.append(order)
        return order.upstream == "orders"

    async def explain(self, method: str, url: str) -> Explanation:
        self.explained.append((method, url))
        return Explanation(method, url, path="/v1/orders/1", route=ROUTE, params={"order_id": "1"})

    async def metrics_snapshot(self) -> Snapshot:
        metrics = Metrics(ManualClock(), "1.0")
        metrics.route("orders.read").in_flight += 1
        return metrics.snapshot()


@asynccontextmanager
async def admin(control: FakeControl, token: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """The application behind a real server on a free port, and a client for it."""
    app = create_app(control, token=token, version="1.2.3")
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    )
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        await task


def is_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["code"] == code
    assert body["type"] == f"urn:lockgate:problem:{code}"
    return body


async def test_health_endpoints_say_ok() -> None:
    """A live and ready gateway answers 200 with a short text, and never from a cache."""
    async with admin(FakeControl()) as client:
        for path in ("/livez", "/readyz", "/healthz"):
            response = await client.get(path)
            assert (response.status_code, response.text) == (200, "ok\n")
            assert response.headers["cache-control"] == "no-store"
        head = await client.head("/readyz")
        assert (head.status_code, head.content) == (200, b"")


async def test_a_draining_gateway_is_live_but_not_ready() -> None:
    """Readiness goes and liveness stays, so that nobody restarts what is draining."""
    control = FakeControl()
    control.state = Health(True, False, [Check("listener", False, "draining")])
    async with admin(control) as client:
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/readyz")).status_code == 503
        response = await client.get("/healthz?verbose")
        assert response.status_code == 503
        assert "[-]listener failed: draining" in response.text
        assert "live: true, ready: false" in response.text


async def test_a_broken_gateway_is_not_live() -> None:
    """Only a restart helps, and /livez says so."""
    control = FakeControl()
    control.state = Health(False, False)
    async with admin(control) as client:
        assert (await client.get("/livez")).status_code == 503


async def test_metrics_in_both_formats() -> None:
    """Accept decides between Prometheus text and OpenMetrics; both parse."""
    async with admin(FakeControl()) as client:
        text = await client.get("/metrics")
        assert text.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert any(each.name == "gateway_requests_in_flight" for each in parse_text(text.text))
        accept = {"accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}
        openmetrics = await client.get("/metrics", headers=accept)
        kind = "application/openmetrics-text; version=1.0.0; charset=utf-8"
        assert openmetrics.headers["content-type"] == kind
        names = {each.name for each in parse_openmetrics(openmetrics.text)}
        assert "gateway_requests_in_flight" in names


async def test_routes_and_one_route() -> None:
    """The list has every route with its chain; one is found by name, an unknown one is a 404."""
    async with admin(FakeControl()) as client:
        body = (await client.get("/api/v1/routes")).json()
        assert [route["name"] for route in body["routes"]] == ["orders.read", "health"]
        route = (await client.get("/api/v1/routes/orders.read")).json()
        assert route["chain"] == [{"name": "correlation", "stage": "admission", "shape": "guard"}]
        assert route["upstream"] == "orders"
        problem = is_problem(await client.get("/api/v1/routes/nope"), 404, "not_found")
        assert "nope" in problem["detail"]


async def test_the_store() -> None:
    """The state of the store, as each process sees it."""
    async with admin(FakeControl()) as client:
        assert (await client.get("/api/v1/mirrors")).json()["mirrors"][0]["route"] == "one"
        assert (await client.get("/api/v1/store")).json()["store"][0]["state"] == "down"


async def test_upstreams_and_config() -> None:
    """Both are given as the data path reports them."""
    async with admin(FakeControl()) as client:
        upstreams = (await client.get("/api/v1/upstreams")).json()["upstreams"]
        assert upstreams[0]["targets"][0]["idle"] == 2
        config = (await client.get("/api/v1/config")).json()
        assert config["generation"] == 1
        assert config["files"] == ["gateway.yaml"]
        assert config["workers"] == [{"pid": 100, "generation": 1, "ready": True}]
        assert "last_reload" not in config


async def test_a_good_reload_answers_with_the_new_generation() -> None:
    """POST reloads; GET does not."""
    control = FakeControl()
    async with admin(control) as client:
        response = await client.post("/api/v1/reload")
        assert response.status_code == 200
        assert response.json()["generation"] == 2
        refused = await client.get("/api/v1/reload")
        is_problem(refused, 405, "method_not_allowed")
        assert refused.headers["allow"] == "POST"
    assert control.reloads == 1


async def test_a_refused_reload_lists_every_error() -> None:
    """422 with the errors where they stand, and the generation that goes on serving."""
    control = FakeControl()
    control.result = ReloadInfo(False, 1, 1_700_000_000.0, errors=[ISSUE, ISSUE])
    async with admin(control) as client:
        problem = is_problem(await client.post("/api/v1/reload"), 422, "invalid_config")
        assert len(problem["errors"]) == 2
        assert problem["errors"][0]["line"] == 3
        assert problem["generation"] == 1
        page = await client.get("/")
        assert "The last reload was refused" in page.text
        assert "<script>" not in page.text
        assert "&lt;script&gt;" in page.text


async def test_explain() -> None:
    """Method and URL reach the data path as given; a missing or odd one is the caller's error."""
    control = FakeControl()
    async with admin(control) as client:
        params = {"method": "get", "url": "http://api.internal/v1/orders/1?a=%2F"}
        body = (await client.get("/api/v1/explain", params=params)).json()
        assert body["route"]["name"] == "orders.read"
        assert body["params"] == {"order_id": "1"}
        for bad in ({}, {"url": "nonsense"}, {"url": "/", "method": "G E T"}):
            response = await client.get("/api/v1/explain", params=bad)
            is_problem(response, 400, "invalid_parameter")
    assert control.explained == [("GET", "http://api.internal/v1/orders/1?a=%2F")]


async def test_a_missing_worker_is_a_503() -> None:
    """What can't be answered now says so, and that trying again may help."""
    control = FakeControl()
    control.unavailable = True
    async with admin(control) as client:
        response = await client.get("/api/v1/routes")
        problem = is_problem(response, 503, "unavailable")
        assert problem["detail"] == "worker 1 is restarting"
        assert response.headers["retry-after"] == "1"


async def test_unknown_paths_are_problems() -> None:
    """A wrong path, a trailing slash, and a wrong method are told apart."""
    async with admin(FakeControl()) as client:
        is_problem(await client.get("/nope"), 404, "not_found")
        is_problem(await client.get("/api/v1/routes/"), 404, "not_found")
        is_problem(await client.delete("/api/v1/config"), 405, "method_not_allowed")


async def test_the_index_page_is_plain_and_locked_down() -> None:
    """It lists the endpoints, loads nothing from elsewhere, and can't be framed."""
    async with admin(FakeControl()) as client:
        response = await client.get("/")
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        assert "Lockgate 1.2.3" in response.text
        assert "/metrics" in response.text
        assert "<script" not in response.text
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert response.headers["x-frame-options"] == "DENY"
        style = await client.get("/style.css")
        assert style.headers["content-type"].startswith("text/css")


async def test_without_the_token_only_health_and_metrics_answer() -> None:
    """Everything else, unknown paths included, is a 401 with a challenge."""
    control = FakeControl()
    tokens = ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", TOKEN]
    async with admin(control, TOKEN) as client:
        for authorization in [None, *tokens, f"Bearer {TOKEN[:-1]}", f"Bearer, {TOKEN}"]:
            headers = {} if authorization is None else {"authorization": authorization}
            for path in ("/", "/api/v1/config", "/nope", "/livez/", "/metrics/"):
                response = await client.get(path, headers=headers)
                is_problem(response, 401, "unauthorized")
                challenge = response.headers["www-authenticate"]
                assert challenge.startswith('Bearer realm="lockgate-admin"')
                assert ("error=" in challenge) is (authorization is not None)
                assert response.headers["cache-control"] == "no-store"
                assert TOKEN not in response.text
            is_problem(await client.post("/api/v1/reload", headers=headers), 401, "unauthorized")
            for path in ("/livez", "/readyz", "/healthz", "/metrics"):
                assert (await client.get(path, headers=headers)).status_code == 200
    assert control.reloads == 0


async def test_with_the_token_everything_answers() -> None:
    """The scheme's case does not matter; two Authorization fields are one too many."""
    async with admin(FakeControl(), TOKEN) as client:
        for scheme in ("Bearer", "bearer"):
            headers = {"authorization": f"{scheme} {TOKEN}"}
            assert (await client.get("/api/v1/config", headers=headers)).status_code == 200
            assert (await client.post("/api/v1/reload", headers=headers)).status_code == 200
        twice = [("authorization", f"Bearer {TOKEN}"), ("authorization", "Bearer other")]
        is_problem(await client.get("/api/v1/config", headers=twice), 401, "unauthorized")


async def test_a_rebound_name_is_refused() -> None:
    """Without a token, only addresses and localhost are served, whatever name points here."""
    async with admin(FakeControl()) as client:
        for host in ("localhost", "LOCALHOST:9901", "127.0.0.1:9901", "[::1]:9901", "10.1.2.3"):
            response = await client.get("/api/v1/routes", headers={"host": host})
            assert response.status_code == 200, host
        for host in ("evil.example:9901", "localhost.evil.example", "127.0.0.1.evil.example"):
            response = await client.get("/api/v1/routes", headers={"host": host})
            is_problem(response, 421, "unknown_host")


async def test_with_a_token_any_name_is_served() -> None:
    """Service names reach a listener beyond loopback, and the token protects it."""
    async with admin(FakeControl(), TOKEN) as client:
        response = await client.get("/readyz", headers={"host": "lockgate.prod.svc:9901"})
        assert response.status_code == 200


async def test_a_page_of_another_origin_cannot_reload() -> None:
    """What a browser sends for a foreign page changes nothing."""
    control = FakeControl()
    foreign = [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
    ]
    async with admin(control) as client:
        for headers in foreign:
            is_problem(await client.post("/api/v1/reload", headers=headers), 403, "cross_site")
        own = {"origin": str(client.base_url).rstrip("/"), "sec-fetch-site": "same-origin"}
        assert (await client.post("/api/v1/reload", headers=own)).status_code == 200
    assert control.reloads == 1


async def test_orders_to_flags() -> None:
    """Read, changed, reset; what is unknown, wrong, or can't be kept changes nothing."""
    control = FakeControl()
    async with admin(control) as client:
        path = "/api/v1/flags/new"
        put = await client.put(path, json={"value": {"percent": "10%"}})
        wrong = await client.put(path, json={"value": "what"})
        strange = await client.put(path, json={"valu": "on"})
        away = await client.put(path, json={"value": "away"})
        kept = await client.get(path)
        reset = await client.delete(path)
        unknown = await client.put("/api/v1/flags/old", json={"value": "on"})
        posted = await client.post(path)

    assert put.json() == kept.json() == {"name": "new", "value": {"percent": "10%"}}
    assert reset.json()["value"] == "off"
    codes = [each.status_code for each in (wrong, strange, away, unknown, posted)]
    assert codes == [400, 400, 503, 404, 405]


async def test_orders_to_circuit_breakers() -> None:
    """Open, closed, auto; for an upstream or a route's own; what is unknown or wrong is refused."""
    control = FakeControl()
    async with admin(control) as client:
        path = "/api/v1/upstreams/orders/circuit_breaker"
        opened = await client.post(path, json={"state": "open"})
        auto = await client.post(path, json={"state": "auto", "route": "orders.read"})
        unknown = await client.post(path.replace("orders", "crm"), json={"state": "closed"})
        wrong = await client.post(path, json={"state": "ajar"})
        strange = await client.post(path, json={"state": "open", "rout": "x"})
        read = await client.get(path)

    assert opened.json() == {"upstream": "orders", "state": "open", "route": ""}
    assert auto.json()["route"] == "orders.read"
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    assert (wrong.status_code, strange.status_code, read.status_code) == (400, 400, 405)
    assert [order.state for order in control.ordered] == ["open", "auto", "closed"]


async def test_purge() -> None:
    """What is to be forgotten reaches the data path, and how that went comes back."""
    control = FakeControl()
    async with admin(control) as client:
        for what in ({"route": "a"}, {"prefix": "/v1/"}, {"tag": "t"}, {"all": True}):
            got = await client.post("/api/v1/cache/purge", json=what)
            assert (got.status_code, got.json()) == (200, {"removed": 3, "shared": "told"})
    assert control.purged == [
        Purge(route="a"),
        Purge(prefix="/v1/"),
        Purge(tag="t"),
        Purge(all=True),
    ]


async def test_purge_of_nothing_in_particular() -> None:
    """A body that is no JSON, names nothing, two things or unknown ones is refused."""
    control = FakeControl()
    async with admin(control) as client:
        for body in (b"", b"{}", b"[]", b"{", b'{"route": ""}', b'{"route": "a", "tag": "b"}',
                     b'{"routes": "a"}', b'{"all": false}', b'{"tag": 1}'):  # fmt: skip
            got = await client.post("/api/v1/cache/purge", content=body)
            is_problem(got, 400, "invalid_parameter")
        is_problem(await client.get("/api/v1/cache/purge"), 405, "method_not_allowed")
    assert control.purged == []


async def test_purge_that_not_everybody_heard_of() -> None:
    """503 if a worker or the store could not be told."""
    control = FakeControl()
    async with admin(control, TOKEN) as client:
        everything = {"all": True}
        refused = await client.post("/api/v1/cache/purge", json=everything)
        is_problem(refused, 401, "unauthorized")
        client.headers["authorization"] = f"Bearer {TOKEN}"
        control.shared = "failed"
        got = await client.post("/api/v1/cache/purge", json=everything)
        assert is_problem(got, 503, "store_unavailable")["removed"] == 3
        control.unavailable = True
        got = await client.post("/api/v1/cache/purge", json=everything)
        is_problem(got, 503, "unavailable")


async def test_questions_about_asynchronous_routes() -> None:
    """Query, path and body become parameters; what can't be done is said with a status."""
    control = FakeControl()
    async with admin(control) as client:
        path = "/api/v1/delivery/queues"
        assert (await client.get(path)).json()["code"] == "no_delivery"
        control.answer = DeliveryAnswer("done", {"queues": []})
        assert (await client.get(f"{path}?route=a")).json() == {"queues": []}
        codes = []
        for state in ("unknown", "invalid", "missing", "conflict", "unavailable"):
            control.answer = DeliveryAnswer(state, detail="why")
            refused = await client.get(path)
            assert refused.json()["detail"] == "why"
            codes.append(refused.status_code)
        for body in (b"[1]", b"{", b'{"a": ' + b"[" * 9000 + b"]" * 9000 + b"}"):
            refused = await client.post("/api/v1/delivery/letters/replay", content=body)
            assert refused.json()["code"] == "invalid_body"
        await client.post("/api/v1/delivery/letters/purge", json={"by": "ann", "all": True})
        await client.get("/api/v1/delivery/letters/e-1?body=true")
    assert control.called[-2] == DeliveryCall("letters.purge", {"all": True}, "ann (127.0.0.1)")
    assert control.called[-1] == DeliveryCall("letters.show", {"body": "true", "event": "e-1"})
    assert codes == [404, 400, 404, 409, 503]
    assert control.called[1] == DeliveryCall("queues", {"route": "a"})
