"""Files in, a `Configuration` or every error out. The one way into this package.

The order: files and includes, references, plugins, then each section against its model, then what
one section says of another, then warnings.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, Final

from gateway.config import later
from gateway.config.base import Catalog, Model, PolicySpec
from gateway.config.checks import (
    check_destination,
    check_events,
    check_names,
    check_rewrite,
    check_server,
)
from gateway.config.include import Sources, top_level
from gateway.config.issues import ConfigErrors, Issue
from gateway.config.layers import Layers
from gateway.config.lint import lint
from gateway.config.model import (
    GatewayConfig,
    RouteConfig,
    ServerConfig,
    StoreConfig,
    TelemetryConfig,
    UpstreamConfig,
)
from gateway.config.nodes import Node, Path, parse_path, plain, walk
from gateway.config.references import References
from gateway.config.sections import NAMED_SECTIONS, content_files, read_named
from gateway.config.suggest import unknown_key
from gateway.config.validate import Validator
from gateway.errors import ConfigError

__all__ = ["ConfigErrors", "Configuration", "Issue", "load"]

_ROUTE_FIELDS: Final = frozenset(RouteConfig.model_fields) - {"policies", "plugins", "elsewhere"}


@dataclass(frozen=True, slots=True)
class Configuration:
    """A configuration that can be used.

    `files` are all that were read: sources, files of references, plugins. `directories` are those
    where a new file would be included. `fingerprint` changes whenever any of it, or a referenced
    value, does. `content` holds the files of models and contracts, by path, as they were read.
    """

    gateway: GatewayConfig = field(repr=False)
    files: list[FilePath]
    directories: list[FilePath]
    fingerprint: str
    warnings: list[Issue]
    base_dir: FilePath
    _root: Node = field(repr=False)
    _secrets: dict[str, str] = field(repr=False)
    content: dict[str, bytes] = field(default_factory=dict, repr=False)

    def locate(self, path: str) -> str:
        """Where `path`, such as `routes[2].cors`, was written: `file:line:column`.

        A policy that a route inherits is found in its profile or in the defaults; what stands
        nowhere, at the deepest key above it.
        """
        return find(self._root, parse_path(path)).position

    def parts(self) -> list[object]:
        """What a large configuration is made of, for whoever takes its time to let go of it."""
        node = top_level(self._root, "routes")
        nodes = node.value if node is not None and isinstance(node.value, list) else []
        return [*self.gateway.routes, *nodes]

    def mask(self, data: Any) -> Any:
        """Dumped data, fit to be shown: what a reference gave is replaced by the reference."""
        if isinstance(data, dict):
            return {key: self.mask(value) for key, value in data.items()}
        if isinstance(data, list | tuple):
            return [self.mask(value) for value in data]
        if isinstance(data, str):
            for value, name in self._secrets.items():
                data = data.replace(value, name)
        return data


def load(
    path: str | os.PathLike[str], catalog: Catalog, environ: Mapping[str, str]
) -> Configuration:
    """Read the configuration at `path`. Raises ConfigErrors with everything that is wrong."""
    file = os.fspath(path)
    base_dir = FilePath(file.replace("\0", "")).absolute().parent
    issues: list[Issue] = []
    references = References(environ, base_dir)
    sources = Sources(references, issues)
    sources.read(file)
    if sources.root is None:
        raise ConfigErrors(issues)
    return _Loader(sources, references, base_dir, issues).load(catalog)


class _Loader:
    """One run over one tree of nodes."""

    def __init__(
        self, sources: Sources, references: References, base_dir: FilePath, issues: list[Issue]
    ) -> None:
        assert sources.root is not None
        self._root = sources.root
        self._sources = sources
        self._references = references
        self._base_dir = base_dir
        self._issues = issues
        self._validator = Validator(base_dir, issues, references.environ)
        self._complete = sources.complete
        self._content: list[FilePath] = []
        self._known: Mapping[str, PolicySpec] = {}

    def load(self, catalog: Catalog) -> Configuration:
        self._known = specs = self._specs(catalog)
        layers = Layers(specs, self._validator, complete=self._complete)
        sections: dict[str, Any] = {
            "server": self._server(),
            "telemetry": self._telemetry(),
            "store": self._store(),
            "upstreams": self._upstreams(layers),
        }
        for key in NAMED_SECTIONS:
            sections[key] = read_named(key, self._section(key), self._validator) or None
        self._content = content_files(sections)
        self._read_layers(layers)
        sections["defaults"] = layers.defaults.as_mapping()
        sections["profiles"] = {name: layer.as_mapping() for name, layer in layers.profiles.items()}
        sections["routes"] = self._routes(layers)
        gateway = self._assemble(sections)
        if self._issues or gateway is None:
            raise ConfigErrors(self._issues)
        warnings = lint(
            gateway, lambda path: find(self._root, path), has_deadline="timeout" in specs
        )
        files = [FilePath(name).absolute() for name in self._sources.contents]
        files += [*self._references.files, *self._plugin_files(gateway.plugins), *self._content]
        return Configuration(
            gateway=gateway,
            files=files,
            directories=self._sources.directories,
            fingerprint=self._fingerprint(gateway.plugins),
            warnings=warnings,
            base_dir=self._base_dir,
            _root=self._root,
            _secrets=self._references.secrets(),
        )

    def _specs(self, catalog: Catalog) -> Mapping[str, PolicySpec]:
        """Every policy; the built-in ones alone if a plugin can't be loaded."""
        node = top_level(self._root, "plugins")
        given: list[Node] = node.value if node is not None and isinstance(node.value, list) else []
        # What is no text is reported elsewhere; the others keep their places in the list.
        places = [at for at, child in enumerate(given) if isinstance(child.value, str)]
        names = [given[at].value for at in places]
        try:
            return catalog(names, self._base_dir)
        except ConfigErrors as error:
            self._issues += error.issues
        except ConfigError as error:
            path = parse_path(error.path) or ("plugins",)
            if len(path) > 1 and isinstance(path[1], int):
                path = ("plugins", places[path[1]], *path[2:])
            found, _ = walk(self._root, path)
            message = error.message
            if found.reference:
                # The name itself may be a secret, like everything that a reference gives.
                message = f"the plugin that {found.reference} names can't be loaded"
            self._validator.report(found, path, message)
        self._complete = False
        return catalog([], self._base_dir)

    def _section(self, key: str) -> Node | None:
        node: Node | None = top_level(self._root, key)
        return node

    def _server(self) -> ServerConfig | None:
        node = self._section("server")
        if node is None:
            return ServerConfig()
        server = self._validator.validate(ServerConfig, node, ("server",))
        if server is not None:
            check_server(server, self._root, self._validator)
        return server

    def _telemetry(self) -> TelemetryConfig | None:
        node = self._section("telemetry")
        if node is None:
            return TelemetryConfig()
        data = self._without_later(node, later.TELEMETRY, ("telemetry",))
        return self._validator.validate(TelemetryConfig, node, ("telemetry",), data)

    def _store(self) -> StoreConfig | None:
        node = self._section("store")
        if node is None:
            return None
        return self._validator.validate(StoreConfig, node, ("store",))

    def _upstreams(self, layers: Layers) -> dict[str, UpstreamConfig]:
        node = self._section("upstreams")
        if node is None:
            return {}
        if not isinstance(node.value, dict):
            self._validator.report(node, ("upstreams",), "expected a mapping of upstreams by name")
            return {}
        upstreams: dict[str, UpstreamConfig] = {}
        for name, child in node.value.items():
            path: Path = ("upstreams", name)
            data = plain(child)
            if isinstance(data, dict):
                data = {
                    key: value for key, value in data.items() if key not in layers.upstream_keys
                }
                if policies := layers.read_upstream(name, child, path):
                    data["policies"] = policies
            upstream = self._validator.validate(UpstreamConfig, child, path, data)
            if upstream is not None:
                upstreams[name] = upstream
        return upstreams

    def _without_later(self, node: Node, names: frozenset[str], path: Path) -> Any:
        """The node's data without keys that are not available yet; each is complained about."""
        data = plain(node)
        if isinstance(data, dict):
            for key in names & data.keys():
                self._validator.report_key(node, (*path, key), later.MESSAGE)
                del data[key]
        return data

    def _read_layers(self, layers: Layers) -> None:
        defaults = self._section("defaults")
        if defaults is not None:
            layers.read_defaults(defaults)
        profiles = self._section("profiles")
        if profiles is not None:
            layers.read_profiles(profiles)

    def _routes(self, layers: Layers) -> list[RouteConfig]:
        node = self._section("routes")
        if node is None:
            self._check_events([])
            return []
        if not isinstance(node.value, list):
            self._validator.report(node, ("routes",), "expected a list of routes")
            return []
        routes = [self._route(child, ("routes", i), layers) for i, child in enumerate(node.value)]
        check_names(self._root, node, self._validator, complete=self._sources.complete)
        found = [route for route in routes if route is not None]
        if len(found) == len(routes):
            self._check_events(found)
            found += self._companions(found, node)
        return found

    def _check_events(self, routes: list[RouteConfig]) -> None:
        if self._complete and self._sources.complete:
            taking = {key for key, spec in self._known.items() if spec.takes_events}
            check_events(self._root, routes, taking, self._validator)

    def _companions(self, routes: list[RouteConfig], node: Node) -> list[RouteConfig]:
        """The routes that stand beside those with certain policies."""
        makers = [(key, spec.companion) for key, spec in self._known.items() if spec.companion]
        names = {route.name for route in routes}
        found: list[RouteConfig] = []
        for key, make in makers:
            for position, route in enumerate(routes):
                made = make(route, route.policies[key]) if key in route.policies else None
                if made is None:
                    continue
                if made.name in names:
                    message = f'the route of its {key} would be "{made.name}", which another one is'
                    path = ("routes", position, "name")
                    self._validator.report(node.value[position].value["name"], path, message)
                made._beside = position
                found.append(made)
        return found

    def _route(self, node: Node, path: Path, layers: Layers) -> RouteConfig | None:
        if not isinstance(node.value, dict):
            self._validator.report(node, path, "expected a mapping with name, match and more")
            return None
        own, rest = layers.split(node, path, _ROUTE_FIELDS)
        for key in rest:
            known = _ROUTE_FIELDS | layers.keys
            self._issues.append(unknown_key(node, path, key, known))
        data = {key: plain(node.value[key]) for key in node.value if key in _ROUTE_FIELDS}
        uses = data.get("use")
        names = (
            tuple(name for name in uses if isinstance(name, str))
            if (isinstance(uses, list))
            else ()
        )
        upstream = data.get("upstream")
        upstream = upstream if isinstance(upstream, str) else ""
        data["policies"], data["plugins"] = layers.merge(own, names, upstream)
        data["elsewhere"] = layers.elsewhere(
            data["policies"], data["plugins"], own, names, upstream
        )
        # What is wrong in itself is no reason to say that the route leads nowhere.
        given = node.value.get("delivery")
        broken = given is not None and given.value is not None
        broken = broken and "delivery" not in data["policies"]
        if broken:
            data["policies"] = {**data["policies"], "delivery": Model()}
        route = self._validator.validate(RouteConfig, node, path, data)
        if route is None:
            check_destination(node, path, self._validator)
        else:
            check_rewrite(route, node, path, self._validator)
        return None if broken else route

    def _assemble(self, sections: dict[str, Any]) -> GatewayConfig | None:
        for key in ("version", "include", "plugins"):
            node = self._section(key)
            if node is not None:
                sections[key] = plain(node)
        present = {key: value for key, value in sections.items() if value is not None}
        return self._validator.validate(GatewayConfig, self._root, (), present)

    def _plugin_files(self, plugins: list[str]) -> list[FilePath]:
        paths = [self._base_dir / name for name in plugins if name.endswith(".py")]
        return [path for path in paths if path.is_file()]

    def _fingerprint(self, plugins: list[str]) -> str:
        digest = hashlib.sha256()
        parts: list[tuple[str, bytes]] = [*self._sources.contents.items()]
        parts += [(name, text.encode()) for name, text in sorted(self._references.used.items())]
        for path in [*self._plugin_files(plugins), *self._content]:
            try:
                parts.append((path.name, path.read_bytes()))
            except OSError:
                # Whoever opens it says what is wrong; once it is there, this is another one.
                parts.append((path.name, b""))
        for name, content in parts:
            # Lengths keep two neighbouring parts from being read as one.
            digest.update(b"%d %d " % (len(name.encode()), len(content)))
            digest.update(name.encode())
            digest.update(content)
        return digest.hexdigest()


def find(root: Node, path: Path) -> Node:
    """The node at `path`, or where a route inherits it from, or the deepest key above it."""
    node, taken = walk(root, path)
    if len(path) < 3 or path[0] != "routes" or len(taken) != 2:
        return node
    uses, upstream = (
        (node.value.get("use"), node.value.get("upstream"))
        if isinstance(node.value, dict)
        else (None, None)
    )
    names = [child.value for child in uses.value] if uses and isinstance(uses.value, list) else []
    places: list[Path] = [("profiles", name) for name in reversed(names)]
    if upstream is not None:
        places.append(("upstreams", upstream.value))
    for place in (*places, ("defaults",)):
        # The policy `upstream_auth` is the key `auth` of an upstream.
        key = str(path[2]).removeprefix("upstream_") if place[0] == "upstreams" else path[2]
        inherited, steps = walk(root, (*place, key, *path[3:]))
        if len(steps) > len(place):
            return inherited
    return node
