"""From the configuration to what requests are held to: contracts looked up, schemas compiled."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from gateway.config.suggest import did_you_mean
from gateway.contracts.contract import Contract
from gateway.contracts.library import Library
from gateway.contracts.media import MediaTable
from gateway.contracts.objects import ObjectParameters, lower_names
from gateway.contracts.operation import Body, Content, Operation
from gateway.contracts.schema import Schema, SchemaError
from gateway.errors import ConfigError
from gateway.message import Exchange
from gateway.policies.base import BuildContext
from gateway.policies.validate.config import RequestRules, ResponseRules, ValidateConfig
from gateway.routing.template import Template, TemplateError

_JSON: Final = ("application/json", "*/*+json")
# What a schema of parameters can't do without, if it is a schema and not a mapping of them.
_KEYWORDS: Final = frozenset(
    {
        "$ref",
        "additionalProperties",
        "allOf",
        "anyOf",
        "dependentRequired",
        "maxProperties",
        "minProperties",
        "model",
        "oneOf",
        "patternProperties",
        "properties",
        "propertyNames",
        "required",
        "type",
    }
)


def build_contract(name: str, context: BuildContext) -> tuple[Contract, Callable[[Exchange], str]]:
    """The contract, and which path of an exchange is looked up in it.

    That is the path as the upstream gets it, if the contract describes such a path; else as the
    client sent it. Raises ConfigError if it describes neither.
    """
    library = library_of(context)
    contract = library.contracts.get(name)
    if contract is None:
        hint = did_you_mean(name, library.contracts)
        message = f'there is no contract "{name}"' + (f"; {hint}" if hint else "")
        raise ConfigError(message, "contract")
    route = context.config.routes_by_name.get(context.route)
    if route is None:
        return contract, _client_path
    rewrite = route.rewrite.path if route.rewrite is not None else None
    if rewrite is not None and contract.could_match(rewrite):
        try:
            template = Template(rewrite)
            template.check_expands(Template(route.match.path))
        except TemplateError as error:
            raise ConfigError(f"rewrite.path: {error.reason}", "contract") from error
        return contract, lambda exchange: template.expand(exchange.raw_params)
    if contract.could_match(route.match.path):
        return contract, _client_path
    shown = route.match.path if rewrite is None else f"{rewrite} or {route.match.path}"
    raise ConfigError(f'the contract "{name}" has no operation at {shown}', "contract")


def _client_path(exchange: Exchange) -> str:
    return exchange.request.path


def library_of(context: BuildContext) -> Library:
    """The configuration's models and contracts."""
    if context.library is not None:
        return context.library
    return Library(context.config.models, context.config.contracts, context.base_dir)


def build_inline(config: ValidateConfig, context: BuildContext) -> Operation:
    """The rules that stand in the policy itself. Raises ConfigError."""
    builder = _Inline(library_of(context), context)
    request = config.request or RequestRules()
    response = config.response or ResponseRules()
    body = None
    if request.body is not None:
        body = Body(builder.content(request.body, "request.body"), required=True)
    responses = {}
    if response.body is not None:
        responses["2XX"] = builder.content(response.body, "response.body")
    parameters = [
        builder.parameters(document, where, key)
        for where, key, document in (
            ("path", "path", request.path),
            ("query", "query", request.query),
            ("header", "headers", request.headers),
        )
        if document is not None
    ]
    return Operation(context.route, parameters, body, responses)


class _Inline:
    def __init__(self, library: Library, context: BuildContext) -> None:
        self._library = library
        self._shared = context.shared

    def content(self, document: dict[str, Any] | bool, path: str) -> MediaTable[Content]:
        schema = self._schema(document, path)
        return MediaTable((name, Content(lambda: schema)) for name in _JSON)

    def parameters(self, document: dict[str, Any] | bool, where: str, key: str) -> ObjectParameters:
        path = f"request.{key}"
        resolved = self._resolved(document, path)
        if isinstance(resolved, dict):
            if resolved and not _KEYWORDS & resolved.keys():
                example = next(iter(resolved))
                raise ConfigError(
                    f"expected the schema of an object; write properties: {{{example}: ...}}", path
                )
            if where == "header":
                resolved = lower_names(resolved)
        schema = self._compile(resolved, path)
        models = self._library.models
        return ObjectParameters(
            where, schema, resolved, lambda reference: models.look_up(reference, resolved)
        )

    def _schema(self, document: dict[str, Any] | bool, path: str) -> Schema:
        if isinstance(document, dict) and document.keys() == {"model"}:
            name = document["model"]
            found = self._library.models.get(name) if isinstance(name, str) else None
            if found is None:
                raise self._unknown(name, path)
            return found
        return self._compile(document, path)

    def _resolved(self, document: dict[str, Any] | bool, path: str) -> dict[str, Any] | bool:
        if isinstance(document, dict) and document.keys() == {"model"}:
            name = document["model"]
            found = self._library.models.document(name) if isinstance(name, str) else None
            if found is None:
                raise self._unknown(name, path)
            return found if isinstance(found, dict) else bool(found)
        return document

    def _unknown(self, name: Any, path: str) -> ConfigError:
        hint = did_you_mean(str(name), self._library.models.names())
        return ConfigError(
            f'there is no model "{name}"' + (f"; {hint}" if hint else ""), f"{path}.model"
        )

    def _compile(self, document: dict[str, Any] | bool, path: str) -> Schema:
        key = ("schema", self._library.digest, json.dumps(document, sort_keys=True, default=str))
        try:
            schema: Schema = self._shared(key, lambda: self._library.models.compile(document))
        except SchemaError as error:
            raise ConfigError(f"#{error.pointer}: {error.message}", path) from None
        return schema
