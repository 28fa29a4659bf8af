"""What may be written of an asynchronous route, and in which words the rest is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.admin.describe import explain, route_infos
from gateway.cli.explain import _lines
from gateway.cli.routes import _row
from gateway.errors import ConfigError
from gateway.policies.delivery.config import DeliveryConfig
from gateway.runtime import Runtime, Snapshot
from tests.support.gateway import load

BASE = """\
store: {{url: "redis://127.0.0.1:1"}}
upstreams:
  api: {{targets: ["http://127.0.0.1:1"], retry: {{attempts: 3}}, circuit_breaker: {{}}}}
  crm: {{targets: ["http://127.0.0.1:2"]}}
routes:
  - name: hooks
    match: {{path: "{path}", methods: [POST]}}
{lines}
"""
DELIVERY = "routes[0].delivery"
PLUGIN = """
from pydantic import BaseModel
from gateway.plugin import Guard


class Config(BaseModel):
    pass


class Stop(Guard):
    name = "stop"
    Config = Config

    @classmethod
    def build(cls, config, context):
        return cls()

    def check(self, exchange):
        return None
"""


async def build(
    folder: Path, delivery: str, *lines: str, path: str = "/hooks", upstream: bool = True
) -> Snapshot:
    """The snapshot of a route with these lines, not started."""
    own = [*(["upstream: api"] if upstream else []), f"delivery: {delivery}"]
    text = "".join(f"    {line}\n" for line in own) + "\n".join(lines)
    loaded = load(folder, BASE.format(path=path, lines=text))
    return await Runtime(instance="test").prepare(loaded, 1, start=False)


@pytest.mark.parametrize(
    ("delivery", "message"),
    [
        (
            "{to: [crm, crm]}",
            f"{DELIVERY}: two targets have the same name; give one of them a name",
        ),
        (
            '{to: [{when: "true"}, api]}',
            f'{DELIVERY}.to[1]: another target has the name "api" as well: give one of them a name',
        ),
        (
            "{to: [{name: callback, upstream: api}]}",
            f'{DELIVERY}.to[0]: "callback" is the target that is told at the end',
        ),
        ("{to: [xxx]}", f'{DELIVERY}.to[0].upstream: there is no upstream "xxx"'),
        (
            "{schedule: [1s], backoff: {base: 1s}}",
            f"{DELIVERY}: schedule and backoff can't both be given",
        ),
        ("{schedule: []}", f"{DELIVERY}.schedule: must not be empty"),
        (
            '{to: [{upstream: crm, when: "body.total >"}]}',
            f"{DELIVERY}.to[0].when: not a CEL expression, at 1:13: mismatched input '<EOF>'",
        ),
        (
            '{to: [{upstream: crm, when: "nobody.x"}]}',
            (
                f'{DELIVERY}.to[0].when: unknown name "nobody" at 1:1; '
                "known: request, params, claims, consumer, body"
            ),
        ),
        (
            '{to: [{upstream: crm, body: {a: "=claims.x"}}]}',
            (
                f'{DELIVERY}.to[0].body: unknown name "claims" at 1:1; '
                "known: request, params, consumer, body"
            ),
        ),
        (
            '{to: [{upstream: crm, path: "/x/{nope}"}]}',
            f"{DELIVERY}.to[0].path: {{nope}} is no parameter of /hooks",
        ),
        (
            "{status: /events}",
            f'{DELIVERY}.status: expected a path with {{event_id}}, got "/events"',
        ),
        (
            '{status: "/events/{kind}/{event_id}"}',
            f"{DELIVERY}.status: {{kind}} is no parameter of /hooks, so nobody could be told",
        ),
        (
            "{ordered_by: order_id}",
            (
                f"{DELIVERY}.ordered_by: expected body.field, headers.Name, query.name, "
                'params.name, or hash(...), got "order_id"'
            ),
        ),
        (
            '{callback: {url: "ftp://x"}}',
            f"{DELIVERY}.callback.url: must match ^https?://\\S+$",
        ),
        (
            '{sign: {secret: "whsec_%%"}}',
            f"{DELIVERY}.sign.secret: whsec_ is followed by base64",
        ),
        ("{lease: 10ms}", f"{DELIVERY}.lease: must be at least 1.0"),
        ("{attempts: 0}", f"{DELIVERY}.attempts: must be at least 1"),
        ("{retries: 5}", f'{DELIVERY}.retries: unknown key "retries"'),
    ],
)
async def test_what_is_refused(tmp_path: Path, delivery: str, message: str) -> None:
    """With one line that says where and what, and no other."""
    with pytest.raises(ConfigError) as caught:
        await build(tmp_path, delivery)
    (line,) = str(caught.value).splitlines()
    assert line.split(": ", 1)[1] == message
    assert line.startswith(f"{tmp_path / 'gateway.yaml'}:")


@pytest.mark.parametrize("delivery", ["{}", "{to: [{name: a}]}"])
async def test_it_must_lead_somewhere(tmp_path: Path, delivery: str) -> None:
    """To the route's upstream, or to those of its targets."""
    with pytest.raises(ConfigError, match="names no upstream, and the route has none"):
        await build(tmp_path, delivery, upstream=False)
    await build(tmp_path, "{to: [crm]}", upstream=False)


