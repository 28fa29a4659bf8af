"""The request that events of a schedule or a stream begin as: one that the route would match."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from gateway.config.model_route import RouteConfig
from gateway.config.model_source import MadeRequest
from gateway.delivery.entrance import Blank
from gateway.errors import ConfigError
from gateway.routing.path import PathError, normalise
from gateway.routing.template import Template, TemplateError, decode


def make_blank(
    config: MadeRequest, route: RouteConfig, place: str, headers: Mapping[str, str]
) -> Blank:
    """The request, as far as it is the same for all events. Raises ConfigError at `place`."""
    methods = route.match.methods
    method = config.method
    if method is None:
        method = "POST" if methods is None or "POST" in methods else methods[0]
    elif methods is not None and method not in methods:
        message = f"the route {route.name} takes {', '.join(methods)}"
        raise ConfigError(message, f"{place}.method", whole=True)
    path, raw = _path(config, route, place)
    host = route.match.host or ""
    fields = tuple(
        (name.lower().encode("ascii"), value.encode("latin-1", "replace"))
        for name, value in headers.items()
    )
    return Blank(
        route=route.name,
        method=method,
        path=path,
        query=urlencode(config.query).encode("ascii"),
        host="" if "*" in host else host,
        params=decode(dict(raw)),
        raw_params=raw,
        headers=fields,
    )


def _path(config: MadeRequest, route: RouteConfig, place: str) -> tuple[str, Mapping[str, str]]:
    """The path, and the route's parameters in it. Raises ConfigError."""
    given = config.path
    try:
        template = Template(route.match.path)
        if given is None:
            if not template.is_literal:
                message = f"needs a path: {route.match.path} has parameters"
                raise ConfigError(message, place, whole=True)
            return template.shape, {}
        path = normalise(given.encode("utf-8"))
    except (PathError, TemplateError) as error:
        raise ConfigError(error.reason, f"{place}.path", whole=True) from None
    segments = path[1:].split("/")
    fixed = len(template.segments)
    fits = len(segments) > fixed if template.rest else len(segments) == fixed
    if not fits or not all(
        segment == literal or (literal is None and segment)
        for segment, literal in zip(segments, template.segments, strict=False)
    ):
        message = f"the route {route.name} does not take this path, but {route.match.path}"
        raise ConfigError(message, f"{place}.path", whole=True)
    return path, template.capture(segments)
