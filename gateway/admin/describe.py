"""What a snapshot looks like from outside: its routes and chains, and what a request would meet.

Plain data for the admin API and the command line, free of secrets: what a reference gave is shown
as the reference.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from pydantic import BaseModel

from gateway.admin.control import Explanation, PolicyInfo, RouteInfo, WayInfo
from gateway.config.loader import Configuration
from gateway.config.model import RouteConfig
from gateway.errors import ErrorCode
from gateway.message import Headers, RawHeaders
from gateway.policies.auth.fields import IdentityFields
from gateway.policies.base import Guard, Policy
from gateway.policies.catalog import BUILTIN, config_key
from gateway.policies.terminal import Forward, refusal_of
from gateway.routing.path import PathError, normalise
from gateway.routing.table import host_name
from gateway.runtime import CompiledRoute, Runtime, Snapshot
from gateway.snapshot import Way

_BUILTIN: Final = frozenset({*BUILTIN, IdentityFields.name})


def route_infos(snapshot: Snapshot) -> list[RouteInfo]:
    """Every route of the configuration in its order, those that are not enabled included."""
    compiled = {route.name: route for route in snapshot.routes}
    return [
        _route_info(snapshot.configuration, position, config, compiled.get(config.name))
        for position, config in enumerate(snapshot.configuration.gateway.routes)
    ]


def _route_info(
    configuration: Configuration, position: int, config: RouteConfig, route: CompiledRoute | None
) -> RouteInfo:
    chain = route.policies if route is not None else ()
    at = config.beside if config.beside >= 0 else position
    return RouteInfo(
        name=config.name,
        match=_dump(config.match, exclude_defaults=True),
        enabled=config.enabled,
        upstream=config.upstream or "",
        respond=configuration.mask(_dump(config.respond)) if config.respond else None,
        rewrite=configuration.mask(_dump(config.rewrite)) if config.rewrite else None,
        chain=[
            _policy_info(configuration, each, route.configs) for each in chain if route is not None
        ],
        declared=configuration.locate(f"routes[{at}]"),
        beside=configuration.gateway.routes[at].name if config.beside >= 0 else "",
        ways=[_way_info(configuration, each) for each in (route.ways if route is not None else ())],
    )


def _way_info(configuration: Configuration, way: Way) -> WayInfo:
    chain = [_policy_info(configuration, each, way.configs) for each in way.policies]
    return WayInfo(way.upstream, chain)


def _policy_info(
    configuration: Configuration, policy: Policy, configs: Mapping[str, Any]
) -> PolicyInfo:
    config = configs.get(config_key(policy.name))
    dumped: Any = config.model_dump(mode="json") if isinstance(config, BaseModel) else {}
    # A credential may stand in any string, such as a header that is set: what came from a
    # reference is shown as the reference.
    dumped = configuration.mask(dumped)
    flag = vars(config).get("flag") if isinstance(config, BaseModel) else None
    return PolicyInfo(
        name=policy.name,
        stage=policy.stage.value,
        shape="guard" if isinstance(policy, Guard) else "around",
        mode=getattr(config, "mode", ""),
        plugin=policy.name not in _BUILTIN,
        flag=flag or "",
        config=dumped if isinstance(dumped, dict) else {"value": dumped},
    )


def _dump(model: BaseModel, *, exclude_defaults: bool = False) -> dict[str, Any]:
    text = model.model_dump_json(exclude_defaults=exclude_defaults, by_alias=True)
    dumped: dict[str, Any] = json.loads(text)
    return dumped


def upstream_infos(runtime: Runtime) -> list[dict[str, Any]]:
    """Every upstream: targets and connections, and what stands before them."""
    infos = {name: each.status() for name, each in runtime.snapshot.upstreams.items()}
    for kind, member in (("circuit_breaker", "circuit_breakers"), ("bulkhead", "bulkheads")):
        for key, each in runtime.known(kind):
            if (info := infos.get(str(key[1]))) is not None:
                info.setdefault(member, []).append(each.status())
    for key, budget in runtime.known("retry_budget"):
        if (info := infos.get(str(key[1]))) is not None:
            info["retry_budget"] = budget.status()
    return list(infos.values())


def explain(
    snapshot: Snapshot, method: str, url: str, headers: Iterable[tuple[str, str]] = ()
) -> Explanation:
    """What would happen to a request; nothing is sent. `url` is absolute or starts with a slash."""
    parts = urlsplit(url)
    raw: RawHeaders = [
        (name.lower().encode("latin-1", "replace"), value.encode("latin-1", "replace"))
        for name, value in headers
    ]
    index = dict(raw)
    authority = parts.netloc.rpartition("@")[2].encode("latin-1", "replace")
    host = host_name(authority or index.get(b"host", b""))
    method = method.upper()
    try:
        path = normalise((parts.path or "/").encode("utf-8", "surrogateescape"))
    except PathError as error:
        return _refused(method, url, host, "", error.kind, error.reason)
    match = snapshot.table.match(host, path, method, Headers(raw))
    route = match.value
    if route is None or (match.preflight and not route.answers_preflight):
        refusal = refusal_of(match)
        return _refused(
            method, url, host, path, refusal.kind, refusal.detail, list(match.allowed)
        )  # fmt: skip
    routes = snapshot.configuration.gateway.routes
    position = next(at for at, each in enumerate(routes) if each.name == route.name)
    info = _route_info(snapshot.configuration, position, routes[position], route)
    query = parts.query.encode("utf-8", "surrogateescape")

    def leads_to(forward: Forward | None) -> str:
        if forward is None:
            return ""
        target = forward.target(path, query, match.raw_params).decode("latin-1")
        return str(snapshot.configuration.mask(target))

    target = leads_to(route.forward)
    ways = [
        msgspec.structs.replace(each, target=leads_to(way.forward))
        for each, way in zip(info.ways, route.ways, strict=True)
    ]
    info = msgspec.structs.replace(info, ways=ways)
    return Explanation(
        method=method, url=url, host=host, path=path, route=info, params=dict(match.params),
        target=target,
    )  # fmt: skip


def _refused(  # noqa: PLR0917 - the fields of an Explanation, in its order
    method: str,
    url: str,
    host: str,
    path: str,
    kind: ErrorCode,
    detail: str,
    allow: list[str] | None = None,
) -> Explanation:
    return Explanation(
        method=method,
        url=url,
        host=host,
        path=path,
        status=kind.status,
        code=kind.code,
        detail=detail,
        allow=allow or (),
    )
