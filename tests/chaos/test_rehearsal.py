"""Whole rehearsals, shortened: the real gateway, real sockets, a real store; good and bad."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest

from gateway.chaos.report import Report
from gateway.chaos.run import rehearse
from gateway.chaos.scenario import Expectation, Phase, Scenario, Trouble, Written, read_scenario
from gateway.chaos.verdict import RouteVerdict
from gateway.config.issues import ConfigErrors
from gateway.runtime import Loaded, load_configuration
from tests.support.gateway import load
from tests.support.scripted import Peer, ScriptedUpstream

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "config" / "chaos").glob("*.yaml"))
# What "retry until it works" looks like, and nothing that stops it.
STORM = "retry: {attempts: 5, budget: null, backoff: {base: 1ms, max: 2ms}}"
BREAKER = "circuit_breaker: {min_requests: 5, window: 2s, open_for: 300ms, ramp: 200ms}"


def config(upstream: str = "", routes: str = "", extra: str = "") -> str:
    more = f", {upstream}" if upstream else ""
    return f"""\
upstreams:
  a: {{targets: ["https://a.internal"]{more}}}
  b: {{targets: ["https://b.internal"]}}
{extra}routes:
  - {{name: here, match: {{path: /}}, respond: {{status: 200}}}}
  - {{name: b.read, match: {{path: /b}}, upstream: b}}
{routes or "  - {name: a.read, match: {path: /a}, upstream: a}"}
"""


def written(folder: Path, text: str) -> Written:
    file = folder / "scenario.yaml"
    file.write_text(text)
    return read_scenario(file)


def scenario(trouble: str, expect: str = "", *, load: str = "rate: 60/s", more: str = "") -> str:
    """Well for a moment, in trouble for another, well until everything has recovered."""
    return f"""\
name: short
load: {{{load}}}
window: 200ms
give_up: 2s
phases:
  - {{for: 400ms}}
  - {{for: 600ms, {trouble}}}
  - {{for: 5s, until: recovered}}
expect: {{{expect}}}
{more}
"""


async def run(loaded: Loaded, one: Written, **options: Any) -> Report:
    return await rehearse(loaded, one, tell=lambda text: None, **options)


def of(report: Report, route: str) -> RouteVerdict:
    return next(each for each in report.routes if each.route == route)


def missed(report: Report) -> set[tuple[str, str]]:
    """Routes and what they missed."""
    return {(r.route, check.name) for r in report.routes for check in r.checks if not check.ok}


def shortened(one: Written, part: float = 0.25, rate: int = 60) -> Written:
    """The same scenario in a quarter of the time, latencies too, and with a livelier load."""

    def phase(each: Phase) -> Phase:
        troubles = {name: trouble(value) for name, value in each.upstream.items()}
        length = each.length if each.until else each.length * part
        return each.model_copy(update={"length": length, "upstream": troubles})

    def trouble(each: Trouble) -> Trouble:
        changes = {"latency": each.latency * part, "jitter": each.jitter * part}
        if each.flap is not None:
            changes["flap"] = each.flap * part
        return each.model_copy(update=changes)

    scenario = one.scenario
    load = scenario.load.model_validate({"rate": f"{rate}/s"})
    phases = [phase(each) for each in scenario.phases]
    changes: dict[str, Any] = {"phases": phases, "load": load, "window": scenario.window * part}
    return Written(scenario.model_copy(update=changes), one.root)


@pytest.fixture(scope="module")
def demo() -> Loaded:
    """The configuration that ships."""
    return load_configuration(ROOT / "config" / "gateway.yaml", {})


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
async def test_shipped_scenarios_pass_with_the_shipped_configuration(
    path: Path, demo: Loaded
) -> None:
    """Every route of the demo can be asked, meets its contract, and meets what is expected."""
    report = await run(demo, shortened(read_scenario(path)))

    assert missed(report) == set()
    assert report.ok
    assert [each.route for each in report.routes if each.skipped] == []
    assert all(each.success_before == 1 for each in report.routes)


async def test_retries_without_bounds_fail_the_amplification_check(tmp_path: Path) -> None:
    """Five attempts, no budget, no breaker: a shipped scenario says so, for that route alone."""
    one = shortened(read_scenario(ROOT / "config" / "chaos" / "failing.yaml"))
    report = await run(load(tmp_path, config(STORM)), one)

    assert not report.ok
    assert ("a.read", "max_amplification") in missed(report)
    assert {route for route, _ in missed(report)} == {"a.read"}
    assert (of(report, "a.read").amplification or 0) > 1.5


async def test_a_reserve_takes_over(tmp_path: Path) -> None:
    """One target stands in for another by priority: its failures are seen once, and no more."""
    text = """\
