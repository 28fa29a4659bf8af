"""Warnings: what is valid and almost surely not meant. Few, and right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from gateway.config.address import Address
from gateway.config.explain import secret_paths
from gateway.config.issues import Issue
from gateway.config.model import GatewayConfig, RouteConfig
from gateway.config.nodes import Node, Path, format_path

Locate = Callable[[Path], Node]


def lint(gateway: GatewayConfig, locate: Locate, *, has_deadline: bool) -> list[Issue]:
    """Every warning. `has_deadline` says whether `timeout` is a policy that routes can have."""
    warnings = [
        *_literal_secrets(gateway, locate),
        *_literal_store_password(gateway, locate),
        *_open_proxies(gateway, locate),
        *_useless_tls(gateway, locate),
        *_unprotected_providers(gateway, locate),
    ]
    if not gateway.routes:
        warnings.append(_warning(locate, ("routes",), "there are no routes: every answer is 404"))
    if has_deadline:
        warnings += _endless_routes(gateway, locate)
    return sorted(set(warnings))


def _warning(locate: Locate, path: Path, message: str, hint: str = "") -> Issue:
    node = locate(path)
    return Issue(node.file, node.line, node.column, format_path(path), message, hint)


def _literal_secrets(gateway: GatewayConfig, locate: Locate) -> Iterator[Issue]:
    seen: set[int] = set()
    for path, value in _sections(gateway):
        # Routes share the policies that they inherit: each is looked at once.
        if id(value) in seen:
            continue
        seen.add(id(value))
        for below in secret_paths(value, path):
            if not locate(below).reference:
                hint = "write ${env:NAME} or ${file:/path}"
                yield _warning(locate, below, "a secret stands in the file", hint)


def _literal_store_password(gateway: GatewayConfig, locate: Locate) -> Iterator[Issue]:
    path: Path = ("store", "url")
    if gateway.store.url.has_password and not locate(path).reference:
        hint = "write redis://user:${env:NAME}@host, or ${file:/path} for the whole address"
        yield _warning(locate, path, "a secret stands in the file", hint)


def _sections(gateway: GatewayConfig) -> Iterator[tuple[Path, Any]]:
    yield ("server",), gateway.server
    for name, identity in gateway.identities.items():
        yield ("identities", name), identity
    for name, stream in gateway.streams.items():
        yield ("streams", name), stream
    for name, upstream in gateway.upstreams.items():
        for key in type(upstream).model_fields.keys() - {"policies"}:
            yield ("upstreams", name, key), getattr(upstream, key)
        for key, policy in upstream.policies.items():
            # The policy `upstream_auth` is the key `auth`.
            yield ("upstreams", name, key.removeprefix("upstream_")), policy
    for index, route in enumerate(gateway.routes):
        for key, policy in route.policies.items():
            yield ("routes", index, key), policy
        for position, use in enumerate(route.plugins):
            yield ("routes", index, "plugins", position, "with"), use.config


def _open_proxies(gateway: GatewayConfig, locate: Locate) -> Iterator[Issue]:
    for index, network in enumerate(gateway.server.trusted_proxies):
        if network.prefixlen == 0:
            path: Path = ("server", "trusted_proxies", index)
            message = "every caller is believed about its own address"
            yield _warning(locate, path, message, "name the networks of your proxies")


def _useless_tls(gateway: GatewayConfig, locate: Locate) -> Iterator[Issue]:
    for name, upstream in gateway.upstreams.items():
        if upstream.tls is not None and not any(target.url.tls for target in upstream.targets):
            message = "no target's URL says https, so this has no effect"
            yield _warning(locate, ("upstreams", name, "tls"), message)


def _unprotected_providers(gateway: GatewayConfig, locate: Locate) -> Iterator[Issue]:
    for name, identity in gateway.identities.items():
        jwks = getattr(identity, "jwks", None)
        urls = {"url": getattr(identity, "url", None), "jwks": jwks}
        if jwks is None:
            urls["issuer"] = getattr(identity, "issuer", None)
        for key, url in urls.items():
            if isinstance(url, str) and url.startswith("http://") and not _is_local(url):
                message = "without TLS, whoever is on the way decides who may call"
                yield _warning(locate, ("identities", name, key), message, "write https://")


def _is_local(url: str) -> bool:
    return Address(urlsplit(url).hostname or "", 0).is_loopback


def _endless_routes(gateway: GatewayConfig, locate: Locate) -> Iterator[Issue]:
    for index, route in enumerate(gateway.routes):
        # A route that says null itself streams on purpose.
        deliberate = "timeout" in locate(("routes", index)).value
        if route.upstream is not None and not deliberate and _is_endless(gateway, route):
            message = "neither the route nor its upstream has a timeout"
            hint = "set timeout, or write timeout: null on the route if that is meant"
            yield _warning(locate, ("routes", index), message, hint)


def _is_endless(gateway: GatewayConfig, route: RouteConfig) -> bool:
    return "timeout" not in route.policies and route.upstream in gateway.upstreams
