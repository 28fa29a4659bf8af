"""Discriminators: the property whose value says which of several schemas an object is held to.

Two forms are in use. With `oneOf` or `anyOf` the alternatives are listed; without, the schema is a
parent that others build on with `allOf`. Either way the value is a name in the mapping, or the name
of a schema under components. What `oneOf` would judge by trying is then judged by looking, so one
alternative is told to be wrong instead of all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from gateway.contracts.document import Document, Place

_NAME: Final = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_COMPONENTS: Final = "#/components/schemas/"


@dataclass(frozen=True, slots=True)
class Table:
    """Which values lead where: references, as they stand at the discriminator. `own` values lead
    to nothing more than the schema itself.
    """

    branches: list[tuple[list[str], str]]
    own: list[str]


class Children:
    """The schemas under components, and which of them build on which with `allOf`."""

    def __init__(self, document: Document) -> None:
        components = document.root.get("components")
        schemas = components.get("schemas") if isinstance(components, dict) else None
        self.names: dict[str, Any] = schemas if isinstance(schemas, dict) else {}
        self.uri = document.place.uri
        self._by_parent: dict[str, list[str]] = {}
        for name, schema in self.names.items():
            branches = schema.get("allOf") if isinstance(schema, dict) else None
            for branch in branches if isinstance(branches, list) else []:
                reference = branch.get("$ref") if isinstance(branch, dict) else None
                if isinstance(reference, str) and reference.startswith(_COMPONENTS):
                    parent = _last(reference)
                    self._by_parent.setdefault(parent, []).append(name)

    def of(self, parent: str) -> list[str]:
        """The names of all that build on `parent`, over any number of steps."""
        found: dict[str, None] = {}
        waiting = [parent]
        while waiting:
            for child in self._by_parent.get(waiting.pop(), ()):
                if child not in found and child != parent:
                    found[child] = None
                    waiting.append(child)
        return list(found)


def is_parent(node: Any) -> bool:
    """Whether a schema has a discriminator for those that build on it."""
    return (
        isinstance(node, dict)
        and isinstance(node.get("discriminator"), dict)
        and "oneOf" not in node
        and "anyOf" not in node
    )


def table(node: dict[str, Any], place: Place, children: Children, branches: str) -> Table | None:
    """What the discriminator of `node` says, or None if that can't be told."""
    about = node["discriminator"]
    if not isinstance(about.get("propertyName"), str):
        return None
    found: dict[str, list[str]] = {}
    mapping = about.get("mapping")
    for value, target in mapping.items() if isinstance(mapping, dict) else ():
        if isinstance(target, str):
            found.setdefault(_reference(target, children), []).append(str(value))
    if branches:
        return _listed(node[branches], found)
    parent = _last(place.pointer)
    if place.uri != children.uri or place.pointer != f"/components/schemas/{parent}":
        return Table(_pairs(found), []) if found else None
    for child in children.of(parent):
        found.setdefault(_COMPONENTS + child, []).append(child)
    own = [parent, *found.pop(_COMPONENTS + parent, [])]
    return Table(_pairs(found), own)


def _listed(branches: Any, found: dict[str, list[str]]) -> Table | None:
    if not isinstance(branches, list):
        return None
    for branch in branches:
        reference = branch.get("$ref") if isinstance(branch, dict) else None
        if not isinstance(reference, str):
            return None
        found.setdefault(reference, []).append(_last(reference))
    return Table(_pairs(found), [])


def _pairs(found: dict[str, list[str]]) -> list[tuple[list[str], str]]:
    return [(list(dict.fromkeys(values)), target) for target, values in found.items()]


def _reference(target: str, children: Children) -> str:
    """A mapping's value: the name of a schema, or a reference to one."""
    if _NAME.fullmatch(target) and target in children.names:
        return _COMPONENTS + target
    return target


def _last(reference: str) -> str:
    """The name at a reference's end, without a file's suffix."""
    name = reference.rpartition("/")[2].replace("~1", "/").replace("~0", "~")
    return re.sub(r"\.(?:json|ya?ml)$", "", name) if "#" not in reference else name


def dispatch(
    name: str, branches: Iterable[tuple[list[str], Any]], own: list[str]
) -> list[dict[str, Any]]:
    """Schemas that together hold an object to the branch that its property `name` tells."""
    branches = list(branches)
    known = list(dict.fromkeys([*own, *(value for values, _ in branches for value in values)]))
    first = {"type": "object", "required": [name], "properties": {name: {"enum": known}}}
    rules: list[dict[str, Any]] = [first]
    for values, schema in branches:
        condition = {"required": [name], "properties": {name: {"enum": values}}}
        rules.append({"if": condition, "then": schema})
    return rules
