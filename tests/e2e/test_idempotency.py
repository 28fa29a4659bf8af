"""Requests that are sent twice and carried out once, over real gateways and a real store."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import Serve
from tests.run.gateway_process import GatewayProcess, port_of, until
from tests.run.gateway_process import gateway as gateway_process
from tests.store.servers import VALKEY, Server, opened, serving, stopped
from tests.support.gateway import eventually, run_gateway
from tests.support.raw import raw_client
from tests.support.scripted import Peer, ScriptedUpstream, respond

KEY = {"Idempotency-Key": '"k-1"'}


def config(upstream: ScriptedUpstream, store: Server, options: str = "{}") -> str:
    return f"""\
store: {{url: "{store.unix}", timeout: 500ms}}
upstreams:
  api: {{targets: ["{upstream.url}"]}}
routes:
  - name: pay
    match: {{path: "/{{rest:path}}"}}
    upstream: api
    timeout: 5s
    idempotency: {options}
"""


@asynccontextmanager
async def store_in(folder: Path) -> AsyncIterator[Server]:
    async with serving(VALKEY, folder / "store") as server:
        yield server


class Orders:
    """An upstream that carries out what it is asked, counts it, and can be made to wait or fail."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.go = asyncio.Event()
        self.go.set()
        self.asked = asyncio.Event()
        self.status = "201 Created"
        self.body = b""
        self.breaks_off = False

    async def __call__(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            self.asked.set()
            await self.go.wait()
            self.done.append(request.get("idempotency-key") or "")
            body = self.body or b'{"order": %d}' % len(self.done)
            fields = (b"Content-Type: application/json", b"Set-Cookie: a=b")
            whole = respond(body, self.status, *fields)
            if self.breaks_off:
                await peer.send(whole[:-1])
                peer.close()
                return
            await peer.send(whole)


async def test_the_second_gets_the_first_ones_answer(serve: Serve, tmp_path: Path) -> None:
    """Status, fields and body, with a field that says that it is a repetition."""
    orders = Orders()
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(orders) as upstream,
        serve(config(upstream, store)) as gateway,
        gateway.client() as client,
    ):
        first = await client.post("/a", json={"a": 1}, headers=KEY)
        second = await client.post("/a", json={"a": 1}, headers={"Idempotency-Key": "k-1"})

        assert (first.status_code, first.json()) == (201, {"order": 1})
        assert (second.status_code, second.json()) == (201, {"order": 1})
        assert "idempotent-replayed" not in first.headers
        assert second.headers["idempotent-replayed"] == "true"
        assert second.headers["set-cookie"] == "a=b"
        assert first.headers["x-correlation-id"] != second.headers["x-correlation-id"]
        # The key goes on to the upstream as it came.
        assert orders.done == ['"k-1"']
        assert gateway.metric("gateway_idempotency_requests_total", result="replayed") == 1
        await gateway.quiet()


async def test_what_is_not_repeated(serve: Serve, tmp_path: Path) -> None:
    """Another key, no key, another method: each is a request of its own."""
    orders = Orders()
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(orders) as upstream,
        serve(config(upstream, store)) as gateway,
        gateway.client() as client,
    ):
        await client.post("/a", headers={"Idempotency-Key": "1"})
        await client.post("/a", headers={"Idempotency-Key": "2"})
        await client.post("/a")
        await client.post("/a")
        await client.get("/a", headers={"Idempotency-Key": "1"})

        assert len(orders.done) == 5


@pytest.mark.parametrize(("path", "body"), [("/a", b"other"), ("/b", b"body"), ("/a?x=1", b"body")])
async def test_a_key_of_another_request(
    serve: Serve, tmp_path: Path, path: str, body: bytes
) -> None:
    """422, and nothing is carried out."""
    orders = Orders()
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(orders) as upstream,
        serve(config(upstream, store)) as gateway,
        gateway.client() as client,
    ):
        await client.post("/a", content=b"body", headers=KEY)
        got = await client.post(path, content=body, headers=KEY)

        assert got.status_code == 422
        assert got.json()["code"] == "idempotency_key_reused"
        assert len(orders.done) == 1


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "idempotency_key_missing"),
        ({"Idempotency-Key": '"open'}, "idempotency_key_invalid"),
        ({"Idempotency-Key": "x" * 300}, "idempotency_key_invalid"),
    ],
)
async def test_without_a_usable_key(
    serve: Serve, tmp_path: Path, headers: dict[str, str], code: str
) -> None:
    """400 where a key is required, and never a guess."""
    orders = Orders()
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(orders) as upstream,
        serve(config(upstream, store, "{required: true}")) as gateway,
        gateway.client() as client,
    ):
        got = await client.post("/a", headers=headers)

        assert got.status_code == 400
        assert got.json()["code"] == code
        assert not orders.done


