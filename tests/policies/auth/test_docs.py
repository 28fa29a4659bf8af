"""The example on the policy's page is a configuration that loads and starts."""

from __future__ import annotations

import textwrap
from pathlib import Path

from gateway.loading import load_configuration
from gateway.runtime import Runtime

PAGE = Path(__file__).resolve().parents[3] / "docs/policies/auth.md"


async def test_the_example(tmp_path: Path) -> None:
    """As it stands, with an upstream added; its provider need not be there."""
    block = PAGE.read_text().split("\n    identities:")[1].split("\n\n|")[0]
    text = textwrap.dedent("    identities:" + block)
    upstreams = 'upstreams: {orders: {targets: ["http://127.0.0.1:1"], timeout: 1s}}\n'
    file = tmp_path / "gateway.yaml"
    file.write_text("version: 1\ntelemetry: {access_log: null}\n" + upstreams + text)
    loaded = load_configuration(file, {"INTROSPECTION_SECRET": "s3cret-s3cret"})
    runtime = Runtime()
    try:
        await runtime.start(loaded)
        chain = [policy.name for policy in runtime.snapshot.routes[0].policies]
        assert chain[0] == "identity_fields"
        assert "auth" in chain
    finally:
        await runtime.aclose()
    assert loaded.configuration.warnings == []


def test_warnings(tmp_path: Path) -> None:
    """A secret in the file, and providers without TLS, are warned about."""
    file = tmp_path / "gateway.yaml"
    file.write_text("""\
version: 1
identities:
  a: {type: jwt, issuer: "http://idp.internal", audience: x}
  b: {type: jwt, issuer: "http://idp.internal", audience: x, jwks: "http://127.0.0.1/keys"}
  c: {type: introspection, url: "http://idp.internal/i", client_id: a, client_secret: s3cret-s3cret}
routes: [{name: a, match: {path: /}, respond: {status: 200}}]
""")
    found = load_configuration(file, {}).configuration.warnings
    warnings = [str(each).partition("yaml:")[2] for each in found]

    assert [each.partition(": ")[2].partition(":")[0] for each in warnings] == [
        "identities.a.issuer", "identities.c.url", "identities.c.client_secret",
    ]  # fmt: skip
    assert not any("s3cret" in each for each in warnings)
