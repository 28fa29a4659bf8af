"""Policies in layers: a policy's own default, then `defaults:`, profiles, and the route's keys.

A higher layer replaces a policy whole, and null takes it away. A value is validated where it was
written and once, however many routes share it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, RootModel, ValidationError

from gateway.config import later
from gateway.config.base import PolicySpec
from gateway.config.issues import Issue
from gateway.config.model import PluginUse
from gateway.config.nodes import Node, Path
from gateway.config.suggest import did_you_mean, unknown_key
from gateway.config.validate import Validator

Policies = dict[str, BaseModel | None]
PluginUses = list[PluginUse]


class Layer:
    """What one place says. `plugins` is None if it says nothing of them."""

    __slots__ = ("plugins", "policies")

    def __init__(self, policies: Policies, plugins: PluginUses | None = None) -> None:
        self.policies = policies
        self.plugins = plugins

    def as_mapping(self) -> dict[str, Any]:
        """As the configuration shows it."""
        return self.policies | ({} if self.plugins is None else {"plugins": self.plugins})


class Layers:
    """Reads layers, and merges those of a route.

    `complete` is False if some file or plugin could not be read: names that seem unknown are then
    not complained about.
    """

    def __init__(
        self, specs: Mapping[str, PolicySpec], validator: Validator, *, complete: bool
    ) -> None:
        self._specs = specs
        self._validator = validator
        self._complete = complete
        self._known = {key for key, spec in specs.items() if spec.builtin and spec.on_routes}
        self._of_upstreams = {
            spec.upstream_key: name for name, spec in specs.items() if spec.upstream_key
        }
        # Policies whose configuration names upstreams beside the route's.
        self._branching = [
            (key, fields) for key, spec in specs.items() if (fields := spec.further_upstreams)
        ]
        self._external = {key for key, spec in specs.items() if not spec.builtin}
        self._validated: dict[tuple[str, int], BaseModel | None] = {}
        self._bases: dict[tuple[str, tuple[str, ...]], Layer] = {}
        self._plugin_defaults: PluginUses = []
        self._made: list[Node] = []
        self.keys = self._known | {"plugins"}
        self._ground = Layer(self._own_defaults(), [])
        self.defaults = Layer({})
        self.profiles: dict[str, Layer] = {}
        self.upstreams: dict[str, Layer] = {}
        self.upstream_keys = frozenset(self._of_upstreams)

    def _own_defaults(self) -> Policies:
        """What policies want for routes that do not mention them."""
        policies: Policies = {}
        for key, spec in self._specs.items():
            if spec.default is None:
                continue
            try:
                config = self._validator.convert(spec.config, spec.default)
            except ValidationError as error:
                # A fault in the policy, not in the file: there is no place to point to.
                message = f'the policy "{key}" has a default that it does not accept'
                reason = str(error.errors(include_input=False)[0]["msg"])
                self._validator.issues.append(Issue("plugins", 0, 0, key, message, reason))
                continue
            if spec.builtin:
                policies[key] = config
            else:
                self._plugin_defaults.append(PluginUse(use=key, config=config))
        return policies

    def read_defaults(self, node: Node) -> None:
        """Read `defaults:`."""
        self.defaults = self._read_mapping(node, ("defaults",))

    def read_profiles(self, node: Node) -> None:
        """Read `profiles:`."""
        if not isinstance(node.value, dict):
            self._validator.report(node, ("profiles",), "expected a mapping of profiles by name")
            return
        for name, child in node.value.items():
            self.profiles[name] = self._read_mapping(child, ("profiles", name))

    def read_upstream(self, name: str, node: Node, path: Path) -> Policies:
        """Read the policies among an upstream's keys, which its routes start from."""
        policies: Policies = {}
        for key, child in node.value.items():
            if key in self._of_upstreams:
                policy = self._of_upstreams[key]
                policies[policy] = self._policy(policy, child, (*path, key))
        self.upstreams[name] = Layer(policies)
        return policies

    def _read_mapping(self, node: Node, path: Path) -> Layer:
        if node.value is None or node.broken:
            return Layer({})
        if not isinstance(node.value, dict):
            self._validator.report(node, path, "expected a mapping of policies")
            return Layer({})
        layer, rest = self.split(node, path)
        for key in rest:
            known = self.keys
            self._validator.issues.append(unknown_key(node, path, key, known))
        return layer

    def split(
        self, node: Node, path: Path, fields: frozenset[str] = frozenset()
    ) -> tuple[Layer, list[str]]:
        """The policies among the keys of `node`, and the keys that are neither one nor a field."""
        layer = Layer({})
        rest: list[str] = []
        for key, child in node.value.items():
            if key in fields:
                continue
            if key in self._known:
                layer.policies[key] = self._policy(key, child, (*path, key))
            elif key == "plugins":
                layer.plugins = self._plugins(child, (*path, key))
            elif key in later.POLICIES:
                self._validator.report_key(node, (*path, key), later.MESSAGE)
            else:
                rest.append(key)
        return layer, rest

    def _policy(self, key: str, node: Node, path: Path) -> BaseModel | None:
        if node.value is None:
            return None
        slot = (key, id(node))
        if slot not in self._validated:
            config = self._specs[key].config
            self._validated[slot] = self._validator.validate(config, node, path)
        return self._validated[slot]

    def _plugins(self, node: Node, path: Path) -> PluginUses:
        if node.value is None or node.broken:
            return []
        if not isinstance(node.value, list):
            self._validator.report(node, path, "expected a list such as [{use: name, with: {}}]")
            return []
        uses: PluginUses = []
        for index, entry in enumerate(node.value):
            use = self._plugin(entry, (*path, index))
            if use is not None and any(use.use == other.use for other in uses):
                self._validator.report(entry, (*path, index), f'"{use.use}" is used twice here')
            elif use is not None:
                uses.append(use)
        return uses

    def _plugin(self, node: Node, path: Path) -> PluginUse | None:
        settings = node.value.get("with") if isinstance(node.value, dict) else None
        data: object = node.value
        if isinstance(node.value, dict):
            data = {key: child.value for key, child in node.value.items() if key != "with"}
        use = self._validator.validate(PluginUse, node, path, data)
        if use is None:
            return None
        if use.use not in self._external:
            self._unknown_plugin(node.value["use"], (*path, "use"))
            return None
        if settings is not None and settings.value is None:
            return use
        if settings is None:
            settings = Node({}, node.file, node.line, node.column, {})
            # Validated values are remembered by identity, so this node must live as long.
            self._made.append(settings)
        config = self._policy(use.use, settings, (*path, "with"))
        return None if config is None else PluginUse(use=use.use, config=config)

    def _unknown_plugin(self, node: Node, path: Path) -> None:
        if not self._complete:
            return
        name = node.value
        if name in self._known:
            message, hint = "this policy is built in", "write it as a key of its own"
        elif node.reference:
            message, hint = "no such plugin is loaded", ""
        else:
            message = f'no plugin "{name}" is loaded'
            hint = did_you_mean(name, self._external) or "name its file under plugins"
        self._validator.report(node, path, message, hint)

    def merge(
        self, own: Layer, use: tuple[str, ...], upstream: str = ""
    ) -> tuple[dict[str, BaseModel], PluginUses]:
        """The policies and plugins of a route that says `own` and uses the profiles `use`.

        Those of its upstream stand between the defaults and the profiles.
        """
        base = self._bases.get((upstream, use))
        if base is None:
            layers = [self.defaults]
            layers += [self.upstreams[upstream]] if upstream in self.upstreams else []
            layers += [self.profiles[n] for n in use if n in self.profiles]
            base = self._ground
            for layer in layers:
                base = self._over(base, layer)
            self._bases[upstream, use] = base
        top = self._over(base, own)
        policies = {key: value for key, value in top.policies.items() if value is not None}
        return policies, self._final_plugins(top.plugins or [])

    def elsewhere(
        self,
        policies: Mapping[str, BaseModel],
        plugins: PluginUses,
        own: Layer,
        use: tuple[str, ...],
        upstream: str,
    ) -> dict[str, dict[str, BaseModel]]:
        """What a route's policies are for the further upstreams that some of them name.

        A field holds one name or several; an empty one stands for the route's own `upstream`.
        """
        found: dict[str, dict[str, BaseModel]] = {}
        for key, fields in self._branching:
            config = policies.get(key) or next((e.config for e in plugins if e.use == key), None)
            for field in fields if config is not None else ():
                value = getattr(config, field)
                for given in (value,) if isinstance(value, str) else value:
                    name = given or upstream
                    found[name] = self.merge(own, use, name)[0]
        return found

    def _final_plugins(self, uses: PluginUses) -> PluginUses:
        if not uses and not self._plugin_defaults:
            return uses
        named = {use.use for use in uses}
        uses = [*uses, *(use for use in self._plugin_defaults if use.use not in named)]
        return [use for use in uses if use.config is not None]

    def _over(self, lower: Layer, upper: Layer) -> Layer:
        plugins = lower.plugins if upper.plugins is None else upper.plugins
        policies = lower.policies | upper.policies
        for key in self._of_upstreams.values():
            below, above = lower.policies.get(key), upper.policies.get(key)
            if below is not None and above is not None and not isinstance(above, RootModel):
                # Field by field: `retry: {attempts: 5}` on a route leaves the rest of the
                # upstream's retry as it is.
                given = {name: getattr(above, name) for name in above.model_fields_set}
                policies[key] = below.model_copy(update=given)
        return Layer(policies, plugins)