@pytest.mark.parametrize("delivery", ["{to: [crm, crm]}", "{}"])
async def test_it_does_not_answer_by_itself(tmp_path: Path, delivery: str) -> None:
    """respond is another kind of route."""
    with pytest.raises(ConfigError, match="a route that delivers later can't respond by itself"):
        await build(tmp_path, delivery, "    respond: {status: 200}", upstream=False)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            '{name: mine, match: {path: "/hooks/{id}", methods: [GET]}, upstream: api}',
            (
                "routes[0]: the route that comes with it, hooks.status, can't be told apart from "
                "the route mine: same host (any), path (/hooks/{id}), method, headers"
            ),
        ),
        (
            "{name: hooks.status, match: {path: /x}, upstream: api}",
            (
                'routes[0].name: the route of its delivery would be "hooks.status", '
                "which another one is"
            ),
        ),
    ],
)
async def test_the_status_route_stands_in_the_way(tmp_path: Path, other: str, message: str) -> None:
    """Both are named, at the route that was written; another path or null settles it."""
    with pytest.raises(ConfigError) as caught:
        await build(tmp_path, "{}", f"  - {other}")
    assert str(caught.value).split(": ", 1)[1] == message
    await build(tmp_path, "{status: null}", f"  - {other}")
    if "mine" in other:
        await build(tmp_path, '{status: "/events/{event_id}"}', f"  - {other}")


async def test_what_is_wrong_with_both_is_said_once(tmp_path: Path) -> None:
    """The status route has the same policies."""
    with pytest.raises(ConfigError) as caught:
        await build(tmp_path, "{}", "    auth: {any: [nobody]}")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("path", ["/a/{event_id}", "/a/{rest:path}"])
async def test_paths_with_nothing_behind_them(tmp_path: Path, path: str) -> None:
    """There is no status route, unless it is given a path of its own."""
    snapshot = await build(tmp_path, "{}", path=path)
    assert [route.name for route in snapshot.routes] == ["hooks"]
    if "rest" in path:
        snapshot = await build(tmp_path, '{status: "/e/{event_id}"}', path=path)
        assert [route.name for route in snapshot.routes] == ["hooks", "hooks.status"]


async def test_quarantine_needs_delivery(tmp_path: Path) -> None:
    """Nobody else would keep what is invalid."""
    with pytest.raises(ConfigError, match="quarantine needs delivery"):
        await build(tmp_path, "null", "    validate: {request: {body: {}}, on_invalid: quarantine}")


@pytest.mark.parametrize(
    ("lines", "fits"),
    [
        ("{request: {body: {}}}", True),
        ("{request: {body: {}}, response: {body: {}}}", False),
        ("{response: {body: {}}}", False),
    ],
)
async def test_answers_are_its_own(tmp_path: Path, lines: str, fits: bool) -> None:
    """There is no answer of an upstream that a contract could speak of."""
    if fits:
        await build(tmp_path, "{}", f"    validate: {lines}")
        return
    with pytest.raises(ConfigError, match=r"validate\.response: an asynchronous route answers by"):
        await build(tmp_path, "{}", f"    validate: {lines}")


async def test_plugins_guard_what_is_accepted(tmp_path: Path) -> None:
    """One without an anchor stands before delivery, on the status route too."""
    (tmp_path / "stop.py").write_text(PLUGIN)
    lines = ["    plugins: [{use: stop}]", "plugins: [stop.py]"]
    snapshot = await build(tmp_path, "{}", *lines)
    for route in snapshot.routes:
        names = [policy.name for policy in route.policies]
        assert names[-2:] == ["stop", names[-1]]
        assert names[-1].startswith("delivery")
    assert all(policy.name != "stop" for way in snapshot.routes[0].ways for policy in way.policies)


async def test_explain_says_where_events_go(tmp_path: Path) -> None:
    """The chain that accepts, then each further upstream with the chain that delivers to it."""
    delivery = '{to: [api, {upstream: crm, path: "/in/{kind}"}]}'
    lines = ["    idempotency: {}", "    headers: {request: {set: {X-A: b}}}"]
    snapshot = await build(tmp_path, delivery, *lines, path="/hooks/{kind}")

    shown = _lines(explain(snapshot, "POST", "/hooks/a?x=1"))
    brief = [" ".join(line.split("{")[0].split()) for line in shown]
    assert brief[1].startswith("route hooks (")
    assert brief[2:] == [
        "parameter kind = a", "admission correlation", "admission observe", "admission body",
        "admission idempotency", "admission delivery",
        "further api /hooks/a?x=1", "delivery headers", "delivery circuit_breaker",
        "further crm /in/a?x=1", "delivery headers",
    ]  # fmt: skip
    status = _lines(explain(snapshot, "GET", "/hooks/a/b"))
    assert status[-1] == "beside     hooks"
    rows = [_row(info) for info in route_infos(snapshot)]
    assert [(row[0], row[1], row[3], row[4]) for row in rows] == [
        ("hooks", "POST", "/hooks/{kind}", "later: api,crm"),
        ("hooks.status", "GET", "/hooks/{kind}/{event_id}", "beside hooks"),
    ]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({}, [""]),
        ({"to": ["a", {"upstream": "b"}, {"name": "c"}]}, ["a", "b", ""]),
    ],
)
def test_the_upstreams_it_names(given: dict[str, Any], names: list[str]) -> None:
    """An empty name stands for the route's own."""
    assert DeliveryConfig.model_validate(given).upstreams == names
