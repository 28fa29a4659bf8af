"""Validation, from the client to the upstream and back, on both servers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.config.issues import ConfigErrors
from gateway.runtime import Runtime
from gateway.server.orders import pack, unpack
from tests.e2e.conftest import Serve
from tests.support.gateway import load
from tests.support.raw import RawClient
from tests.support.scripted import ScriptedUpstream, answer, echo, respond

CONTRACT = """\
openapi: 3.0.3
paths:
  /items/{id}:
    parameters:
      - {name: id, in: path, required: true, schema: {type: integer}}
    get:
      parameters:
        - {name: limit, in: query, schema: {type: integer, maximum: 9}}
      responses:
        "200": {description: "", content: {application/json: {schema: {$ref: "item.yaml#/Item"}}}}
    put:
      requestBody:
        required: true
        content: {application/json: {schema: {$ref: "item.yaml#/Item"}}}
      responses: {}
"""
ITEM = (
    "Item: {type: object, required: [n], properties: {n: {type: integer}, x: {nullable: true}}}\n"
)
CONFIG = """\
contracts: {{items: {{openapi: items.yaml}}}}
models: {{item: {{schema: {{type: object, required: [n]}}}}}}
upstreams: {{api: {{targets: ["{url}"]}}}}
routes:
  - name: items
    match: {{path: "/v1/items/{{id}}"}}
    upstream: api
    rewrite: {{path: "/items/{{id}}"}}
    body: {{max: 4KiB}}
    validate: {{contract: items{options}}}
  - {{name: own, match: {{path: /own}}, upstream: api, body: {{max: 4KiB}},
     validate: {{request: {{body: {{model: item}}}}, mode: report}}}}
