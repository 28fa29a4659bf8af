"""JSON Schema 2020-12 of the configuration file, for editors.

Made from the same models as the loader uses, so that the two can't disagree. Wherever a scalar is
expected a reference is allowed too, and each policy is a key of routes, profiles and defaults, with
null to switch it off. A policy that is not available yet is not in the schema.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gateway.config.base import Catalog, PolicySpec
from gateway.config.model import GatewayConfig, PluginUse, RouteConfig, UpstreamConfig
from gateway.config.types import DURATION_PATTERN, SIZE_PATTERN, format_duration, format_size

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_REFERENCE: Final = {
    "type": "string",
    "pattern": r"\$\{(env:[A-Za-z_][A-Za-z0-9_]*(:-[^{}]*)?|file:[^{}]+)\}",
    "description": "A reference: ${env:NAME}, ${env:NAME:-default} or ${file:/path}.",
}
_REFERENCE_LINK: Final = {"$ref": "#/$defs/Reference"}
_SCALARS: Final = frozenset({"string", "integer", "number", "boolean"})
# What makes a schema of texts narrower than any text, so that a reference would not pass.
_NARROW: Final = ("pattern", "enum", "const", "format", "maxLength")
_BOUNDS: Final[dict[str, str]] = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
}
_DESCRIPTIVE: Final[tuple[str, ...]] = ("description", "default", "examples", "writeOnly")

Schema = dict[str, Any]


def json_schema(
    catalog: Catalog, plugins: Sequence[str] = (), base_dir: Path | None = None
) -> Schema:
    """The schema, with every built-in policy and those that `plugins` bring.

    Raises ConfigError if a plugin can't be loaded.
    """
    specs = catalog(plugins, base_dir or Path.cwd())
    models: list[type[BaseModel]] = [GatewayConfig, RouteConfig, PluginUse, UpstreamConfig]
    models += [spec.config for spec in specs.values()]
    unique = list(dict.fromkeys(models))
    links, schema = models_json_schema(
        [(model, "validation") for model in unique], ref_template="#/$defs/{model}"
    )
    link = {model: links[model, "validation"] for model in unique}
    definitions: dict[str, Schema] = schema["$defs"]
    policies = {
        key: _policy(spec, link) for key, spec in specs.items() if spec.builtin and spec.on_routes
    }
    layer = policies | {"plugins": _nullable(_plugin_list(specs, link))}
    definitions["PolicyLayer"] = {
        "type": "object",
        "description": "Policies by key; null switches one off.",
        "properties": layer,
        "additionalProperties": False,
    }
    _complete_route(_target(link[RouteConfig], definitions), layer)
    _complete_upstream(_target(link[UpstreamConfig], definitions), specs, link)
    root = _target(link[GatewayConfig], definitions)
    layer_link = {"$ref": "#/$defs/PolicyLayer"}
    properties = root["properties"]
    properties["defaults"] = _described(_nullable(layer_link), properties["defaults"])
    profiles = {"type": "object", "additionalProperties": _nullable(layer_link)}
    properties["profiles"] = _described(profiles, properties["profiles"])
    for key in properties:
        # An empty section, all of it commented out, is as good as none.
        properties[key] = _nullable(properties[key])
    finished = {name: _finish(part) for name, part in definitions.items() if part is not root}
    finished["Reference"] = _REFERENCE
    return {
        "$schema": DIALECT,
        "title": "Lockgate configuration",
        **_finish({key: value for key, value in root.items() if key != "title"}),
        "$defs": _reachable(_finish(root), finished),
    }


def _target(link: Schema, definitions: dict[str, Schema]) -> Schema:
    return definitions[link["$ref"].removeprefix("#/$defs/")]


def _policy(spec: PolicySpec, link: Mapping[type[BaseModel], Schema]) -> Schema:
    description = (spec.config.__doc__ or "").strip().partition("\n\n")[0]
    schema = _nullable(link[spec.config])
    if description:
        schema["description"] = " ".join(description.split())
    if spec.default is not None:
        schema["default"] = spec.default
    return schema


def _plugin_list(specs: Mapping[str, PolicySpec], link: Mapping[type[BaseModel], Schema]) -> Schema:
    uses = [
        {
            "type": "object",
            "properties": {"use": {"const": key}, "with": _nullable(link[spec.config])},
            "required": ["use"],
            "additionalProperties": False,
        }
        for key, spec in specs.items()
        if not spec.builtin
    ]
    # Without the plugins at hand, any name and any settings may be right.
    items = {"anyOf": uses} if uses else link[PluginUse]
    return {"type": "array", "items": items, "description": "Plugins and their settings."}


def _complete_route(route: Schema, layer: Schema) -> None:
    properties = route["properties"]
    for key in ("policies", "plugins", "elsewhere"):
        del properties[key]
    properties.update(layer)
    route["oneOf"] = [{"required": ["upstream"]}, {"required": ["respond"]}]


def _complete_upstream(
    upstream: Schema, specs: Mapping[str, PolicySpec], link: Mapping[type[BaseModel], Schema]
) -> None:
    properties = upstream["properties"]
    del properties["policies"]
    for spec in specs.values():
        if spec.upstream_key:
            properties[spec.upstream_key] = _policy(spec, link)


def _nullable(schema: Schema) -> Schema:
    if schema.get("anyOf") and {"type": "null"} in schema["anyOf"]:
        return schema
    outer = {key: schema[key] for key in _DESCRIPTIVE if key in schema}
    inner = {key: value for key, value in schema.items() if key not in outer}
    return {"anyOf": [inner, {"type": "null"}], **outer}


def _described(schema: Schema, source: Schema) -> Schema:
    return schema | {key: source[key] for key in _DESCRIPTIVE if key in source}


def _finish(schema: Any) -> Any:
    """Write defaults as people do, allow references, drop the titles pydantic makes of names."""
    if isinstance(schema, list):
        return [_finish(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result: Schema = {}
    for key, value in schema.items():
        if key == "properties":
            result[key] = {name: _finish(child) for name, child in value.items()}
        elif key in ("items", "additionalProperties", "prefixItems", "anyOf", "oneOf", "allOf"):
            result[key] = _finish(value)
        elif key == "default":
            if value is not None:
                result[key] = _written_default(value, schema)
        elif key != "title":
            # Behind a validator of its own, pydantic leaves a bound under the name it has there.
            result[_BOUNDS.get(str(key), str(key))] = value
    return _with_reference(result)


def _written_default(value: Any, schema: Schema) -> Any:
    """Defaults are kept as numbers; a person writes their unit."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return value
    patterns = {part.get("pattern") for part in (schema, *schema.get("anyOf", ()))}
    if DURATION_PATTERN in patterns:
        return format_duration(value)
    if SIZE_PATTERN in patterns:
        return format_size(int(value))
    return value


def _with_reference(schema: Schema) -> Schema:
    kinds = schema.get("type", ())
    kinds = {kinds} if isinstance(kinds, str) else set(kinds)
    if not kinds and "const" in schema and not isinstance(schema["const"], str):
        kinds = {"integer"}
    if not kinds & _SCALARS:
        return schema
    if kinds == {"string"} and not any(key in schema for key in _NARROW):
        return schema
    outer = {key: schema[key] for key in _DESCRIPTIVE if key in schema}
    inner = {key: value for key, value in schema.items() if key not in outer}
    return {"anyOf": [inner, _REFERENCE_LINK], **outer}


def _reachable(root: Schema, definitions: dict[str, Schema]) -> dict[str, Schema]:
    """The definitions that the root leads to; pydantic also made those of what was replaced."""
    found: dict[str, Schema] = {}
    pending: list[Any] = [root]
    while pending:
        part = pending.pop()
        if isinstance(part, list):
            pending += part
        elif isinstance(part, dict):
            pending += part.values()
            name = str(part.get("$ref", "")).removeprefix("#/$defs/")
            if name in definitions and name not in found:
                found[name] = definitions[name]
                pending.append(found[name])
    return dict(sorted(found.items()))
