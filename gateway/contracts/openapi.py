"""OpenAPI 3.0 and 3.1 documents imported: what is usable becomes operations, the rest warnings.

One real description in ten is not quite what its specification asks for. So nothing here ends the
import but a file that can't be read, or is no OpenAPI document at all.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.contracts import convert
from gateway.contracts.contract import METHODS, BadTemplate, Contract
from gateway.contracts.convert import REQUEST, RESPONSE, Converter
from gateway.contracts.document import MISSING, Document, Place
from gateway.contracts.files import DocumentError, Files
from gateway.contracts.media import FORM, JSON, MediaTable, parse
from gateway.contracts.models import Models
from gateway.contracts.operation import Body, Content, Operation
from gateway.contracts.parameters import STYLES, Parameter
from gateway.contracts.schema import Schema, SchemaError
from gateway.contracts.shapes import TEXT, Shape, shape_of

logger = logging.getLogger("gateway")

# Schemas that are still to be compiled then are compiled when they are first needed.
COMPILE_S: Final = 2.0
_IGNORED_HEADERS: Final = frozenset({"accept", "authorization", "content-type"})
_STATUS: Final = frozenset(f"{digit}XX" for digit in range(1, 6))


def import_document(name: str, path: Path, files: Files, models: Models) -> Contract:
    """The contract in a file. Raises DocumentError if it is none."""
    document = Document(path, files)
    if not document.version.startswith(("3.0", "3.1")):
        stated = document.version or document.root.get("swagger") or "none"
        raise DocumentError(f"the file {path} is not OpenAPI 3.0 or 3.1 (its version: {stated})")
    try:
        return _Importer(name, document, models).run()
    except convert.TooLarge as error:
        raise DocumentError(f"the file {path} is too large to be a contract: {error}") from None
    except RecursionError:
        raise DocumentError(f"the file {path} is nested too deeply") from None


class LazySchema:
    """A converted schema, compiled at once or when it is first needed."""

    __slots__ = ("_converter", "_place", "_schema", "_tried", "name")

    def __init__(self, converter: Converter, name: str, place: Place) -> None:
        self._converter = converter
        self.name = name
        self._place = place
        self._schema: Schema | None = None
        self._tried = False

    def __call__(self) -> Schema | None:
        if not self._tried:
            self.compile()
        return self._schema

    def compile(self) -> None:
        """Compile it; a schema that can't be is left out, with a warning."""
        self._tried = True
        try:
            self._schema = self._converter.compile(self.name)
        except SchemaError as error:
            message = f"the schema can't be compiled, and every value passes: {error.message}"
            self._converter.document.warn(self._place, message)
            logger.warning("%s: %s", self._place, message)


def _anything() -> None:
    return None