"""
JSON = {"content-type": "application/json"}
KIND = b"Content-Type: application/json"


def config(folder: Path, url: str, options: str = "") -> str:
    """The configuration, with its contract in two files beside it."""
    (folder / "items.yaml").write_text(CONTRACT)
    (folder / "item.yaml").write_text(ITEM)
    return CONFIG.format(url=url, options=options)


async def chunks(*parts: bytes) -> Any:
    """A body of unknown length."""
    for part in parts:
        yield part


async def test_what_is_right_arrives_as_it_was_sent(serve: Serve, tmp_path: Path) -> None:
    """Byte for byte, with its length, whether it came whole or in pieces."""
    body = b'{ "n" : 1,\n "x": null, "t": "\\u00e9" }'
    async with ScriptedUpstream(echo) as upstream:
        text = config(tmp_path, upstream.url, ", response: null")
        async with serve(text) as gateway, gateway.client() as client:
            whole = await client.put("/v1/items/1", content=body, headers=JSON)
            pieces = await client.put(
                "/v1/items/1", content=chunks(body[:5], body[5:]), headers=JSON
            )
            for got in (whole, pieces):
                assert got.status_code == 200
                assert got.json()["target"] == "/items/1"
                assert got.json()["body"] == body.decode()
                fields = dict(got.json()["headers"])
                assert fields["content-length"] == str(len(body))
                assert "transfer-encoding" not in fields
            await gateway.quiet()


async def test_what_is_wrong_never_reaches_the_upstream(serve: Serve, tmp_path: Path) -> None:
    """It gets a problem with every violation, and the access log its code."""
    async with ScriptedUpstream(echo) as upstream:
        text = config(tmp_path, upstream.url)
        async with serve(text) as gateway, gateway.client() as client:
            got = await client.get("/v1/items/x?limit=10")
            assert got.status_code == 400
            assert got.headers["content-type"] == "application/problem+json"
            problem = got.json()
            assert problem["code"] == "invalid_request"
            assert problem["violations"] == [
                {"in": "path", "pointer": "id", "message": "is not of type integer",
                 "keyword": "type"},
                {"in": "query", "pointer": "limit", "message": "is greater than the maximum of 9",
                 "keyword": "maximum"},
            ]  # fmt: skip
            put = "/v1/items/1"
            for expected, content, fields in (
                (422, b'{"n":"s3cret"}', JSON),
                (400, b'{"n":1,"n":2}', JSON),
                (400, b"\xef\xbb\xbf{}", JSON),
                (400, b"", JSON),
                (415, b"{}", {}),
                (415, b"{}", JSON | {"content-encoding": "gzip"}),
                (413, b"[" + b" " * 5000 + b"]", JSON),
            ):
                for body in (content, chunks(content[:1], content[1:])):
                    got = await client.put(put, content=body, headers=fields)
                    assert got.status_code == expected, content
                    assert "s3cret" not in got.text
            assert (await client.delete(put)).status_code == 405
            assert (await client.delete(put)).headers["allow"] == "GET, PUT"
            await gateway.quiet()
            assert upstream.requests == []
            lines = await gateway.lines(17)
            assert {line["code"] for line in lines} == {
                "invalid_request", "invalid_body", "unsupported_media_type", "body_too_large",
                "method_not_allowed",
            }  # fmt: skip


async def test_report_mode(serve: Serve, tmp_path: Path) -> None:
    """It passes, whole, even if it is larger than what may be looked at; and is counted."""
    async with ScriptedUpstream(echo) as upstream:
        text = config(tmp_path, upstream.url).replace("max: 4KiB", "max: 4KiB, mode: report")
        async with serve(text) as gateway, gateway.client() as client:
            large = b"[" + b" " * 9000 + b"]"
            for content in (b"{}", b"nonsense", large):
                for body in (content, chunks(content[:2], content[2:])):
                    got = await client.post("/own", content=body, headers=JSON)
                    assert got.status_code == 200
                    assert got.json()["body"] == content.decode()
            reported = "gateway_policy_reported_total"
            assert gateway.metric(reported, policy="validate", code="invalid_body") == 2
            assert gateway.metric(reported, policy="validate", code="invalid_request") == 2
            assert gateway.metric(reported, policy="validate", code="body_too_large") == 2


async def test_answers(serve: Serve, tmp_path: Path) -> None:
    """What breaks the contract becomes a 502; the connection serves on."""
    good, bad = b'{"n": 1}', b'{"n": "s3cret"}'
    script = answer(
        respond(good, "200 OK", KIND),
        respond(bad, "200 OK", KIND),
        respond(good, "200 OK", KIND),
    )
    async with ScriptedUpstream(script) as upstream:
        async with serve(config(tmp_path, upstream.url)) as gateway, gateway.client() as client:
            got = [await client.get("/v1/items/1") for _ in range(3)]
            assert [each.status_code for each in got] == [200, 502, 200]
            assert got[0].content == good
            assert got[1].json()["code"] == "response_contract_violated"
            assert "s3cret" not in got[1].text
            lines = await gateway.lines(3)
            assert "/n (type)" in json.dumps(lines[1])
            await gateway.quiet()


async def test_answers_in_report_mode(serve: Serve, tmp_path: Path) -> None:
    """They pass as they are."""
    bad = b'{"n": "x"}'
    script = answer(respond(bad, "200 OK", KIND))
    async with ScriptedUpstream(script) as upstream:
        text = config(tmp_path, upstream.url, ", response: {mode: report}")
        async with serve(text) as gateway, gateway.client() as client:
            got = await client.get("/v1/items/1")
            assert got.status_code == 200
            assert got.content == bad
            name = "gateway_policy_reported_total"
            assert gateway.metric(name, code="response_contract_violated") == 1


async def test_a_client_that_leaves_in_mid_body(serve: Serve, tmp_path: Path) -> None:
    """Nothing is held for it, and the upstream never hears of it."""
    async with ScriptedUpstream(echo) as upstream:
        async with serve(config(tmp_path, upstream.url)) as gateway:
            async with gateway.raw() as raw:
                await send_head(raw, b"Content-Length: 100\r\n")
                await raw.send(b'{"n":')
            line = await gateway.line()
            assert line["code"] == "client_disconnected"
            await gateway.quiet()
            assert upstream.requests == []


async def send_head(raw: RawClient, more: bytes) -> None:
    head = b"PUT /v1/items/1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    await raw.send(head + more + b"\r\n")


async def test_a_client_that_stalls_in_mid_body(serve_lean: Serve, tmp_path: Path) -> None:
    """408 after the server's time for bodies."""
    async with ScriptedUpstream(echo) as upstream:
        server = 'server: {listen: "127.0.0.1:0", admin: null, timeouts: {body_idle: 100ms}}\n'
        async with serve_lean(server + config(tmp_path, upstream.url)) as gateway:
            async with gateway.raw() as raw:
                await send_head(raw, b"Content-Length: 100\r\n")
                await raw.send(b'{"n":')
                assert b" 408 " in await raw.rest()
            await gateway.quiet()
            assert upstream.requests == []


