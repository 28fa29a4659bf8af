"""What may be written under rate_limit, and what is said of mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from gateway.config.loader import ConfigErrors
from gateway.config.rates import AnyRate, SteadyRate, parse_rate
from gateway.policies.rate_limit.config import RateLimitConfig
from tests.support.gateway import load

RATES = TypeAdapter(AnyRate)


@pytest.mark.parametrize(
    ("text", "count", "period_us", "calendar"),
    [
        ("100/s", 100, 1_000_000, ""),
        ("5000/m", 5000, 60_000_000, ""),
        ("1000000/30d", 1_000_000, 30 * 86_400_000_000, ""),
        ("1/250ms", 1, 250_000, ""),
        ("3 / 2h", 3, 7_200_000_000, ""),
        ("10000/day", 10_000, 0, "day"),
        ("1/month", 1, 0, "month"),
    ],
)
def test_rates(text: str, count: int, period_us: int, calendar: str) -> None:
    """A number and a stretch of time, or a day or month of the calendar."""
    rate = parse_rate(text)

    assert (rate.count, rate.period_us, rate.calendar) == (count, period_us, calendar)
    assert RATES.dump_python(rate, mode="json") == text.replace(" ", "")


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("100", "write 100/s"), (100, "write 100/s"), ("100/min", "did you mean 100/m?"),
        ("5/hour", "did you mean 5/h?"), ("5/week", "did you mean 5/7d?"), ("5/2day", "write 5/2d"),
        ("5/2month", "write 5/month"), ("5/2weeks", ""), ("1.5/s", ""), ("-1/s", ""), ("0/s", ""),
        ("5/0s", ""), ("5/400d", ""), ("5/", ""), ("/s", ""), ("", ""), (None, ""), (True, ""),
        ("9999999999999/s", ""), ("5/M", ""), ("\u0665/s", ""), ("1e3/s", ""), ("5/s/s", ""),
    ],
)  # fmt: skip
def test_what_is_no_rate(value: Any, hint: str) -> None:
    """Refused, with what was probably meant."""
    with pytest.raises(ValidationError) as caught:
        RATES.validate_python(value)
    [error] = caught.value.errors()
    assert error["ctx"]["hint"] == hint


def test_a_rate_without_a_calendar() -> None:
    """Where a rate must be steady, a day is 1d."""
    steady = TypeAdapter(SteadyRate)
    assert steady.validate_python("5/s").count == 5
    with pytest.raises(ValidationError, match="calendar"):
        steady.validate_python("5/day")


def test_defaults() -> None:
    """A rate is enough; the burst is its own number."""
    [limit] = RateLimitConfig.model_validate({"rate": "100/s"}).limits

    assert (limit.per, limit.cost, limit.on_store_error) == ("consumer", 1, "local")
    assert (limit.headers, limit.mode, limit.label) == ("standard", "enforce", "consumer-s")


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ({"rate": "100/s", "burst": 200}, 2000),
        ({"rate": "100/s"}, None),
        ({"rate": "7/s", "burst": 3}, 429),
        ({"rate": "6000/m", "burst": 200}, 2000),
        ({"rate": "100/day"}, None),
    ],
)
def test_burst_of_a_tier(limit: dict[str, Any], expected: int | None) -> None:
    """In proportion to the rate, rounded up, unless it has its own."""
    [config] = RateLimitConfig.model_validate(limit | {"tiers": {"gold": "1000/s"}}).limits
    assert config.burst_of("gold") == expected

    tiers = {"gold": {"rate": "1000/s", "burst": 5}}
    [config] = RateLimitConfig.model_validate(limit | {"tiers": tiers}).limits
    assert config.burst_of("gold") == 5


HEAD = """\
routes:
  - name: a
    match: {path: /a}
    respond: {status: 204}
    rate_limit: """


@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        ("{}", "routes[0].rate_limit.rate: required, and not there"),
        ("100/s", "expected a mapping"),
        ("[]", "must not be empty"),
        ("{rate: 100}", "expected a rate such as 100/s"),
        ("{rate: 100/min}", "did you mean 100/m?"),
        ("{rate: 10/s, per: user}", "expected one of consumer, ip, route, header:NAME"),
        ("{rate: 10/s, per: header}", "say which, as in header:X-Tenant"),
        ("{rate: 10/s, cost: 11}", "none could ever pass"),
        ("{rate: 10/s, burst: 0}", "must be at least 1"),
        ("{rate: 10/s, cost: 2, tiers: {free: 1/s}}", "tier free: a request costs 2"),
        ("{rate: 10/day, burst: 5}", "a quota by day has no burst"),
        ("{rate: 1/s, tiers: {gold: {rate: 10/day, burst: 5}}}", "a quota by day has no burst"),
        ("{rate: 1/366d, burst: 11}", "more than ten years"),
        ("{rate: 10/s, tiers: {gold: 100}}", "routes[0].rate_limit.tiers.gold"),
        ("{rate: 10/s, brust: 1}", 'did you mean "burst"?'),
        ("[{rate: 10/s}, {rate: 20/s}]", "two limits are called consumer-s"),
        ("[{rate: 10/s}, {rate: x}]", "routes[0].rate_limit[1].rate"),
        ("[{rate: 10/s}, {rate: 9/m, headers: legacy}]", "one style of fields"),
        ("{rate: 10/s, on_store_error: pass}", "local, open, closed"),
    ],
)
def test_mistakes(tmp_path: Path, yaml: str, said: str) -> None:
    """Each with its place in the file, once, and no other complaint beside it."""
    with pytest.raises(ConfigErrors) as caught:
        load(tmp_path, f"{HEAD}{yaml}\n")

    assert said in str(caught.value), caught.value
    assert len(caught.value.issues) == 1, caught.value


def test_null_switches_off(tmp_path: Path) -> None:
    """A route of a profile may have no limit."""
    text = f"defaults: {{rate_limit: {{rate: 1/s}}}}\n{HEAD}null\n"
    [route] = load(tmp_path, text).configuration.gateway.routes

    assert "rate_limit" not in route.policies
