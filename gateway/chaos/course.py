"""What of the configuration a scenario is about: which routes, which of them in trouble."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from gateway.chaos.scenario import Scenario
from gateway.config.model import GatewayConfig, RouteConfig
from gateway.config.model_key import WebhookIdentity
from gateway.policies.auth.policy import AuthConfig

# What asks the store on the way of a request.
_STORE_POLICIES = frozenset({"rate_limit", "cache", "idempotency", "delivery"})
# Tells of events that were accepted; a rehearsal knows none of their ids.
_STATUS_POLICY = "delivery_status"


def chosen(gateway: GatewayConfig, scenario: Scenario, only: Collection[str]) -> list[RouteConfig]:
    """The routes that are asked for: those that are on, `only` these if any are named."""
    return [
        route
        for route in gateway.routes
        if route.enabled
        and _STATUS_POLICY not in route.policies
        and route.name not in scenario.skip
        and (not only or route.name in only)
    ]


def in_trouble(route: RouteConfig, gateway: GatewayConfig, scenario: Scenario) -> bool:
    """Whether a scenario troubles what the route needs: its upstream, the store, or the load."""
    for phase in scenario.phases:
        if phase.load is not None or (phase.store != "up" and uses_store(route, gateway)):
            return True
        if any(not scenario.trouble(phase, name).is_healthy for name in upstreams_of(route)):
            return True
    return False


def upstreams_of(route: RouteConfig) -> list[str]:
    """Where its requests may go: its upstream, and that of a canary."""
    canary = getattr(route.policies.get("canary"), "upstream", None)
    return [name for name in (route.upstream, canary) if isinstance(name, str)]


def uses_store(route: RouteConfig, gateway: GatewayConfig) -> bool:
    """Whether its requests are decided with the store."""
    auth = route.policies.get("auth")
    names = auth.any if isinstance(auth, AuthConfig) else []
    signed = any(isinstance(gateway.identities.get(name), WebhookIdentity) for name in names)
    return signed or bool(_STORE_POLICIES & route.policies.keys())


def calls_of(route: RouteConfig, calls: Mapping[str, Mapping[int, int]]) -> dict[int, int]:
    """How often upstreams saw each request of a route. What a mirror got is no amplification."""
    mirror = getattr(route.policies.get("mirror"), "upstream", None)
    found: dict[int, int] = {}
    for upstream, counts in calls.items():
        if upstream == mirror and upstream not in upstreams_of(route):
            continue
        for number, count in counts.items():
            found[number] = found.get(number, 0) + count
    return found
