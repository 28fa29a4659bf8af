"""Whatever the file holds, the loader gives a configuration or ConfigErrors, and nothing else."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.config.loader import ConfigErrors, load
from tests.config.toy import catalog

CASES = Path(__file__).parent / "cases"
KEYS = st.sampled_from(
    [
        "version",
        "include",
        "server",
        "listen",
        "admin",
        "workers",
        "tls",
        "cert",
        "key",
        "limits",
        "timeouts",
        "telemetry",
        "access_log",
        "redact",
        "upstreams",
        "targets",
        "url",
        "weight",
        "balance",
        "defaults",
        "profiles",
        "routes",
        "name",
        "match",
        "path",
        "methods",
        "headers",
        "upstream",
        "respond",
        "status",
        "json",
        "body",
        "rewrite",
        "host",
        "query",
        "add",
        "remove",
        "use",
        "enabled",
        "plugins",
        "with",
        "cors",
        "timeout",
        "correlation",
        "trusted_proxies",
        "store",
        "auth",
        "<<",
    ]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        ["3s", "64KiB", "/a/{id}", "http://a", "unix:/x", "${env:X}", "${env:X", "web"]
    ),
)
DATA = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)
RELAXED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def survives(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "gateway.yaml"
        file.write_bytes(data)
        issues = None
        try:
            load(file, catalog, {"X": "s3cr3t"})
        except ConfigErrors as error:
            issues = [str(issue) for issue in error.issues]
    if issues is not None:
        assert issues
        assert all(issue.isprintable() and "s3cr3t" not in issue for issue in issues)


@RELAXED
@given(st.binary(max_size=200))
@example(b"\r@")  # a lone CR ends a line too
@example(b"\xff\xfea\x00")
@example(b"a: \xed\xa0\x80")
def test_any_bytes(data: bytes) -> None:
    """Arbitrary bytes never crash the loader."""
    survives(data)


@RELAXED
@given(st.text(alphabet=" \n\t:-[]{},&*!|>'\"%@`#?<~01aesx${}/", max_size=80))
@example("a: &a\n")
@example("<<: *x")
@example("&a a: *a")
@example("*a : b")
@example("? &x a\n: *x\n*x : 1")
@example("a: !!binary x")
@example("a: 1" + "0" * 5000)
@example("a: 1e999999999")
@example("routes: [{enabled: 1" + "0" * 400 + "}]")
def test_any_yaml_like_text(text: str) -> None:
    """Text full of YAML's own characters never crashes the loader."""
    survives(text.encode())


@RELAXED
@given(st.dictionaries(KEYS, DATA, max_size=6))
@example({"plugins": ["${env:X}"]})
def test_any_data_under_known_keys(data: object) -> None:
    """Known keys with values of every wrong type never crash the loader."""
    survives(json.dumps(data).encode())


@RELAXED
@given(st.sampled_from(sorted(CASES.glob("*.yaml"))), st.data())
def test_any_damage_to_real_files(file: Path, data: st.DataObject) -> None:
    """A real configuration with a piece cut out, doubled or replaced never crashes the loader."""
    content = file.read_bytes()[:3000]
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, min(len(content), start + 40)))
    piece = data.draw(st.sampled_from([b"", b"*a", b"null", b"[", b": ", b"\n", b"${", b"010"]))
    survives(content[:start] + piece + content[start:end] + content[end if piece else start :])