upstreams:
  a:
    targets: ["http://a.internal", {url: "http://reserve.internal", priority: 1}]
    outliers: {consecutive_failures: 2, eject_for: 1h, max_eject_for: 1h}
routes:
  - {name: a.read, match: {path: /a}, upstream: a}
"""
    one = written(
        tmp_path,
        scenario("upstream: {a: {status: 503, targets: 1}}", '"*": {max_error_ratio: 20%}'),
    )
    report = await run(load(tmp_path, text), one)

    assert missed(report) == set()
    assert report.ok


async def test_a_breaker_contains_the_same_storm(tmp_path: Path) -> None:
    """The upstream sees a fraction of what clients sent, they learn why, and it comes back."""
    one = written(
        tmp_path,
        scenario("upstream: {a: {status: 503}}",
                 '"*": {only_codes: [503, circuit_open], recovers_within: 4s, '
                 "no_failures_on: others}, a.read: {max_amplification: 0.9}"),
    )  # fmt: skip
    report = await run(load(tmp_path, config(f"{STORM}, {BREAKER}")), one)

    assert missed(report) == set()
    assert {"open", "half_open", "ramping"} <= {each.what for each in report.breakers}
    assert of(report, "a.read").codes.keys() == {"503", "circuit_open"}
    assert of(report, "b.read").classes.keys() == {"2xx"}
    assert of(report, "a.read").in_trouble
    assert not of(report, "b.read").in_trouble


async def test_requests_that_lost_their_number_are_noted(tmp_path: Path) -> None:
    """They can't be told apart, so the amplification is not to be believed, and a note says so."""
    routes = """\
  - {name: a.read, match: {path: /a}, upstream: a,
     headers: {request: {remove: [X-Lockgate-Chaos]}}}"""
    loaded = load(tmp_path, config(routes=routes))
    report = await run(loaded, written(tmp_path, scenario("upstream: {a: reset}")))

    assert of(report, "a.read").upstream_requests == 0
    assert any("requests of no client" in note for note in report.notes)


async def test_one_target_of_two_is_down(tmp_path: Path) -> None:
    """Connecting elsewhere hides it from clients."""
    text = config().replace('["https://a.internal"]', '["https://a.internal", "unix:/run/a.sock"]')
    expect = '"*": {max_error_ratio: 0, recovers_within: 1s}'
    trouble = "upstream: {a: {down: true, targets: 1}}"
    report = await run(load(tmp_path, text), written(tmp_path, scenario(trouble, expect)))

    assert missed(report) == set()
    assert report.ok


async def test_a_stalled_upstream_and_clients_that_wait_their_turn(tmp_path: Path) -> None:
    """A closed load; without a timeout clients give up, with one they are told."""
    routes = """\
  - {name: a.timed, match: {path: /t}, upstream: a, timeout: 200ms}
  - {name: a.endless, match: {path: /e}, upstream: a, timeout: null}"""
    expect = '"*": {only_codes: [deadline_exceeded, gave_up], no_failures_on: others}'
    text = scenario("upstream: {a: stall}", expect, load="concurrency: 6")
    report = await run(
        load(tmp_path, config(routes=routes)),
        written(tmp_path, text.replace("up: 2s", "up: 400ms")),
    )

    assert missed(report) == set()
    assert of(report, "a.timed").codes.keys() == {"deadline_exceeded"}
    assert of(report, "a.endless").codes.keys() == {"gave_up"}


