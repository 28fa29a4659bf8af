"""Lockgate itself, set up for the same work as its peers."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import gateway
from bench import processes
from bench.peers.edge import AUDIENCE, ISSUER, Edge
from bench.peers.peer import Command, Job, Peer

_CONFIG = """\
version: 1
server:
  listen: 127.0.0.1:{port}
  admin: 127.0.0.1:{admin}
  workers: {workers}
  deliver: {deliver}
  limits: {{body: null, connections: 50000}}
  timeouts: {{keep_alive: 600s, drain: 10s}}
telemetry:
  access_log: {{format: json, sample: 1.0, to: {access_log}}}
upstreams:
  bench:
    targets: ["http://127.0.0.1:{upstream}"]
    balance: least_requests
    connections: {{max: 256, keep_alive: 60s}}
    {resilience}
{second}defaults:
  correlation: {{}}
  timeout: {timeout}
{policies}routes:
{routes}"""
_LIMIT = "  rate_limit: {rate: 1000000/s, per: consumer}\n"
_STORE = 'store: {{url: "unix://{store}"}}\n'
_AUTH = "  auth: {any: [bench]}\n"
_IDENTITY = """\
identities:
  bench:
    {{type: jwt, issuer: "{issuer}", audience: {audience}, jwks: "{jwks}", algorithms: [RS256]}}
"""

_EVERYTHING = '  - {name: bench, match: {path: "/{rest:path}"}, upstream: bench}\n'
_CACHED = """\
  - {name: bench, match: {path: "/{rest:path}"}, upstream: bench, cache: {ttl: 1h}}
"""
_SECOND_ROUTE = """\
  - {name: second, match: {path: "/second/{rest:path}"}, upstream: second}
"""
_EVENTS = """\
  - {{name: events, match: {{path: /events, methods: [POST]}}, upstream: {to}, delivery: {{}}}}
"""
# What a service of some size has: three methods on a collection and its items, under a version.
_ONE_OF_MANY = """\
  - name: service{n}.read
    match: {{path: "/v1/service{n}/items/{{item_id}}", methods: [GET]}}
    upstream: bench
"""


@dataclass(frozen=True)
class Setup:
    """What differs between measurements. `timeout` is a duration as YAML has it.

    With a `store` (a socket's path) there is a limit that nobody reaches; with an `edge`, callers
    must show its token.
    `cached` keeps answers, so that all but the first come from memory.
    `policies` are more keys of the upstream, `second` is the port of another upstream with the same
    ones, behind `/second/`. `mirror` is the port of an upstream that gets a copy of every request.
    `events` is a store's URL or the embedded engine's folder: then `/events` is an asynchronous
    route, whose events are delivered by this gateway or not (`deliver`), to `bench` or to the
    upstream on the port `second`.
    """

    workers: int = 1
    timeout: str = "10s"
    routes: int = 0
    watch: bool = True
    store: str = ""
    edge: Edge | None = None
    cached: bool = False
    policies: str = ""
    second: int = 0
    mirror: int = 0
    events: str = ""
    deliver: bool = True

    def paths(self) -> list[str]:
        """What to ask for: one path, or ten spread over all the routes."""
        if not self.routes:
            return ["/item"]
        step = max(1, self.routes // 10)
        return [f"/v1/service{n}/items/{n}" for n in range(0, self.routes, step)][:10]


def peer(setup: Setup | None = None, name: str = "lockgate") -> Peer:
    """The gateway of this source tree, run by the interpreter that runs the measurement."""
    chosen = setup or Setup()
    version = (
        f"{gateway.__version__}, {platform.python_implementation()} {platform.python_version()}"
    )
    return Peer(name, version, "", lambda job: _prepare(job, chosen))


def admin_port(job: Job) -> int:
    """Where the admin listener of that job was put."""
    return int((job.work / "admin.port").read_text())


def config_file(job: Job) -> Path:
    """The file that the gateway of that job reads."""
    return job.work / "gateway.yaml"


def config_text(job: Job, setup: Setup, admin: int) -> str:
    """The configuration as YAML."""
    many = "".join(_ONE_OF_MANY.format(n=n) for n in range(setup.routes))
    return _CONFIG.format(
        port=job.port,
        admin=admin,
        workers=setup.workers,
        upstream=job.upstream_port,
        timeout=setup.timeout,
        policies=_policies(job, setup),
        access_log=job.access_log,
        routes=(many or (_CACHED if setup.cached else _EVERYTHING))
        + (_SECOND_ROUTE if setup.second else "")
        + (_EVENTS.format(to="second" if setup.second else "bench") if setup.events else ""),
        deliver=str(setup.deliver).lower(),
        resilience=setup.policies.replace("}, ", "}\n    "),
        second=_second(setup),
    )


def _second(setup: Setup) -> str:
    if setup.mirror:
        return f'  mirror: {{targets: ["http://127.0.0.1:{setup.mirror}"]}}\n'
    if not setup.second:
        return ""
    policies = f", {setup.policies}" if setup.policies else ""
    return f'  second: {{targets: ["http://127.0.0.1:{setup.second}"]{policies}}}\n'


def _policies(job: Job, setup: Setup) -> str:
    """Further keys of `defaults:`, and the sections that they need."""
    policies, sections = "", ""
    if setup.mirror:
        policies += "  mirror: {upstream: mirror, percent: 100%}\n"
    if setup.edge is not None:
        jwks = job.work / "jwks.json"
        jwks.write_text(setup.edge.jwks)
        policies += _AUTH
        sections += _IDENTITY.format(issuer=ISSUER, audience=AUDIENCE, jwks=jwks)
    if setup.events:
        where = f"url: {setup.events}" if ":" in setup.events else f"data: {setup.events}"
        sections += f"store: {{{where}}}\n"
    if setup.store:
        policies += _LIMIT
        sections += _STORE.format(store=setup.store)
    return policies + sections


def _prepare(job: Job, setup: Setup) -> Command:
    admin = processes.free_port()
    (job.work / "admin.port").write_text(str(admin))
    config_file(job).write_text(config_text(job, setup, admin))
    environ = {
        "GATEWAY_CONFIG": str(config_file(job)),
        "GATEWAY_WATCH": "on" if setup.watch else "off",
        "PYTHONPATH": str(Path(gateway.__file__).parent.parent),
    }
    return Command([sys.executable, "-m", "gateway", "run"], environ)