async def test_while_the_first_is_under_way(serve: Serve, tmp_path: Path) -> None:
    """409 with Retry-After, and the answer once it is there."""
    orders = Orders()
    orders.go.clear()
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(orders) as upstream,
        serve(config(upstream, store)) as gateway,
        gateway.client() as client,
    ):
        first = asyncio.create_task(client.post("/a", headers=KEY))
        await orders.asked.wait()
        meanwhile = await client.post("/a", headers=KEY)
        orders.go.set()

        assert meanwhile.status_code == 409
        assert meanwhile.json()["code"] == "idempotency_conflict"
        assert meanwhile.headers["retry-after"] == "1"
        assert (await first).status_code == 201
        assert (await client.post("/a", headers=KEY)).json() == {"order": 1}


async def test_waiting_for_the_first(serve: Serve, tmp_path: Path) -> None:
    """So configured, a second request is answered when the first one is."""
    orders = Orders()
    orders.go.clear()
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(orders) as upstream,
        serve(config(upstream, store, "{in_progress: wait}")) as gateway,
        gateway.client() as client,
    ):
        first = asyncio.create_task(client.post("/a", headers=KEY))
        await orders.asked.wait()
        second = asyncio.create_task(client.post("/a", headers=KEY))
        await asyncio.sleep(0.05)
        orders.go.set()

        assert (await first).json() == (await second).json() == {"order": 1}
        assert len(orders.done) == 1


@pytest.mark.parametrize("status", ["500 Oops", "503 Busy", "429 Slow Down", "409 Conflict"])
async def test_what_is_not_final(serve: Serve, tmp_path: Path, status: str) -> None:
    """A failure of the upstream is passed on, and the next request is carried out."""
    orders = Orders()
    orders.status = status
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(orders) as upstream,
        serve(config(upstream, store)) as gateway,
        gateway.client() as client,
    ):
        failed = await client.post("/a", headers=KEY)
        orders.status = "201 Created"
        again = await client.post("/a", headers=KEY)

        assert failed.status_code == int(status[:3])
        assert (again.status_code, again.json()) == (201, {"order": 2})


async def test_an_answer_that_breaks_off_is_not_final(serve: Serve, tmp_path: Path) -> None:
    """Nothing of it was passed on, so the client gets a problem, and may repeat the request."""
    orders = Orders()
    orders.breaks_off = True
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(orders) as upstream,
        serve(config(upstream, store)) as gateway,
        gateway.client() as client,
    ):
        failed = await client.post("/a", headers=KEY)
        orders.breaks_off = False
        again = await client.post("/a", headers=KEY)

        assert (failed.status_code, failed.json()["code"]) == (502, "response_incomplete")
        assert again.json() == {"order": 2}
        await gateway.quiet()


async def test_the_caller_s_mistakes_are_final(serve: Serve, tmp_path: Path) -> None:
    """The same request would meet the same answer, so it is not asked again."""
    orders = Orders()
    orders.status = "404 Not Found"
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(orders) as upstream,
        serve(config(upstream, store)) as gateway,
        gateway.client() as client,
    ):
        answers = [await client.post("/a", headers=KEY) for _ in range(2)]

        assert [each.status_code for each in answers] == [404, 404]
        assert len(orders.done) == 1


async def test_an_answer_that_is_too_large_to_keep(serve: Serve, tmp_path: Path) -> None:
    """It is passed on whole; the repetition is not carried out, and says why it has no answer."""
    orders = Orders()
    orders.body = b"x" * 300_000
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(orders) as upstream,
        serve(config(upstream, store, "{max_answer: 1KiB}")) as gateway,
        gateway.client() as client,
    ):
        first = await client.post("/a", headers=KEY)
        second = await client.post("/a", headers=KEY)

        assert first.content == orders.body
        assert (second.status_code, second.json()["code"]) == (409, "idempotency_conflict")
        assert "too large" in second.json()["detail"]
        assert len(orders.done) == 1
        await gateway.quiet()


