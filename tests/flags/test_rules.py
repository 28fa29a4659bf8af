"""For whom a flag is on, and what is read as one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.model_content import ConsumerConfig
from gateway.config.model_flag import FlagConfig
from gateway.flags.board import InvalidFlag, read_value
from gateway.flags.rules import Rule
from gateway.message import Exchange, Headers, Principal, Request

KNOWN = {"crm": ConsumerConfig(tags=["beta"]), "erp": ConsumerConfig()}


def exchange(consumer: str = "", client: str = "", **fields: str) -> Exchange:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]
    made = Exchange(Request("GET", "/", b"", Headers(pairs)), 0.0)
    made.request.client = client
    made.principal = Principal(consumer) if consumer else None
    return made


def rule(value: Any) -> Rule:
    return Rule("new", read_value(value), KNOWN)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ("on", "on"), (True, "on"), ("100%", "on"), ("off", "off"), (False, "off"), ("0%", "off"),
        ("12.5%", "12.5%"), ({"percent": 0.1}, "10%"), ({}, "off"),
        ({"tags": ["beta"], "percent": "5%"}, {"tags": ["beta"], "percent": "5%"}),
        ({"consumers": ["crm"], "header": {"X-New": "1"}},
         {"consumers": ["crm"], "header": {"X-New": "1"}}),
    ],
)  # fmt: skip
def test_what_is_read(value: Any, plain: Any) -> None:
    """Every way to write a flag, and the one way to show it, which is read as the same."""
    assert read_value(value).plain() == plain
    assert read_value(plain) == read_value(value)


@pytest.mark.parametrize("value", ["of", "101%", 1, None, [], {"percent": 2}, {"group": []}, "x%"])
def test_what_is_refused(value: Any) -> None:
    """Said in a sentence."""
    with pytest.raises(InvalidFlag, match=r".+"):
        read_value(value)


def test_groups() -> None:
    """By name, by tag, by field; all that is given must hold."""
    tagged = rule({"tags": ["beta"], "consumers": ["web"]})
    assert tagged.takes(exchange("crm"))
    assert tagged.takes(exchange("web"))
    assert not tagged.takes(exchange("erp"))
    assert not tagged.takes(exchange())
    both = rule({"consumers": ["crm"], "header": {"X-New": "1"}})
    assert both.takes(exchange("crm", x_new="1"))
    assert not both.takes(exchange("crm", x_new="2"))
    assert not both.takes(exchange("erp", x_new="1"))
    assert not both.is_for_none


@given(st.floats(0, 1), st.floats(0, 1), st.text(min_size=1, max_size=9))
def test_a_growing_share_loses_nobody(one: float, other: float, consumer: str) -> None:
    """For consumers and for addresses."""
    low, high = (Rule("new", FlagConfig(percent=share), {}) for share in sorted((one, other)))
    for caller in (exchange(consumer), exchange(client=consumer)):
        if low.takes(caller):
            assert high.takes(caller)


def test_all_and_nobody() -> None:
    """Whoever it is; and who can't be told from others is in no share."""
    nameless = exchange()
    assert rule("on").takes(nameless)
    assert not rule("off").takes(nameless)
    assert not rule("99.9%").takes(nameless)
    assert 20 < sum(rule("30%").takes(exchange(f"c{number}")) for number in range(100)) < 40
