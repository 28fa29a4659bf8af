"""How full the queues are, as operators see it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway.admin.control import DeliveryCall
from tests.e2e.conftest import Serve
from tests.store.servers import VALKEY, serving, stopped
from tests.support.gateway import RunningGateway, eventually
from tests.support.scripted import ScriptedUpstream, answer, respond

REFUSED = respond(b"no", "422 Unprocessable Content")


async def ask(gateway: RunningGateway, name: str, **params: Any) -> Any:
    """The data of an operation that is done."""
    found = await gateway.plane.delivery(DeliveryCall(name, params))
    assert found.state == "done", found
    return found.data


def config(store: str, upstream: str, name: str = "hooks") -> str:
    return f"""\
store: {{url: "{store}", timeout: 500ms}}
upstreams:
  good: {{targets: ["{upstream}"]}}
  away: {{targets: ["http://127.0.0.1:1"]}}
routes:
  - name: {name}
    match: {{path: /{name}, methods: [POST]}}
    delivery: {{to: [good, away], schedule: [1h]}}
"""


async def test_queues(serve_lean: Serve, tmp_path: Path) -> None:
    """What waits, what was given up, and what belongs to a route that is gone."""
    async with (
        serving(VALKEY, tmp_path / "store") as store,
        ScriptedUpstream(answer(REFUSED)) as upstream,
        serve_lean(config(store.unix, upstream.url)) as gateway,
    ):
        async with gateway.client() as client:
            assert (await client.post("/hooks", json={})).status_code == 202
        attempts = "gateway_delivery_attempts_total"
        await eventually(lambda: gateway.metric(attempts, result="dead") == 1)
        await eventually(lambda: gateway.metric(attempts, result="retried") == 1)

        found = await ask(gateway, "queues")
        away, good = found.queues
        assert (away.target, away.depth, away.waiting, away.in_flight) == ("away", 1, 1, 0)
        assert 0 <= away.oldest_age < 60
        assert 3500 < away.due_in <= 3600
        assert (good.depth, good.oldest_age, good.due_in) == (0, None, None)
        assert [(each.route, each.dead_letters) for each in found.routes] == [("hooks", 1)]

        await gateway.reload(config(store.unix, upstream.url, "other"))
        dispatcher = gateway.runtime.known("delivery")[0][1]
        await eventually(lambda: {each.route for each in dispatcher.lanes()} == {"other"})
        found = await ask(gateway, "queues", route="hooks")
        assert [(each.target, each.configured) for each in found.queues] == [("away", False)]
        assert [(each.route, each.configured) for each in found.routes] == [("hooks", False)]
        with stopped(store):
            refused = await gateway.plane.delivery(DeliveryCall("queues"))
        assert refused.state == "unavailable"


async def test_what_can_not_be_asked(serve_lean: Serve, tmp_path: Path) -> None:
    """No asynchronous route, no such operation, a parameter that nobody knows."""
    async with serving(VALKEY, tmp_path / "store") as store:
        text = config(store.unix, "http://127.0.0.1:1")
        async with serve_lean(text.partition("routes:")[0] + "routes: []\n") as gateway:
            assert (await gateway.plane.delivery(DeliveryCall("queues"))).state == "unused"
            await gateway.reload(text)
            assert (await gateway.plane.delivery(DeliveryCall("what"))).state == "unknown"
            wrong = await gateway.plane.delivery(DeliveryCall("queues", {"x": 1}))
            assert wrong.state == "invalid"
