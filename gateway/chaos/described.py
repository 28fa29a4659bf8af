"""What a route's contract or schemas say of its requests and answers, as examples of both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.chaos.example import Resolve, example, matches
from gateway.config.model import GatewayConfig, RouteConfig
from gateway.contracts.document import MISSING, Document
from gateway.contracts.files import DocumentError, Files
from gateway.contracts.library import Library
from gateway.contracts.paths import compatible
from gateway.policies.validate.config import ValidateConfig

_NOTHING: Final = object()


@dataclass(slots=True)
class Described:
    """Examples. `body` and `answer` are `NOTHING` where nothing is said of them."""

    path: dict[str, Any] = field(default_factory=dict)
    query: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, Any] = field(default_factory=dict)
    body: Any = _NOTHING
    status: int = 200
    answer: Any = _NOTHING

    @property
    def has_body(self) -> bool:
        """Whether a body is described."""
        return self.body is not _NOTHING

    @property
    def has_answer(self) -> bool:
        """Whether an answer is described."""
        return self.answer is not _NOTHING


class Descriptions:
    """Looks up what is said of routes, in the documents that the library was made from."""

    def __init__(self, gateway: GatewayConfig, library: Library, files: Files) -> None:
        self._gateway = gateway
        self._library = library
        self._files = files
        self._documents: dict[str, Document | None] = {}

    def of(self, route: RouteConfig, method: str) -> Described:
        """The examples for one method of a route; empty if nothing is said of it."""
        config = route.policies.get("validate")
        if not isinstance(config, ValidateConfig):
            return Described()
        if config.contract is not None:
            return self._by_contract(config.contract, route, method)
        return self._in_place(config)

    def _in_place(self, config: ValidateConfig) -> Described:
        found = Described()
        request, response = config.request, config.response
        if request is not None:
            if request.body is not None:
                found.body = self._example(request.body)
            if isinstance(request.path, dict):
                # A path has all of its parameters, whatever the schema asks for.
                every = list(_mapping(request.path.get("properties")))
                found.path = _mapping(self._example({**request.path, "required": every}))
            found.query = _mapping(self._example(request.query))
            found.headers = _mapping(self._example(request.headers))
        if response is not None and response.body is not None:
            found.answer = self._example(response.body)
        return found

    def _example(self, schema: dict[str, Any] | bool | None) -> Any:
        if not isinstance(schema, dict):
            return {}
        models = self._library.models
        if schema.keys() == {"model"}:
            schema = models.document(str(schema["model"]))
        root = schema
        return example(schema, lambda reference: models.look_up(reference, root))

    def _by_contract(self, name: str, route: RouteConfig, method: str) -> Described:
        document = self._document(name)
        found = Described()
        if document is None:
            return found
        for item, node in _operations(document, route, method):
            resolve = _resolver(document, self._library)
            for parameter in [*_list(item.get("parameters")), *_list(node.get("parameters"))]:
                _read_parameter(document, parameter, found, resolve)
            body, _ = document.follow(node.get("requestBody"), document.place)
            value = _content(body, resolve)
            if value is not _NOTHING:
                found.body = value
            _read_answer(document, node, found, resolve)
            break
        return found

    def _document(self, name: str) -> Document | None:
        if name not in self._documents:
            config = self._gateway.contracts.get(name)
            try:
                made = None if config is None else Document(config.openapi, self._files)
            except DocumentError:
                made = None  # whoever uses it has complained already
            self._documents[name] = made
        return self._documents[name]


def _operations(
    document: Document, route: RouteConfig, method: str
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Path items and operations that the route's requests may mean, exact paths first."""
    paths = document.mapping(document.root.get("paths"), document.place, "paths")
    bases = ["", *_bases(document)]
    rewrite = route.rewrite.path if route.rewrite is not None else None
    wanted = [path for path in (rewrite, route.match.path) if path is not None]
    found: list[tuple[bool, dict[str, Any], dict[str, Any]]] = []
    for template, value in paths.items():
        item, _ = document.follow(value, document.place)
        node = item.get(method.lower()) if isinstance(item, dict) else None
        fulls = [base + template for base in bases]
        if isinstance(node, dict) and any(compatible(f, w) for f in fulls for w in wanted):
            exact = any(full == path for full in fulls for path in wanted)
            found.append((not exact, item, node))
    found.sort(key=lambda each: each[0])
    return ((item, node) for _, item, node in found)


def _bases(document: Document) -> list[str]:
    servers = _list(document.root.get("servers"))
    urls = [each.get("url") for each in servers if isinstance(each, dict)]
    found = []
    for url in urls:
        try:
            found.append(urlsplit(str(url)).path.rstrip("/"))
        except ValueError:
            continue
    return found


def _resolver(document: Document, library: Library) -> Resolve:
    def resolve(reference: str) -> Any:
        if reference.startswith("models:"):
            return library.models.look_up(reference, None)
        value, _ = document.locate(reference, document.place)
        return None if value is MISSING else value

    return resolve


def _read_parameter(document: Document, parameter: Any, found: Described, resolve: Resolve) -> None:
    parameter, _ = document.follow(parameter, document.place)
    if not isinstance(parameter, dict):
        return
    where, name = parameter.get("in"), str(parameter.get("name"))
    into = {"path": found.path, "query": found.query, "header": found.headers}.get(str(where))
    if into is None or not (parameter.get("required") or where == "path"):
        return
    if "example" in parameter:
        into[name] = parameter["example"]
        return
    schema = parameter.get("schema", {"type": "string"})
    if where != "path" or not _takes_numbers(schema, resolve):
        into[name] = example(schema, resolve)


def _takes_numbers(schema: Any, resolve: Resolve) -> bool:
    """Whether a parameter may be any number of four digits, so that requests can differ."""
    for _ in range(8):
        if isinstance(schema, dict) and isinstance(schema.get("$ref"), str):
            schema = resolve(schema["$ref"])
    if not isinstance(schema, dict):
        return True
    allowed = {"type", "pattern", "minLength", "description", "title", "minimum"}
    fits = matches(str(schema.get("pattern", "")), "1001") and schema.get("minLength", 0) <= 4
    return fits and schema.keys() <= allowed and schema.get("minimum", 0) <= 1000


def _read_answer(
    document: Document, node: dict[str, Any], found: Described, resolve: Resolve
) -> None:
    """The answer of the first status that is good."""
    responses = node.get("responses")
    if not isinstance(responses, dict):
        return
    good = sorted(key for key in map(str, responses) if key.isdigit() and key.startswith("2"))
    if not good:
        return
    found.status = int(good[0])
    response, _ = document.follow(
        responses.get(good[0], responses.get(int(good[0]))), document.place
    )
    found.answer = _content(response, resolve)


def _content(part: Any, resolve: Resolve) -> Any:
    """The example of a body or an answer that is JSON."""
    content = part.get("content") if isinstance(part, dict) else None
    if not isinstance(content, dict):
        return _NOTHING
    for kind, media in content.items():
        if "json" not in str(kind) or not isinstance(media, dict):
            continue
        if "example" in media:
            return media["example"]
        examples = media.get("examples")
        if isinstance(examples, dict):
            for each in examples.values():
                if isinstance(each, dict) and "value" in each:
                    return each["value"]
        return example(media.get("schema", {}), resolve)
    return _NOTHING


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