async def test_the_client_leaves_and_comes_back(serve: Serve, tmp_path: Path) -> None:
    """The call is finished without it, and its answer waits for it."""
    orders = Orders()
    orders.go.clear()
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(orders) as upstream,
        serve(config(upstream, store, "{in_progress: wait}")) as gateway,
        gateway.client() as client,
    ):
        first = asyncio.create_task(client.post("/a", headers=KEY))
        await orders.asked.wait()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await eventually(lambda: gateway.snapshot.active == 0)
        orders.go.set()
        again = await client.post("/a", headers=KEY)

        assert again.json() == {"order": 1}
        assert len(orders.done) == 1
        await gateway.quiet()


async def test_the_deadline_ends_what_nobody_waits_for(serve: Serve, tmp_path: Path) -> None:
    """A call whose client left is still bounded, and then gives its claim back."""
    orders = Orders()
    orders.go.clear()
    text = "{in_progress: wait}"
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(orders) as upstream,
        serve(config(upstream, store, text).replace("timeout: 5s", "timeout: 300ms")) as gateway,
        gateway.client() as client,
    ):
        first = asyncio.create_task(client.post("/a", headers=KEY))
        await orders.asked.wait()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        again = asyncio.create_task(client.post("/a", headers=KEY))
        await eventually(lambda: len(upstream.peers) == 2)
        orders.go.set()

        assert (await again).status_code == 201
        await gateway.quiet()


@pytest.mark.parametrize(
    ("rule", "same", "other"),
    [
        ("body.event_id", {"event_id": "e", "try": 2}, {"event_id": "f"}),
        ("'hash(body.event_id, headers.X-Tenant)'", {"event_id": "e"}, {"event_id": "f"}),
    ],
)
async def test_keys_of_what_the_request_says(
    serve: Serve, tmp_path: Path, rule: str, same: dict[str, object], other: dict[str, object]
) -> None:
    """The same event is carried out once, however its sender varies the rest."""
    orders = Orders()
    headers = {"X-Tenant": "t"}
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(orders) as upstream,
        serve(config(upstream, store, f"{{key: {rule}}}")) as gateway,
        gateway.client() as client,
    ):
        first = await client.post("/a", json={"event_id": "e"}, headers=headers)
        second = await client.post("/a", json=same, headers=headers)
        third = await client.post("/a", json=other, headers=headers)
        none = await client.post("/a", json={"id": 1}, headers=headers)
        garbage = await client.post("/a", content=b"\xff{", headers=headers)

        assert first.json() == second.json() == {"order": 1}
        assert third.json() == {"order": 2}
        assert [none.status_code, garbage.status_code] == [400, 400]
        assert none.json()["code"] == "idempotency_key_invalid"
        assert orders.done[0].startswith('"')


async def test_without_the_store(serve: Serve, tmp_path: Path) -> None:
    """503 and nothing is carried out while it does not answer; then all is as before."""
    orders = Orders()
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(orders) as upstream,
        serve(config(upstream, store)) as gateway,
        gateway.client() as client,
    ):
        with stopped(store):
            stalled = await client.post("/a", headers=KEY)
        assert (stalled.status_code, stalled.json()["code"]) == (503, "store_unavailable")
        assert stalled.json()["source"] == "store"
        assert "retry-after" in stalled.headers
        assert (await client.post("/a")).status_code == 201, "without a key it is not needed"
        assert len(orders.done) == 1

        async with asyncio.timeout(10):
            while (await client.post("/a", headers=KEY)).status_code != 201:
                await asyncio.sleep(0.05)


async def test_the_store_blinks_when_the_answer_comes(serve: Serve, tmp_path: Path) -> None:
    """The answer is passed on, and stored as soon as the store is back."""
    orders = Orders()
    orders.go.clear()
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(orders) as upstream,
        serve(config(upstream, store, "{in_progress: wait}")) as gateway,
        gateway.client() as client,
    ):
        first = asyncio.create_task(client.post("/a", headers=KEY))
        await orders.asked.wait()
        with stopped(store):
            orders.go.set()
            assert (await first).status_code == 201
        async with asyncio.timeout(10):
            while (again := await client.post("/a", headers=KEY)).status_code != 201:
                await asyncio.sleep(0.05)

        assert again.json() == {"order": 1}
        assert len(orders.done) == 1


