"""The limits of a route, compiled for callers of one tier: all that is known before a request.

The keys of one request share a hash tag, so that a cluster keeps them in one place and one call can
decide them together. Where all limits of a route are per the same thing, the tag is the route and
the caller, and the callers of a route are spread over a cluster. Where they differ, nothing but the
route is common to them, and the route's buckets are all on one node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from gateway.message import Exchange
from gateway.observability.families import Counts
from gateway.policies.rate_limit.config import LimitConfig
from gateway.policies.rate_limit.decide import Bucket, Limit, Quota
from gateway.policies.rate_limit.fields import Write, legacy_fields, standard_fields
from gateway.policies.rate_limit.keys import ValueOf, value_of

NO_TIER: Final = ""


@dataclass(frozen=True)
class RouteFacts:
    """What all plans of a route share. `prefix` is what the store's keys begin with."""

    name: str
    prefix: bytes
    counts: Counts


class Tally:
    """Counts the decisions of one limit. `passed` are the labels of what passed by the store; the
    rest are looked up by name. Adding to `values` directly saves a call for each request.
    """

    __slots__ = ("_route_and_limit", "passed", "values")

    def __init__(self, counts: Counts, route: str, limit: str) -> None:
        self.values = counts.values
        self._route_and_limit = (route, limit)
        self.passed = (route, limit, "passed", "store")

    def add(self, decision: str, by: str) -> None:
        """Count one: passed, refused or reported; by store, local or none."""
        labels = (*self._route_and_limit, decision, by)
        self.values[labels] = self.values.get(labels, 0) + 1


@dataclass(frozen=True)
class Plan:
    """`limits[i]` has its name, tally and the rest at place i of the other sequences.

    `head`, the caller's value and `tail` make a key. `value` finds the caller if all limits are per
    the same thing, else `values` do. `args` is what the script gets, `shown` the places of the
    limits that callers are told of, and `local` what decides without the store.
    """

    names: tuple[str, ...]
    rates: tuple[str, ...]
    limits: tuple[Limit, ...]
    enforced: tuple[bool, ...]
    tallies: tuple[Tally, ...]
    heads: tuple[bytes, ...]
    tails: tuple[bytes, ...]
    value: ValueOf | None
    values: tuple[ValueOf, ...]
    args: tuple[bytes]
    shown: tuple[int, ...]
    write: Write | None
    local: LocalPlan | None = None

    def keys(self, exchange: Exchange) -> tuple[bytes, ...]:
        """The keys of the buckets that this request takes from."""
        if self.value is None:
            parts = zip(self.heads, self.values, strict=True)
            return tuple([head + value(exchange) for head, value in parts])
        value = self.value(exchange)
        if len(self.tails) == 1:
            return (self.heads[0] + value + self.tails[0],)
        begin = self.heads[0] + value
        return tuple([begin + tail for tail in self.tails])


@dataclass(frozen=True)
class LocalPlan:
    """What is done without the store: `counted` of the limits by this process's share, `opened`
    not at all, and for the `closed` ones the request is refused.

    `plan` is that of the counted ones; each is a sequence of places in the whole plan.
    """

    plan: Plan
    counted: tuple[int, ...]
    opened: tuple[int, ...]
    closed: tuple[int, ...]
    refuses: bool


def make_plans(
    configs: Sequence[LimitConfig], route: RouteFacts, workers: int
) -> Mapping[str, Plan]:
    """A plan by tier; the one of NO_TIER is for callers of every tier that is not there."""
    tiers = {tier for config in configs for tier in config.tiers}
    return {tier: _plan(configs, tier, route, workers) for tier in {NO_TIER, *tiers}}


def _plan(configs: Sequence[LimitConfig], tier: str, route: RouteFacts, workers: int) -> Plan:
    limits = [_limit(config, tier) for config in configs]
    whole = _assemble(configs, limits, tier, route)
    shares = [
        limit.share(workers * config.replicas)
        for limit, config in zip(limits, configs, strict=True)
    ]
    places: dict[str, tuple[int, ...]] = {
        kind: tuple(at for at, config in enumerate(configs) if config.on_store_error == kind)
        for kind in ("local", "open", "closed")
    }
    counted = places["local"]
    own = [configs[place] for place in counted]
    plan = _assemble(own, [shares[place] for place in counted], tier, route)
    refuses = any(configs[place].mode == "enforce" for place in places["closed"])
    local = LocalPlan(plan, counted, places["open"], places["closed"], refuses)
    return replace(whole, local=local)


def _limit(config: LimitConfig, tier: str) -> Limit:
    rate, burst = config.rate, config.burst
    if tier in config.tiers:
        rate, burst = config.tiers[tier].rate, config.burst_of(tier)
    if rate.calendar:
        return Quota(rate.count, rate.calendar, config.cost)
    return Bucket(rate.count, rate.period_us, burst or rate.count, config.cost)


def _assemble(
    configs: Sequence[LimitConfig],
    limits: Sequence[Limit],
    tier: str,
    route: RouteFacts,
) -> Plan:
    alike = len({config.per for config in configs}) == 1
    # A name and a tier hold no colon and no brace, so that no caller's value can look like them.
    suffixes = [
        f"{limit.kind}:{config.label}:{tier if tier in config.tiers else NO_TIER}".encode("ascii")
        for config, limit in zip(configs, limits, strict=True)
    ]
    head = b"%b:limit:{%b" % (route.prefix, route.name.encode("ascii"))
    values = tuple(value_of(config.per) for config in configs)
    return Plan(
        names=tuple(config.label for config in configs),
        rates=tuple(
            str(config.tiers[tier].rate if tier in config.tiers else config.rate)
            for config in configs
        ),
        limits=tuple(limits),
        enforced=tuple(config.mode == "enforce" for config in configs),
        tallies=tuple(Tally(route.counts, route.name, config.label) for config in configs),
        heads=tuple(head + b":" if alike else b"%b}%b:" % (head, each) for each in suffixes),
        tails=tuple(b"}" + each if alike else b"" for each in suffixes),
        value=values[0] if alike else None,
        values=values,
        args=(_argument(configs, limits),),
        shown=tuple(at for at, config in enumerate(configs) if config.headers != "none"),
        write=_writer(configs, limits),
    )


def _argument(configs: Sequence[LimitConfig], limits: Sequence[Limit]) -> bytes:
    """What the script gets, in MessagePack."""
    return msgspec.msgpack.encode(
        [
            (limit.kind, config.mode == "enforce", *limit.args)
            for config, limit in zip(configs, limits, strict=True)
        ]
    )


def _writer(configs: Sequence[LimitConfig], limits: Sequence[Limit]) -> Write | None:
    shown = [at for at, config in enumerate(configs) if config.headers != "none"]
    if not shown:
        return None
    if configs[shown[0]].headers == "legacy":
        return legacy_fields(limits)
    return standard_fields([config.label for config in configs], limits, shown)
