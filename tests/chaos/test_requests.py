"""Generated requests: from a route's match, its schemas, its identities, and the scenario."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from gateway.chaos.credentials import NoStandIn, Wallet
from gateway.chaos.described import Descriptions
from gateway.chaos.requests import Maker
from gateway.chaos.scenario import RequestConfig
from gateway.contracts.files import Files
from gateway.loading import make_library
from gateway.runtime import Loaded
from tests.support.gateway import load

UPSTREAM = 'upstreams: {a: {targets: ["http://127.0.0.1:9"]}}\n'


def maker(
    folder: Path, route: str, *, seed: int = 1, more: str = "", **given: Any
) -> tuple[Maker, Loaded]:
    loaded = load(folder, f"{UPSTREAM}{more}routes: [{{name: r, {route}, upstream: a}}]\n")
    configuration = loaded.configuration
    library = loaded.library or make_library(configuration)
    described = Descriptions(
        configuration.gateway, library, Files(configuration.base_dir, configuration.content)
    )
    wallet = Wallet(configuration.gateway.identities, [], folder, Random(seed))
    config = RequestConfig.model_validate(given)
    made = Maker(configuration.gateway.routes[0], described.of, wallet, config, Random(seed))
    return made, loaded


def lines(made: Maker, number: int = 5) -> tuple[str, dict[str, str], bytes]:
    """Request line, header fields, body."""
    request = made.make(number)
    line, *rest = request.head.decode().removesuffix("\r\n\r\n").split("\r\n")
    fields = dict(each.split(": ", 1) for each in rest)
    return line, fields, request.body


def test_a_match_is_met(tmp_path: Path) -> None:
    """Host, header fields, parameters of the path; the tag tells number and route."""
    match = 'match: {host: "*.api.internal", path: "/a/{id}/{rest:path}", headers: {X-V: "2"}}'
    line, fields, body = lines(maker(tmp_path, match)[0])

    assert line.startswith("GET /a/10")
    assert line.endswith("/chaos HTTP/1.1")
    assert fields["Host"] == "chaos.api.internal"
    assert fields["X-V"] == "2"
    assert fields["x-lockgate-chaos"] == "5;r"
    assert body == b""


def test_a_schema_is_met(tmp_path: Path) -> None:
    """Body, query, header fields and path from schemas that stand in place and models."""
    models = (
        "models: {order: {schema: {type: object, required: [n], properties: {n: {const: 3}}}}}\n"
    )
    route = (
        'match: {path: "/a/{id}", methods: [PUT]}, validate: {request: {body: {model: order}, '
        "query: {required: [page], properties: {page: {type: integer, minimum: 2}}}, "
        "headers: {required: [X-Kind], properties: {X-Kind: {enum: [big]}}}, "
        'path: {properties: {id: {type: string, pattern: "^[A-Z]-[0-9]$"}}}}}'
    )
    line, fields, body = lines(maker(tmp_path, route, more=models)[0])

    assert line == "PUT /a/A-1?page=2 HTTP/1.1"
    assert fields["X-Kind"] == "big"
    assert fields["Content-Type"] == "application/json"
    assert (body, fields["Content-Length"]) == (b'{"n": 3}', "8")


def test_what_the_scenario_says_stands_above(tmp_path: Path) -> None:
    """Method, path, fields and body; {n} is the request's number everywhere."""
    made, _ = maker(
        tmp_path, "match: {path: /a, methods: [GET, POST]}", method="POST", path="/a?n={n}",
        headers={"X-Id": "id-{n}", "Accept": "text/plain"}, json={"id": "{n}"},
    )  # fmt: skip
    line, fields, body = lines(made)

    assert line == "POST /a?n=5 HTTP/1.1"
    assert (fields["X-Id"], fields["Accept"]) == ("id-5", "text/plain")
    assert body == b'{"id": "5"}'


def test_idempotency_keys_differ(tmp_path: Path) -> None:
    """One key a request, where the policy may ask for one."""
    made, _ = maker(tmp_path, "match: {path: /a, methods: [POST]}, idempotency: {required: true}")

    assert lines(made, 1)[1]["Idempotency-Key"] == "chaos-1"
    assert lines(made, 2)[1]["Idempotency-Key"] == "chaos-2"


def test_clients_come_from_where_they_may(tmp_path: Path) -> None:
    """An address that the access list allows, or none if this machine's is; or no stand-in."""
    match = "match: {path: /a}"
    allowed, _ = maker(tmp_path, f"{match}, access: {{allow: [10.0.0.0/8]}}")
    own, _ = maker(tmp_path, f"{match}, access: {{allow: [127.0.0.0/8]}}")

    assert lines(allowed)[1]["X-Forwarded-For"] == "10.0.0.1"
    assert "X-Forwarded-For" not in lines(own)[1]
    with pytest.raises(NoStandIn):
        maker(tmp_path, f"{match}, access: {{deny: [0.0.0.0/0]}}")


def test_the_same_seed_makes_the_same_requests(tmp_path: Path) -> None:
    """Byte by byte; another seed makes others."""
    route = 'match: {path: "/a/{id}"}'

    def made(seed: int) -> list[bytes]:
        one, _ = maker(tmp_path, route, seed=seed)
        return [one.make(number).head for number in range(20)]

    assert made(1) == made(1)
    assert made(1) != made(2)
