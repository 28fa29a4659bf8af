"""How the parts of the cache are put together when a route is built."""

from __future__ import annotations

import hashlib
import json

from gateway.policies.base import BuildContext
from gateway.policies.cache import KEY
from gateway.policies.cache.config import CacheConfig
from gateway.policies.cache.fetch import Fetcher, Limits
from gateway.policies.cache.rules import Terms
from gateway.policies.cache.state import CacheState
from gateway.policies.cache.tier import SharedTier


def state_of(context: BuildContext) -> CacheState:
    """What all cached routes of the process share."""
    size = context.server.limits.cache
    state: CacheState = context.shared(
        KEY, lambda: CacheState(size, context.clock, context.metrics)
    )
    return state


def tier_of(context: BuildContext, state: CacheState) -> SharedTier:
    """What all gateways on one store share."""
    store = context.store()
    tier: SharedTier = context.shared(
        ("cache tier", id(store)), lambda: SharedTier(store, state, context.clock)
    )
    return tier


def fetcher_of(config: CacheConfig, state: CacheState, tier: SharedTier | None) -> Fetcher:
    """The way to the upstream, for one route."""
    terms = Terms(
        ttl=config.ttl,
        force=config.force,
        stale_while_revalidate=config.stale_while_revalidate,
        stale_if_error=config.stale_if_error,
    )
    tags = frozenset(tag.encode("ascii") for tag in config.tags)
    limits = Limits(terms, config.max_entry, tags)
    return Fetcher(state, limits, tier.put if tier is not None else None)


def fingerprint(context: BuildContext) -> str:
    """Changes when the same request would be answered otherwise after a reload.

    What is stored under the old configuration of the route is not found any more then.
    """
    config = context.config
    # One look at all routes for each configuration, not one for each route.
    routes = context.shared(
        ("cache routes", id(config)), lambda: {each.name: each for each in config.routes}
    )
    route = routes.get(context.route)
    if route is None:
        return ""
    data = route.model_dump(mode="json", include={"upstream", "rewrite", "respond"})
    for name in ("cache", "headers", "transform", "auth"):
        policy = route.policies.get(name)
        if policy is not None:
            data[name] = policy.model_dump_json()
    upstream = config.upstreams.get(route.upstream or "")
    if upstream is not None:
        data["targets"] = upstream.model_dump_json(include={"targets"})
    text = json.dumps(data, sort_keys=True).encode()
    return hashlib.blake2b(text, digest_size=12).hexdigest()
