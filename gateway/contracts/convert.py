"""OpenAPI's schemas as JSON Schema 2020-12: what 3.0 and 3.1 say in their own words, said in its.

A schema is converted for one direction, because `readOnly` and `writeOnly` properties are there in
one and not in the other. What is not right in a schema is left out with a warning, so that the rest
still holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from gateway.contracts import discriminator, keywords
from gateway.contracts.document import MISSING, Document, Place
from gateway.contracts.models import PREFIX, Models
from gateway.contracts.schema import Schema

Direction = str
REQUEST: Final = "request"
RESPONSE: Final = "response"
MAX_NODES: Final = 2_000_000
_MAX_DEPTH: Final = 100
_MAX_HOPS: Final = 8
_INTEGERS: Final = {"int32": 2**31, "int64": 2**63}
_FLAG: Final = {REQUEST: "readOnly", RESPONSE: "writeOnly"}
# Beside these, null can't simply be added to the types.
_NOT_BESIDE_NULL: Final = frozenset({"enum", "const", "allOf", "anyOf", "oneOf", "not", "$ref"})


class TooLarge(ValueError):
    """A description that can't be imported in bounded time and memory."""


class Converter:
    """The schemas of one document, converted once for each place and direction, when asked for.

    `definitions` are what was converted, by a name of our own; `Schema`s are compiled from them.
    """

    def __init__(self, document: Document, models: Models) -> None:
        self.document = document
        self._models = models
        self.definitions: dict[str, dict[str, Any] | bool] = {}
        self._names: dict[tuple[str, str, Direction, bool], str] = {}
        self._waiting: list[tuple[str, Any, Place, Direction, bool]] = []
        self._compiled: dict[str, Schema] = {}
        self._children: discriminator.Children | None = None
        self._nodes = 0

    def schema(self, value: Any, place: Place, direction: Direction) -> str:
        """The name of the converted schema `value`, which stands at `place`."""
        name = self._name(value, place, direction, bare=False)
        self._work()
        return name

    def compile(self, name: str) -> Schema:
        """The validator of a converted schema. Raises SchemaError."""
        compiled = self._compiled.get(name)
        if compiled is None:
            reachable = {each: self.definitions[each] for each in self._reachable(name)}
            document = {"$ref": f"#/$defs/{name}", "$defs": reachable}
            compiled = self._compiled[name] = Schema(document, self._models.registry)
        return compiled

    def children(self) -> discriminator.Children:
        """Which schemas build on which with allOf."""
        if self._children is None:
            self._children = discriminator.Children(self.document)
        return self._children

    def reference(self, reference: str, place: Place, direction: Direction, *, bare: bool) -> Any:
        """The converted form of a `$ref`; True, which takes everything, if it leads nowhere."""
        if reference.startswith(PREFIX):
            uri = self._models.uri(reference)
            if uri is not None:
                return {"$ref": uri}
            self.document.warn(place, f"$ref: there is no model for {reference}")
            return True
        value, target = self.document.locate(reference, place)
        if value is MISSING:
            return True
        return {"$ref": f"#/$defs/{self._name(value, target, direction, bare=bare)}"}

    def _name(self, value: Any, place: Place, direction: Direction, *, bare: bool) -> str:
        # Only a parent that tells its children apart differs when a child builds on it.
        bare = bare and discriminator.is_parent(value)
        key = (place.uri, place.pointer, direction, bare)
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = f"s{len(self._names)}"
            self._waiting.append((name, value, place, direction, bare))
        return name

    def _work(self) -> None:
        while self._waiting:
            name, value, place, direction, bare = self._waiting.pop()
            one = _Conversion(self, direction, bare=bare)
            self.definitions[name] = one.convert(value, place, frozenset(), 0)

    def count(self, place: Place) -> None:
        """Count one schema. Raises TooLarge."""
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise TooLarge(f"{place}: more than {MAX_NODES} schemas")

    def _reachable(self, name: str) -> list[str]:
        found = {name: None}
        waiting = [name]
        while waiting:
            for target in targets(self.definitions[waiting.pop()]):
                if target not in found and target in self.definitions:
                    found[target] = None
                    waiting.append(target)
        return list(found)


def targets(value: Any) -> Iterator[str]:
    """The names of the definitions that a converted schema refers to."""
    stack = [value]
    while stack:
        each = stack.pop()
        if isinstance(each, dict):
            reference = each.get("$ref")
            if isinstance(reference, str) and reference.startswith("#/$defs/"):
                yield reference.removeprefix("#/$defs/")
            stack.extend(each.values())
        elif isinstance(each, list):
            stack.extend(each)