@pytest.mark.parametrize("state", ["down", "stall"])
async def test_the_store_is_gone(tmp_path: Path, state: str) -> None:
    """What needs it refuses with its own code, what can do without goes on, and both come back."""
    routes = """\
  - {name: needs, match: {path: /n, methods: [POST]}, upstream: a, idempotency: {required: true}}
  - {name: limited, match: {path: /l}, upstream: a, rate_limit: {rate: 1000/s}}"""
    expect = '"*": {only_codes: [store_unavailable], recovers_within: 4s, no_failures_on: others}'
    report = await run(
        load(tmp_path, config(routes=routes, extra="store: {timeout: 200ms}\n")),
        written(tmp_path, scenario(f"store: {state}", expect)),
    )

    assert missed(report) == set()
    assert of(report, "needs").codes.keys() == {"store_unavailable"}
    assert of(report, "limited").codes == {}
    assert not report.notes or "busy" in report.notes[0]
    assert not of(report, "here").in_trouble


IDENTITIES = """\
identities:
  staff: {type: jwt, issuer: "https://idp.internal", audience: [api], profile: at+jwt,
          algorithms: [RS256], scopes_claim: realm.scopes, require: {tenant: [acme]}}
  keys: {type: api_key, keys: [{consumer: p1, hash: "sha256:HASH"}]}
  bearer: {type: api_key, header: Authorization, keys: [{consumer: p1, hash: "sha256:HASH"}]}
  opaque: {type: introspection, url: "https://idp.internal/introspect", client_id: gw,
           client_secret: s3cret, audience: api}
  hooks: {type: webhook, scheme: github, secret: s3cret}
  machines: {type: mtls, subjects: ["*"]}
""".replace("HASH", "0" * 64)


async def test_identities_are_stood_in_for(tmp_path: Path) -> None:
    """Tokens, keys, introspection and signatures pass; a client certificate is said to be missing.

    Nothing of it is asked: the names do not exist.
    """
    routes = """\
  - {name: jwt, match: {path: /1}, upstream: a, auth: {any: [staff], scopes: [r], claims: {x: [y]}}}
  - {name: key, match: {path: /2}, upstream: a, auth: {any: [machines, keys], scopes: [w]}}
  - {name: bearer, match: {path: /3}, upstream: a, auth: {any: [bearer]}}
  - {name: opaque, match: {path: /4}, upstream: a, auth: {any: [opaque], scopes_any: [r, q]}}
  - {name: hook, match: {path: /5, methods: [POST]}, upstream: a, auth: {any: [hooks]}}
  - {name: mtls, match: {path: /6}, upstream: a, auth: {any: [machines]}}"""
    own = (
        "auth: {type: client_credentials, token_url: 'https://idp.internal/token', client_id: a, "
        "client_secret: b}"
    )
    text = scenario("upstream: {a: {status: 500}}", '"*": {only_codes: [500]}', load="rate: 80/s")
    loaded = load(tmp_path, config(own, routes, IDENTITIES))
    report = await run(loaded, written(tmp_path, text))

    assert missed(report) == set()
    asked = {each.route: each.success_before for each in report.routes if not each.skipped}
    assert asked == dict.fromkeys(["here", "b.read", "jwt", "key", "bearer", "opaque", "hook"], 1.0)
    assert "client certificate" in of(report, "mtls").skipped
    assert "upstream a: no token is fetched for it" in report.notes


async def test_what_cannot_be_asked_is_said(tmp_path: Path) -> None:
    """A request that another route takes is skipped; one that is refused fails its baseline."""
    routes = """\
  - {name: rest, match: {path: "/a/{id}"}, upstream: a}
  - {name: a.one, match: {path: "/a/{id}", headers: {X: "1"}}, upstream: a,
     validate: {request: {headers: {required: [X-Odd], properties: {X-Odd: {not: {}}}}}}}"""
    loaded = load(tmp_path, config(routes=routes))
    text = scenario("upstream: {a: down}", '"*": {max_error_ratio: 1}')
    more = "requests: {rest: {headers: {X: '1'}}}"
    report = await run(loaded, written(tmp_path, text + more), only=["rest", "a.one"])

    assert "the route that takes GET /a/1" in of(report, "rest").skipped
    assert "give requests.rest" in of(report, "rest").skipped
    assert missed(report) == {("a.one", "baseline")}
    assert not report.ok