async def test_five_hundred_at_once_on_two_gateways(tmp_path: Path) -> None:
    """The upstream is called once; everybody gets that answer, or 409."""
    orders = Orders()
    for name in "ab":
        (tmp_path / name).mkdir()
    async with (
        store_in(tmp_path) as store,
        ScriptedUpstream(orders) as upstream,
        run_gateway(tmp_path / "a", config(upstream, store), instance="a") as one,
        run_gateway(tmp_path / "b", config(upstream, store), instance="b") as two,
        one.client(limits=httpx.Limits(max_connections=250), timeout=50) as first,
        two.client(limits=httpx.Limits(max_connections=250), timeout=50) as second,
    ):
        seen: Counter[tuple[int, str]] = Counter()

        async def ask(client: httpx.AsyncClient) -> None:
            got = await client.post("/a", json={"pay": 1}, headers=KEY)
            seen[got.status_code, got.text if got.status_code == 201 else ""] += 1

        await asyncio.gather(*(ask(each) for each in (first, second) for _ in range(250)))

        assert sum(seen.values()) == 500
        assert set(seen) <= {(201, '{"order": 1}'), (409, "")}
        assert len(orders.done) == 1


HEAD = """version: 1
server: {listen: 127.0.0.1:0, admin: 127.0.0.1:0}
telemetry: {access_log: null}
"""


@asynccontextmanager
async def process(folder: Path, text: str) -> AsyncIterator[GatewayProcess]:
    folder.mkdir()
    (folder / "gateway.yaml").write_text(HEAD + text)
    async with gateway_process(folder / "gateway.yaml") as running:
        yield running


async def test_a_gateway_is_killed_before_the_answer_is_stored(tmp_path: Path) -> None:
    """The next request is carried out again, but only once the dead one's claim has lapsed."""
    orders = Orders()
    orders.go.clear()
    async with store_in(tmp_path) as store, ScriptedUpstream(orders) as upstream:
        text = config(upstream, store, "{in_progress: wait, lease: 3s}")
        async with process(tmp_path / "dead", text) as dead:
            async with httpx.AsyncClient(base_url=dead.url, trust_env=False) as client:
                call = asyncio.create_task(client.post("/a", headers=KEY))
                await orders.asked.wait()
                dead.signal(signal.SIGKILL)
                await asyncio.gather(call, return_exceptions=True)
        (tmp_path / "next").mkdir()
        async with run_gateway(tmp_path / "next", text) as gateway, gateway.client() as client:
            orders.asked.clear()
            again = asyncio.create_task(client.post("/a", headers=KEY))
            await asyncio.sleep(0.1)
            assert not orders.asked.is_set(), "the claim of the dead gateway still stands"
            orders.go.set()

            assert (await again).status_code == 201
            assert (await client.post("/a", headers=KEY)).headers["idempotent-replayed"] == "true"


async def test_a_gateway_is_killed_once_the_answer_is_stored(tmp_path: Path) -> None:
    """The client has not seen all of it; it is given the stored one, and nothing happens twice."""
    orders = Orders()
    # More than the sockets between take, so that the answer is still leaving when the kill comes.
    orders.body = b"x" * 8_000_000
    async with store_in(tmp_path) as store, ScriptedUpstream(orders) as upstream:
        text = config(upstream, store, "{max_answer: 10MiB}")
        async with process(tmp_path / "dead", text) as dead, opened(store.unix, tmp_path) as own:
            async with raw_client(port_of(dead.url)) as client:
                await client.send(b"POST /a HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k-1\r\n"
                                  b"Content-Length: 0\r\n\r\n")  # fmt: skip

                async def is_stored() -> bool:
                    keys = await own.call("KEYS", "lockgate:idempotency:*")
                    return bool(keys) and (await own.call("GETRANGE", keys[0], 0, 0)) == b"d"

                await until(is_stored)
                dead.signal(signal.SIGKILL)
        (tmp_path / "next").mkdir()
        async with run_gateway(tmp_path / "next", text) as gateway, gateway.client() as client2:
            again = await client2.post("/a", headers=KEY)

        assert again.content == orders.body
        assert again.headers["idempotent-replayed"] == "true"
        assert len(orders.done) == 1