async def test_expect_continue(serve_lean: Serve, tmp_path: Path) -> None:
    """A client that waits for leave to send its body gets it, or the refusal at once."""
    async with ScriptedUpstream(echo) as upstream:
        async with serve_lean(config(tmp_path, upstream.url, ", response: null")) as gateway:
            async with gateway.raw() as raw:
                await send_head(raw, b"Content-Length: 7\r\nExpect: 100-continue\r\n")
                assert await raw.exactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
                assert (await raw.ask(b'{"n":1}')).status == 200
            async with gateway.raw() as raw:
                refused = await raw.ask(
                    b"PUT /v1/items/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n"
                    b"Content-Type: a/b\r\nExpect: 100-continue\r\n\r\n"
                )
                assert (refused.status, refused.interim) == (415, [])


async def test_reload(serve_lean: Serve, tmp_path: Path) -> None:
    """What did not change is not compiled again; what did takes effect; what is broken does not."""
    async with ScriptedUpstream(echo) as upstream:
        text = config(tmp_path, upstream.url, ", response: null")
        async with serve_lean(text) as gateway, gateway.client() as client:
            first = gateway.snapshot.configuration
            names = {path.name for path in first.files}
            assert {"items.yaml", "item.yaml"} <= names

            def library() -> Any:
                (found,) = (v for k, v in gateway.runtime._shared.items() if k[0] == "library")
                return found

            before = library()
            await gateway.reload(text + "# the same\n")
            await gateway.quiet()
            assert library() is before

            (tmp_path / "item.yaml").write_text(ITEM.replace("integer", "string"))
            await gateway.reload(text)
            assert gateway.snapshot.configuration.fingerprint != first.fingerprint
            assert (
                await client.put("/v1/items/1", content=b'{"n":"x"}', headers=JSON)
            ).status_code == 200

            (tmp_path / "items.yaml").write_text("openapi: 3.0.3\npaths: [")
            with pytest.raises(ConfigErrors, match=r"items\.yaml is not YAML: line 3"):
                await gateway.reload(text)
            assert (
                await client.put("/v1/items/1", content=b'{"n":1}', headers=JSON)
            ).status_code == 422


def test_every_error_of_contracts_has_its_place(tmp_path: Path) -> None:
    """File, pointer and the key's position, all in one run; and warnings with theirs."""
    text = config(tmp_path, "http://127.0.0.1:1")
    (tmp_path / "item.yaml").write_text("Item: {type: strange}\n")
    found = load(tmp_path, text).configuration.warnings
    (warning,) = (each for each in found if each.path.startswith("contracts"))
    assert "item.yaml#/Item/type: not a value that this keyword may have" in str(warning)
    assert warning.line > 0

    broken = text.replace(
        "models: {item: {schema: {type: object, required: [n]}}}",
        "models: {item: {schema: {required: 3}}, other: {schema: none.json}}",
    )
    with pytest.raises(ConfigErrors) as caught:
        load(tmp_path, broken)
    assert [issue.path for issue in caught.value.issues] == ["models.other.schema"]
    broken = broken.replace("{schema: none.json}", "{schema: {type: 3}}")
    with pytest.raises(ConfigErrors) as caught:
        load(tmp_path, broken)
    assert sorted(issue.path for issue in caught.value.issues) == [
        "models.item.schema", "models.other.schema",
    ]  # fmt: skip


async def test_workers_get_what_was_validated(tmp_path: Path) -> None:
    """Another process builds from what was read, even if the files are gone by then."""
    loaded = load(tmp_path, config(tmp_path, "http://127.0.0.1:1"))
    sent = pack(loaded, 1)
    (tmp_path / "items.yaml").unlink()
    (tmp_path / "item.yaml").write_text("[")
    runtime = Runtime()
    try:
        snapshot = await runtime.prepare(unpack(sent))
        assert [route.name for route in snapshot.routes] == ["items", "own"]
    finally:
        await runtime.aclose()
