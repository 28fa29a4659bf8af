"""YAML as descriptions are written in it."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.yaml_text import MAX_DEPTH, UnreadableYaml, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on: no", {"on": "no"}),
        ("date: 2026-11-25", {"date": "2026-11-25"}),
        ("200: {4XX: 1}", {"200": {"4XX": 1}}),
        ("a: 1\nb: 1.5\nc: true\nd: null\ne:\nf: '1'\ng: 0x10\nh: 1e3",
         {"a": 1, "b": 1.5, "c": True, "d": None, "e": None, "f": "1", "g": 16, "h": 1000.0}),
        ("a: 010", {"a": 10}),
        ("a: !!str 12\nb: |\n  text\n", {"a": "12", "b": "text\n"}),
        ("a: &x {k: [1]}\nb: *x", {"a": {"k": [1]}, "b": {"k": [1]}}),
        ("a: &x {k: 1}\nb: {<<: *x, m: 2}", {"a": {"k": 1}, "b": {"k": 1, "m": 2}}),
        ("a: &x {k: 1}\nb: {<<: [*x, {n: 3}], k: 2}", {"a": {"k": 1}, "b": {"k": 2, "n": 3}}),
        ("- 1\n- [2]", [1, [2]]),
        ("", None),
        ("{a: [1, {b: c}]}", {"a": [1, {"b": "c"}]}),
    ],
)  # fmt: skip
def test_read(text: str, value: Any) -> None:
    """Keys are text, and only what YAML 1.2 calls special is."""
    assert parse(text, []) == value


def test_keys_twice_are_noted() -> None:
    """The last one counts, as in JSON."""
    notes: list[str] = []

    assert parse("a: 1\nb: 2\na: 3", notes) == {"a": 3, "b": 2}
    assert notes == ["line 3: the key a is there twice; the last one counts"]


BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    "text",
    ["a: [", "a: b: c", "\ta", "? [a]\n: b", "a: *x", "a: &x [*x]", "--- a\n--- b", BOMB,
     "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "a: \x01"],
)  # fmt: skip
def test_refused(text: str) -> None:
    """What is no YAML, or too much of it."""
    with pytest.raises(UnreadableYaml):
        parse(text, [])
