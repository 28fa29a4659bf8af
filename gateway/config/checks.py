"""What one part of the configuration says of another: names that must exist, and exist once.

Works on nodes, so that every complaint has its place, and a section that is itself broken does not
make its name unknown.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Final

from gateway.config.include import top_level
from gateway.config.model import RouteConfig, ServerConfig
from gateway.config.nodes import Node, Path, walk
from gateway.config.suggest import did_you_mean
from gateway.config.validate import Validator

_PARAMETER: Final = re.compile(r"\{([^{}:]+)(?::[^{}]*)?\}")


def check_server(server: ServerConfig, root: Node, validator: Validator) -> None:
    """The admin listener must not be open to the world without a token."""
    admin = server.admin
    if admin is None:
        return
    node, _ = walk(root, ("server", "admin"))
    path: Path = ("server", "admin")
    if admin == server.listen and (admin.is_unix or admin.port):
        validator.report(node, path, "admin and listen are the same address")
    if not admin.is_loopback and server.admin_token is None:
        message = "an admin listener that others can reach needs server.admin_token"
        validator.report(node, path, message, "or listen on 127.0.0.1 or unix:/path")


def check_names(root: Node, routes: Node, validator: Validator, *, complete: bool) -> None:
    """Route names are unique; the upstreams and profiles that routes name exist."""
    upstreams = _names(root, "upstreams")
    profiles = _names(root, "profiles")
    first: dict[str, Node] = {}
    for index, route in enumerate(routes.value):
        if not isinstance(route.value, dict):
            continue
        path: Path = ("routes", index)
        name = route.value.get("name")
        if name is not None and isinstance(name.value, str):
            _check_unique(name, first, (*path, "name"), validator)
        if complete:
            _check_name(route.value.get("upstream"), upstreams, "upstream", path, validator)
            _check_uses(route.value.get("use"), profiles, path, validator)


def _names(root: Node, key: str) -> frozenset[str]:
    node = top_level(root, key)
    return (
        frozenset(node.value)
        if node is not None and isinstance(node.value, dict)
        else (frozenset())
    )


def _check_unique(name: Node, first: dict[str, Node], path: Path, validator: Validator) -> None:
    other = first.setdefault(name.value, name)
    if other is not name:
        what = "this name" if name.reference else f'the name "{name.value}"'
        validator.report(name, path, f"{what} is already taken by the route at {other.position}")


def _check_name(
    node: Node | None, known: frozenset[str], kind: str, path: Path, validator: Validator
) -> None:
    if node is None or not isinstance(node.value, str) or node.value in known or node.broken:
        return
    _dangling(node, known, kind, (*path, kind), validator)


def _check_uses(node: Node | None, known: frozenset[str], path: Path, validator: Validator) -> None:
    if node is None or not isinstance(node.value, list):
        return
    for index, entry in enumerate(node.value):
        if isinstance(entry.value, str) and entry.value not in known and not entry.broken:
            _dangling(entry, known, "profile", (*path, "use", index), validator)


def _dangling(
    node: Node, known: frozenset[str], kind: str, path: Path, validator: Validator
) -> None:
    shown = "of this name" if node.reference else f'"{node.value}"'
    hint = "" if node.reference else did_you_mean(node.value, known)
    validator.report(node, path, f"there is no {kind} {shown}", hint)


def check_events(
    root: Node, routes: Sequence[RouteConfig], taking: Collection[str], validator: Validator
) -> None:
    """Schedules and streams name routes that take events: those with one of these policies."""
    by_name = {route.name: route for route in routes}
    able = [name for name, route in by_name.items() if any(key in route.policies for key in taking)]
    for section in ("schedules", "streams"):
        node = top_level(root, section)
        if node is None or not isinstance(node.value, dict):
            continue
        for key, each in node.value.items():
            named = each.value.get("route") if isinstance(each.value, dict) else None
            if named is None or not isinstance(named.value, str) or named.broken:
                continue
            path: Path = (section, key, "route")
            if named.value not in by_name:
                _dangling(named, frozenset(able or by_name), "route", path, validator)
            elif named.value not in able:
                keys = " or ".join(f"{name}:" for name in sorted(taking))
                hint = f"give it {keys}" if keys else ""
                message = "the route is not an asynchronous one, and takes no events"
                validator.report(named, path, message, hint)


def check_destination(node: Node, path: Path, validator: Validator) -> None:
    """What a route that is wrong in other ways leaves unchecked: the same words as its model's."""
    upstream, respond = (node.value.get(key) for key in ("upstream", "respond"))
    has_upstream = upstream is not None and upstream.value is not None
    has_respond = respond is not None and respond.value is not None
    if has_upstream and has_respond:
        validator.report(node, path, "upstream and respond can't both be given")
    elif not (has_upstream or has_respond or _delivers(node) or _is_broken(upstream, respond)):
        validator.report(node, path, "needs upstream or respond")


def _delivers(node: Node) -> bool:
    delivery = node.value.get("delivery")
    return delivery is not None and delivery.value is not None


def _is_broken(*nodes: Node | None) -> bool:
    return any(node is not None and node.broken for node in nodes)


def check_rewrite(route: RouteConfig, node: Node, path: Path, validator: Validator) -> None:
    """A rewritten path uses only what the matched path captures."""
    if route.rewrite is None or route.rewrite.path is None:
        return
    captured = set(_PARAMETER.findall(route.match.path))
    for name in _PARAMETER.findall(route.rewrite.path):
        if name not in captured:
            target, _ = walk(node, ("rewrite", "path"))
            message = "a parameter here is not one of match.path"
            if not target.reference:
                message = f"match.path has no parameter {{{name}}}"
            validator.report(target, (*path, "rewrite", "path"), message)