class _Conversion:
    """Converts one schema with all that stands inside it."""

    def __init__(self, owner: Converter, direction: Direction, *, bare: bool) -> None:
        self._owner = owner
        self._document = owner.document
        self._direction = direction
        self._flag = _FLAG[direction]
        self._bare = bare

    def convert(self, node: Any, place: Place, hidden: frozenset[str], depth: int) -> Any:
        """`hidden` are properties that a schema around this one says are not sent this way."""
        self._owner.count(place)
        if isinstance(node, bool):
            return node
        if not isinstance(node, dict):
            if node is not None:
                self._document.warn(place, "expected a schema; every value passes")
            return True
        if depth > _MAX_DEPTH:
            self._document.warn(place, "nested too deeply; every value passes")
            return True
        reference = node.get("$ref")
        if isinstance(reference, str):
            return self._reference(reference, node, place, hidden, depth)
        return self._plain(node, place, hidden, depth)

    def _reference(
        self, reference: str, node: dict[str, Any], place: Place, hidden: frozenset[str], depth: int
    ) -> Any:
        inherits = place.pointer.rpartition("/")[0].endswith("/allOf")
        target = self._owner.reference(reference, place, self._direction, bare=inherits)
        siblings = {key: value for key, value in node.items() if key != "$ref"}
        # OpenAPI 3.0 takes no notice of what stands beside a $ref.
        if self._document.is_30 or not siblings.keys() - keywords.IGNORED:
            return target
        rest = self._plain(siblings, place, hidden, depth)
        return {"allOf": [target, rest]}

    def _plain(self, node: dict[str, Any], place: Place, hidden: frozenset[str], depth: int) -> Any:
        hidden = hidden | self._hidden(node, place, 0)
        out: dict[str, Any] = {}
        for key, value in node.items():
            self._keyword(key, value, out, (place, hidden, depth))
        self._bounds(node, out)
        if hidden and isinstance(out.get("required"), list):
            out["required"] = [name for name in out["required"] if name not in hidden]
        if isinstance(node.get("discriminator"), dict):
            self._discriminate(node, out, place)
        if node.get("nullable") is True:
            return self._nullable(out, place)
        return out

    def _keyword(
        self, key: str, value: Any, out: dict[str, Any], at: tuple[Place, frozenset[str], int]
    ) -> None:
        place, hidden, depth = at
        here = place / key
        if key in keywords.IGNORED or key.startswith(("x-", "exclusiveM")):
            return
        if key == "type":
            self._type(value, out, here)
        elif key == "required":
            self._required(value, out, here)
        elif key == "pattern":
            self._pattern(value, out, here)
        elif key in keywords.SUBSCHEMAS:
            self._subschema(key, value, out, here, depth)
        elif key in keywords.LISTS_OF_SCHEMAS:
            inner = hidden if key != "prefixItems" else frozenset[str]()
            self._list(key, value, out, (here, inner, depth))
        elif key in keywords.MAPS_OF_SCHEMAS:
            self._map(key, value, out, (here, hidden, depth))
        elif not keywords.is_known(key):
            self._document.warn(here, "no keyword that is known here; it is left out")
        elif keywords.is_fit(key, value):
            out[key] = value
        else:
            self._left_out(here)

    def _left_out(self, here: Place) -> None:
        self._document.warn(here, "not a value that this keyword may have; it is left out")

    def _type(self, value: Any, out: dict[str, Any], here: Place) -> None:
        names = value if isinstance(value, list) else [value]
        # A YAML author may well write null for "null".
        names = ["null" if name is None else name for name in names]
        if names and all(keywords.is_type(name) for name in names):
            out["type"] = names[0] if len(names) == 1 else list(dict.fromkeys(names))
        else:
            self._left_out(here)

    def _required(self, value: Any, out: dict[str, Any], here: Place) -> None:
        if isinstance(value, list) and all(isinstance(name, str) for name in value):
            out["required"] = list(dict.fromkeys(value))
        else:
            self._left_out(here)

    def _pattern(self, value: Any, out: dict[str, Any], here: Place) -> None:
        if isinstance(value, str) and keywords.is_pattern(value):
            out["pattern"] = value
        else:
            message = "no regular expression that can be matched in linear time; it is left out"
            self._document.warn(here, message)

    def _subschema(
        self, key: str, value: Any, out: dict[str, Any], here: Place, depth: int
    ) -> None:
        if key == "items" and isinstance(value, list):
            # Tuples, as older drafts had them.
            self._list("prefixItems", value, out, (here, frozenset(), depth))
            return
        if isinstance(value, dict | bool):
            out[key] = self.convert(value, here, frozenset(), depth + 1)
        else:
            self._left_out(here)

    def _list(
        self, key: str, value: Any, out: dict[str, Any], at: tuple[Place, frozenset[str], int]
    ) -> None:
        here, hidden, depth = at
        if isinstance(value, list) and value:
            out[key] = [
                self.convert(each, here / index, hidden, depth + 1)
                for index, each in enumerate(value)
            ]
        else:
            self._left_out(here)

    def _map(
        self, key: str, value: Any, out: dict[str, Any], at: tuple[Place, frozenset[str], int]
    ) -> None:
        here, hidden, depth = at
        if not isinstance(value, dict):
            if value is not None:
                self._left_out(here)
            return
        converted: dict[str, Any] = {}
        for name, each in value.items():
            if key == "patternProperties" and not keywords.is_pattern(name):
                self._pattern(name, {}, here / name)
            elif key == "properties" and name in hidden:
                # Sent the other way only.
                converted[name] = False
            else:
                converted[name] = self.convert(each, here / name, frozenset(), depth + 1)
        out[key] = converted

    def _bounds(self, node: dict[str, Any], out: dict[str, Any]) -> None:
        """Exclusive bounds, which were booleans once, and the bounds of integers by format."""
        for exclusive, inclusive in (
            ("exclusiveMinimum", "minimum"),
            ("exclusiveMaximum", "maximum"),
        ):
            value = node.get(exclusive)
            if value is True and inclusive in out:
                out[exclusive] = out.pop(inclusive)
            elif not isinstance(value, bool) and keywords.is_fit("minimum", value):
                out[exclusive] = value
        limit = _INTEGERS.get(out.get("format", ""))
        if limit is not None and out.get("type") == "integer":
            out["minimum"] = max(out.get("minimum", -limit), -limit)
            out["maximum"] = min(out.get("maximum", limit - 1), limit - 1)

    def _nullable(self, out: dict[str, Any], place: Place) -> Any:
        if not self._document.is_30:
            self._document.warn(place / "nullable", "OpenAPI 3.1 has no nullable; null passes")
        types = out.get("type")
        if types is None and not _NOT_BESIDE_NULL & out.keys():
            return out
        if isinstance(types, str) and not _NOT_BESIDE_NULL & out.keys():
            return out | {"type": [types, "null"]}
        return {"anyOf": [{"type": "null"}, out]}

    def _discriminate(self, node: dict[str, Any], out: dict[str, Any], place: Place) -> None:
        branches = "oneOf" if "oneOf" in node else "anyOf" if "anyOf" in node else ""
        if self._bare and not branches:
            return
        table = discriminator.table(node, place, self._owner.children(), branches)
        if table is None:
            self._document.warn(
                place / "discriminator", "it can't be told what it leads to; it is left out"
            )
            return
        if branches:
            out.pop(branches, None)
        dispatch = discriminator.dispatch(
            node["discriminator"]["propertyName"],
            [
                (values, self._owner.reference(target, place, self._direction, bare=False))
                for values, target in table.branches
            ],
            table.own,
        )
        out.setdefault("allOf", []).extend(dispatch)

    def _hidden(self, node: dict[str, Any], place: Place, hops: int) -> frozenset[str]:
        """The properties of an object that are not sent in this direction."""
        found = set()
        properties = node.get("properties")
        if isinstance(properties, dict):
            for name, each in properties.items():
                if self._is_flagged(each, place):
                    found.add(name)
        branches = node.get("allOf")
        if isinstance(branches, list) and hops < _MAX_HOPS:
            for branch in branches:
                inner, at = self._document.follow(branch, place)
                if isinstance(inner, dict):
                    found |= self._hidden(inner, at, hops + 1)
        return frozenset(found)

    def _is_flagged(self, node: Any, place: Place) -> bool:
        if not isinstance(node, dict):
            return False
        if node.get(self._flag) is True and not (self._document.is_30 and "$ref" in node):
            return True
        reference = node.get("$ref")
        if not isinstance(reference, str) or reference.startswith(PREFIX):
            return False
        target, _ = self._document.follow(node, place)
        return isinstance(target, dict) and target.get(self._flag) is True