async def test_canaries_mirrors_and_flags(tmp_path: Path) -> None:
    """A canary's upstream is one of the route's, a mirror's is not, a flag keeps no route away."""
    routes = """\
  - {name: canary, match: {path: /1}, upstream: b, canary: {upstream: a, weight: 50%, sticky: none}}
  - {name: mirror, match: {path: /2}, upstream: b, mirror: {upstream: a}}
  - {name: flagged, match: {path: /3}, upstream: b, flag: beta}"""
    loaded = load(tmp_path, config(routes=routes, extra="flags: {beta: off}\n"))
    text = scenario("upstream: {a: {status: 500}}", '"*": {max_amplification: 1}')
    report = await run(loaded, written(tmp_path, text))

    assert missed(report) == set()
    assert [name for name in ("canary", "mirror", "flagged") if of(report, name).in_trouble] == [
        "canary"
    ]
    assert of(report, "canary").codes.keys() == {"500"}
    assert of(report, "canary").amplification == of(report, "mirror").amplification == 1
    assert of(report, "flagged").classes.keys() == {"2xx"}
    assert "route flagged: its flag is on for everybody" in report.notes


async def test_asynchronous_routes_tell_nobody_outside(tmp_path: Path) -> None:
    """They accept whatever their upstream does; nobody is called back or told of what failed, and
    their status is not asked for.
    """
    told = asyncio.Event()

    async def outside(peer: Peer) -> None:
        told.set()
        peer.close()

    async with ScriptedUpstream(outside) as hook:
        routes = f"""\
  - name: events
    match: {{path: /e, methods: [POST]}}
    upstream: a
    delivery:
      to: [a, {{name: log, stream: {{url: "redis://127.0.0.1:{hook.port}", stream: log}}}}]
      attempts: 1
      dead_letter: {{alert: true}}
      callback: {{url: "{hook.url}"}}"""
        alerts = f'telemetry: {{alerts: {{webhook: "{hook.url}"}}}}\n'
        text = scenario("upstream: {a: {status: 500}}", '"*": {max_error_ratio: 1}')
        loaded = load(tmp_path, config(routes=routes, extra=alerts))
        report = await run(loaded, written(tmp_path, text))

    assert of(report, "events").classes.keys() == {"2xx"}
    assert "events.status" not in {each.route for each in report.routes}
    assert not told.is_set()


async def test_names_are_checked_before_anything_starts(tmp_path: Path) -> None:
    """A scenario for another configuration runs nothing."""
    one = written(tmp_path, scenario("upstream: {nobody: down}"))

    with pytest.raises(ConfigErrors, match='no upstream "nobody"'):
        await run(load(tmp_path, config()), one)


async def test_nothing_is_left_when_it_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a fault: no task, no folder, no engine."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    routes = "  - {name: l, match: {path: /l}, upstream: a, rate_limit: {rate: 1000/s}}"
    one = written(tmp_path, scenario("upstream: {a: stall}, store: stall"))
    loaded = load(tmp_path, config(routes=routes))
    before = asyncio.all_tasks()
    told: list[str] = []
    reached = asyncio.Event()

    def tell(text: str) -> None:
        told.append(text)
        if len(told) == 2:
            reached.set()

    running = asyncio.create_task(rehearse(loaded, one, tell=tell))
    await asyncio.wait_for(reached.wait(), 30)
    await asyncio.sleep(0.1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert asyncio.all_tasks() - before == set()
    assert [each.name for each in tmp_path.iterdir() if each.is_dir()] == []


def test_an_expectation_of_nothing_is_met() -> None:
    """The models' own defaults ask for nothing."""
    assert Expectation().model_fields_set == set()
    one = {"name": "a", "load": {"rate": "1/s"}, "phases": [{"for": "1s"}]}
    assert Scenario.model_validate(one).expectation("any") == Expectation()
