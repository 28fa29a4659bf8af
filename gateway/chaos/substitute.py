"""The configuration as it is, with stand-ins where the world around the gateway was.

What is replaced: upstreams' targets, the listener, the store, the keys of identities, the gateway's
own credentials as far as a token endpoint would be asked for them. Everything else is the user's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from gateway.config.model import (
    GatewayConfig,
    IdentityConfig,
    RouteConfig,
    StoreConfig,
    TargetConfig,
    TelemetryConfig,
)
from gateway.config.model_key import MtlsIdentity
from gateway.config.store_url import StoreUrl
from gateway.config.types import Address, parse_cidr
from gateway.policies.auth.policy import AuthConfig
from gateway.policies.delivery.config import DeliveryConfig
from gateway.policies.upstream_auth.config import ClientCredentials, UpstreamAuthConfig
from gateway.runtime import Loaded

FLAG: Final = "flag"
UPSTREAM_AUTH: Final = "upstream_auth"
# Sections that call or listen to the world by themselves, and so have no place in a rehearsal.
_STARTED_ELSEWHERE: Final = frozenset({"schedules", "streams"})


def substitute(
    loaded: Loaded,
    *,
    ports: Mapping[str, list[int]],
    identities: Mapping[str, IdentityConfig],
    store: Path,
    forwarded: bool,
) -> Loaded:
    """The configuration to rehearse. `ports` are the stand-ins' of each upstream.

    `forwarded` has the gateway believe its clients' X-Forwarded-For, where a route's access list
    needs them to come from elsewhere.
    """
    gateway = loaded.configuration.gateway
    changes: dict[str, Any] = {
        "server": _server(gateway, forwarded=forwarded),
        # Nothing is logged, exported or told to anybody; only what is hidden stays hidden.
        "telemetry": TelemetryConfig(access_log=None, redact=gateway.telemetry.redact),
        "store": _store(gateway.store, store),
        "identities": dict(identities),
        "upstreams": {
            name: upstream.model_copy(
                update={
                    "targets": [
                        TargetConfig.model_validate(
                            {
                                "url": f"http://127.0.0.1:{port}",
                                "weight": target.weight,
                                "priority": target.priority,
                            }
                        )
                        for port, target in zip(ports[name], upstream.targets, strict=True)
                    ],
                    "tls": None,
                    "policies": _without_tokens(upstream.policies),
                }
            )
            for name, upstream in gateway.upstreams.items()
        },
        "routes": [_route(route, gateway) for route in gateway.routes],
    }
    for name in _STARTED_ELSEWHERE & GatewayConfig.model_fields.keys():
        changes[name] = {}
    made = gateway.model_copy(update=changes)
    # A copy takes what was computed with it.
    made.__dict__.pop("routes_by_name", None)
    return replace(loaded, configuration=replace(loaded.configuration, gateway=made))


def _route(route: RouteConfig, gateway: GatewayConfig) -> RouteConfig:
    """The route without client certificates, which no client here has, and without streams as
    targets; off if that is all.

    A route that only some may see is there for everybody: it is its failures that are asked for.
    """
    policies = _without_tokens(route.policies)
    policies.pop(FLAG, None)
    changes: dict[str, Any] = {"policies": policies}
    delivery = policies.get("delivery")
    if isinstance(delivery, DeliveryConfig):
        made = policies["delivery"] = _inside(delivery)
        changes["enabled"] = route.enabled and bool(made.to or not delivery.to)
    auth = policies.get("auth")
    if isinstance(auth, AuthConfig):
        rest = without_certificates(auth, gateway)
        changes["enabled"] = changes.get("enabled", route.enabled) and bool(rest)
        policies["auth"] = auth.model_copy(update={"any": rest})
    return route.model_copy(update=changes)


def _inside(delivery: DeliveryConfig) -> DeliveryConfig:
    """The same without what is outside: streams, and whoever is told how events end."""
    letters = delivery.dead_letter.model_copy(update={"alert": False})
    targets = [each for each in delivery.to if each.stream is None]
    changes = {"callback": None, "dead_letter": letters, "to": targets}
    return delivery.model_copy(update=changes)


def without_certificates(auth: AuthConfig, gateway: GatewayConfig) -> list[str]:
    """The identities of a route that don't ask for a client certificate."""
    kinds = gateway.identities
    return [name for name in auth.any if not isinstance(kinds.get(name), MtlsIdentity)]


def asks_for_tokens(policies: Mapping[str, Any]) -> bool:
    """Whether an authorization server would be asked for the gateway's own token."""
    config = policies.get(UPSTREAM_AUTH)
    return isinstance(config, UpstreamAuthConfig) and isinstance(config.root, ClientCredentials)


def _without_tokens(policies: Mapping[str, Any]) -> dict[str, Any]:
    rest = dict(policies)
    if asks_for_tokens(rest):
        del rest[UPSTREAM_AUTH]
    return rest


def _server(gateway: GatewayConfig, *, forwarded: bool) -> Any:
    changes: dict[str, Any] = {
        "listen": Address("127.0.0.1", 0), "admin": None, "workers": 1, "tls": None,
    }  # fmt: skip
    if forwarded:
        changes["trusted_proxies"] = [parse_cidr("127.0.0.0/8")]
    return gateway.server.model_copy(update=changes)


def _store(store: StoreConfig, data: Path) -> StoreConfig:
    return store.model_copy(update={"url": StoreUrl(), "data": data})