class _Importer:
    def __init__(self, name: str, document: Document, models: Models) -> None:
        self._document = document
        self._converter = Converter(document, models)
        self._contract = Contract(name, document.warnings)
        self._lazy: list[LazySchema] = []

    def run(self) -> Contract:
        document = self._document
        root = document.place
        if "jsonSchemaDialect" in document.root:
            stated = str(document.root["jsonSchemaDialect"])
            if "2020-12" not in stated and "spec.openapis.org" not in stated:
                document.warn(root / "jsonSchemaDialect", "read as JSON Schema 2020-12")
        place = root / "paths"
        paths = document.mapping(document.root.get("paths", {}), place, "paths")
        for template, value in paths.items():
            if not template.startswith("x-"):
                self._path(template, value, place / template)
        self._compile()
        return self._contract

    def _compile(self) -> None:
        deadline = time.monotonic() + COMPILE_S
        for schema in self._lazy:
            if time.monotonic() > deadline:
                break
            schema.compile()

    def _path(self, template: str, value: Any, place: Place) -> None:
        document = self._document
        item, at = document.follow(value, place)
        if not isinstance(item, dict):
            document.warn(place, "expected a path item; it is left out")
            return
        shared = self._parameters(item.get("parameters"), at / "parameters")
        methods: dict[str, Operation] = {}
        for method in METHODS:
            node = item.get(method.lower())
            if isinstance(node, dict):
                where = at / method.lower()
                methods[method] = self._operation(f"{method} {template}", node, where, shared)
            elif node is not None:
                document.warn(at / method.lower(), "expected an operation; it is left out")
        if not methods:
            return
        servers = item.get("servers", document.root.get("servers"))
        try:
            if not self._contract.add(self._bases(servers, at), template, methods):
                document.warn(place, "another path is the same; it is left out")
        except BadTemplate as error:
            document.warn(place, f"the path can't be matched, and is left out: {error}")

    def _bases(self, servers: Any, place: Place) -> list[str]:
        """The paths below which the API stands, and none: the gateway's upstream may be there."""
        bases: dict[str, None] = {}
        for server in servers if isinstance(servers, list) else []:
            url = server.get("url") if isinstance(server, dict) else None
            if not isinstance(url, str):
                self._document.warn(place, "a server has no url")
                continue
            variables = server.get("variables")
            for name, about in (variables if isinstance(variables, dict) else {}).items():
                if isinstance(about, dict):
                    url = url.replace("{" + name + "}", str(about.get("default", "")))
            try:
                path = urlsplit(url).path
            except ValueError:
                self._document.warn(place, "a server's url is none")
                continue
            if path.startswith("/") and "{" not in path:
                bases[path.rstrip("/")] = None
        bases[""] = None
        return list(bases)

    def _operation(
        self, label: str, node: dict[str, Any], place: Place, shared: dict[Any, Parameter]
    ) -> Operation:
        own = self._parameters(node.get("parameters"), place / "parameters")
        parameters = list((shared | own).values())
        _share_names(parameters)
        body = self._body(node.get("requestBody"), place / "requestBody")
        responses = self._responses(node.get("responses"), place / "responses")
        return Operation(label, parameters, body, responses)

    # ------------------------------------------------------------------------------ parameters

    def _parameters(self, value: Any, place: Place) -> dict[Any, Parameter]:
        found: dict[Any, Parameter] = {}
        for index, each in enumerate(value if isinstance(value, list) else []):
            node, at = self._document.follow(each, place / index)
            if not isinstance(node, dict):
                self._document.warn(place / index, "expected a parameter; it is left out")
                continue
            parameter = self._parameter(node, at)
            if parameter is not None:
                found[parameter.name, parameter.where] = parameter
        if value is not None and not isinstance(value, list):
            self._document.warn(place, "expected a list of parameters; they are left out")
        return found

    def _parameter(self, node: dict[str, Any], place: Place) -> Parameter | None:
        name, where = node.get("name"), node.get("in")
        if not isinstance(name, str) or where not in STYLES:
            self._document.warn(place, "a parameter needs name and in; it is left out")
            return None
        if where == "header" and name.lower() in _IGNORED_HEADERS:
            return None
        content = node.get("content")
        if isinstance(content, dict):
            return self._content_parameter(name, where, node, place)
        schema = self._schema(node.get("schema"), place / "schema", REQUEST)
        parameter = Parameter(name, where, schema, self._shape(schema))
        self._style(parameter, node, place)
        return parameter

    def _content_parameter(
        self, name: str, where: str, node: dict[str, Any], place: Place
    ) -> Parameter | None:
        for kind, about in node["content"].items():
            parsed = parse(kind)
            if parsed is not None and parsed.kind == JSON and isinstance(about, dict):
                at = place / "content" / kind / "schema"
                schema = self._schema(about.get("schema"), at, REQUEST)
                parameter = Parameter(name, where, schema)
                parameter.content = True
                break
        else:
            parameter = Parameter(name, where, _anything)
        parameter.required = node.get("required") is True or where == "path"
        return parameter

    def _style(self, parameter: Parameter, node: dict[str, Any], place: Place) -> None:
        parameter.required = node.get("required") is True or parameter.where == "path"
        parameter.allow_empty = node.get("allowEmptyValue") is True
        style = node.get("style", parameter.style)
        if style not in STYLES[parameter.where]:
            self._document.warn(place / "style", "no style for parameters that stand there")
            style = parameter.style
        parameter.style = style
        explode = node.get("explode")
        parameter.explode = explode if isinstance(explode, bool) else style == "form"

    # ---------------------------------------------------------------------------------- bodies

    def _body(self, value: Any, place: Place) -> Body | None:
        if value is None:
            return None
        node, at = self._document.follow(value, place)
        if not isinstance(node, dict):
            if node is not MISSING:
                self._document.warn(place, "expected a request body; it is left out")
            return None
        content = self._content(node.get("content"), at / "content", REQUEST)
        if not content.names:
            self._document.warn(at, "a request body without content; every body passes")
            return None
        return Body(content, required=node.get("required") is True)

    def _content(self, value: Any, place: Place, direction: str) -> MediaTable[Content]:
        entries = []
        for name, about in (value if isinstance(value, dict) else {}).items():
            parsed = parse(name)
            if parsed is None:
                self._document.warn(place / name, "no media type; it is left out")
                continue
            node = about.get("schema") if isinstance(about, dict) else None
            schema = self._schema(node, place / name / "schema", direction)
            shape = self._shape(schema) if parsed.kind == FORM else TEXT
            entries.append((name, Content(schema, shape)))
        return MediaTable(entries)

    def _responses(self, value: Any, place: Place) -> Mapping[str, MediaTable[Content]]:
        found: dict[str, MediaTable[Content]] = {}
        for status, about in (value if isinstance(value, dict) else {}).items():
            key = status.upper() if status != "default" else status
            if status.startswith("x-"):
                continue
            if not (key in _STATUS or key == "default" or (key.isdigit() and len(key) == 3)):
                self._document.warn(place / status, "no status; it is left out")
                continue
            node, at = self._document.follow(about, place / status)
            if isinstance(node, dict):
                found[key] = self._content(node.get("content"), at / "content", RESPONSE)
            elif node is not MISSING:
                self._document.warn(place / status, "expected a response; it is left out")
        return found

    def _schema(self, node: Any, place: Place, direction: str) -> Callable[[], Schema | None]:
        if node is None:
            return _anything
        converter = self._converter
        name = converter.schema(node, place, direction)
        lazy = LazySchema(converter, name, place)
        self._lazy.append(lazy)
        return lazy

    def _shape(self, schema: Callable[[], Schema | None]) -> Shape:
        if not isinstance(schema, LazySchema):
            return TEXT
        return shape_of(self._converter.definitions[schema.name], self._lookup)

    def _lookup(self, reference: str) -> Any:
        return self._converter.definitions.get(reference.removeprefix("#/$defs/"))


def _share_names(parameters: list[Parameter]) -> None:
    """Tell exploded objects which names are other parameters'."""
    names = frozenset(each.name for each in parameters if each.where == "query")
    for parameter in parameters:
        if parameter.where == "query":
            parameter.taken = names - {parameter.name}
