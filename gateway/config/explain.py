"""Pydantic's errors as issues: at the place in the file, in plain words, without secrets.

`locate` walks the data, `_known_keys` the models beside it; nothing here depends on what a section
is about.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from gateway.config.issues import Issue
from gateway.config.nodes import Node, Path, describe, format_path, references, walk
from gateway.config.store_url import StoreUrl
from gateway.config.suggest import did_you_mean, unknown_key

_EXPECTED: Final = {
    "bool": "true or false",
    "dict": "a mapping",
    "mapping": "a mapping",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "frozen_set": "a list",
    "model": "a mapping",
    "model_attributes": "a mapping",
    "dataclass": "a mapping",
    "string": "text",
    "bytes": "text",
    "path": "text",
    "none_required": "nothing",
}
_BOUNDS: Final = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}
# What most values are, and no secret can be.
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_SUFFIXES: Final = ("_type", "_parsing", "_from_float", "_parsing_size", "_unicode")


def explain(error: ValidationError, model: type[BaseModel], node: Node, path: Path) -> list[Issue]:
    """What `error` says of `node`, which stands at `path` and should have been a `model`."""
    groups: dict[Path, list[tuple[Node, ErrorDetails]]] = {}
    issues: list[Issue] = []
    for detail in error.errors(include_url=False, include_input=False):
        loc = detail["loc"]
        kind = detail["type"]
        if kind in ("extra_forbidden", "missing"):
            parent, taken = walk(node, loc[:-1])
            key = str(loc[-1])
            if parent.broken:
                continue
            if kind == "missing":
                issues.append(_missing(parent, path + taken, key))
            else:
                known = _known_keys(model, loc[:-1])
                issues.append(unknown_key(parent, path + taken, key, known))
            continue
        if kind in ("union_tag_not_found", "union_tag_invalid"):
            issues += _wrong_tag(node, path, detail)
            continue
        found, taken = walk(node, loc)
        if not found.broken:
            groups.setdefault(path + taken, []).append((found, detail))
    for where, members in groups.items():
        issues.append(_explain_one(where, members, model))
    return issues


def _missing(parent: Node, path: Path, key: str) -> Issue:
    where = format_path((*path, key))
    hint = "" if isinstance(parent.value, dict) else f"got {describe(parent)}"
    message = "required, and not there"
    return Issue(parent.file, parent.line, parent.column, where, message, hint)


def _wrong_tag(node: Node, path: Path, detail: ErrorDetails) -> Iterator[Issue]:
    """What is wrong with the key, as a rule `type`, that says which of several models is meant."""
    context = detail.get("ctx", {})
    key = str(context.get("discriminator", "")).strip("'")
    parent, taken = walk(node, detail["loc"])
    where = path + taken
    tag = parent.value.get(key) if isinstance(parent.value, dict) else None
    if parent.broken or (tag is not None and tag.broken):
        return
    if tag is None:
        yield _missing(parent, where, key)
        return
    tags = str(context.get("expected_tags", "")).replace("'", "").split(", ")
    hint = ""
    if not tag.reference:
        hint = did_you_mean(str(tag.value), tags) or f"one of {', '.join(tags)}"
    place = format_path((*where, key))
    yield Issue(tag.file, tag.line, tag.column, place, f"unknown {key}", hint)


def _explain_one(
    where: Path, members: list[tuple[Node, ErrorDetails]], model: type[BaseModel]
) -> Issue:
    """One issue for all that was said of one value: the members of a union each have their say."""
    node = members[0][0]
    details = [detail for _, detail in members]
    if details[0]["loc"][-1:] == ("[key]",):
        return _explain_key(where, node, details[0])
    secret = any(SecretStr in _flat(_annotations(model, detail["loc"])) for detail in details)
    wanted = list(dict.fromkeys(filter(None, map(_wanted, details))))
    if wanted:
        message = f"expected {' or '.join(wanted)}"
        hint = _type_hint(node, details)
    else:
        message = _sentence(details[0])
        hint = ""
    hint = next((str(d["ctx"]["hint"]) for d in details if d.get("ctx", {}).get("hint")), hint)
    if secret:
        message, hint = _without_values(message, node), "write ${env:NAME} or ${file:/path}"
    elif any(True for _ in references(node)):
        message, hint = _without_values(message, node), ""
    if wanted and not secret:
        message += f", got {describe(node)}"
    return Issue(node.file, node.line, node.column, format_path(where), message, hint)


def _explain_key(where: Path, node: Node, detail: ErrorDetails) -> Issue:
    """A key of a mapping that is not of the right form. `node` is what stands under it."""
    return Issue(node.file, node.line, node.column, format_path(where), _sentence(detail))


def _wanted(detail: ErrorDetails) -> str:
    """What should have stood there, if the error is of that sort."""
    kind = detail["type"]
    text = str(detail.get("ctx", {}).get("text", ""))
    if text:
        return text.removeprefix("expected ") if text.startswith("expected ") else ""
    if kind == "literal_error":
        # pydantic writes 'a', 'b' or 'c'
        expected = str(detail.get("ctx", {}).get("expected", "")).replace("'", "")
        return (
            f"one of {expected.replace(' or ', ', ')}"
            if "," in expected or " or " in (expected)
            else expected
        )
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    for suffix in _SUFFIXES:
        name = kind.removesuffix(suffix)
        if name != kind and name in _EXPECTED:
            return _EXPECTED[name]
    return ""


def _sentence(detail: ErrorDetails) -> str:
    kind = detail["type"]
    context = detail.get("ctx", {})
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        return f"must be {words} {context.get(key)}"
    if kind in ("too_short", "string_too_short"):
        if context.get("min_length") == 1:
            return "must not be empty"
        unit = "characters" if kind == "string_too_short" else "entries"
        return f"needs at least {context.get('min_length')} {unit}"
    if kind in ("too_long", "string_too_long"):
        unit = "characters" if kind == "string_too_long" else "entries"
        return f"takes at most {context.get('max_length')} {unit}"
    if kind == "finite_number":
        return "must be a finite number"
    if kind == "string_pattern_mismatch":
        return f"must match {context.get('pattern')}"
    if kind in ("value_error", "assertion_error"):
        return str(context.get("error", detail["msg"])) or "not accepted"
    if "text" in context:
        return str(context["text"])
    return detail["msg"].replace("Input should be", "expected", 1)


def _type_hint(node: Node, details: list[ErrorDetails]) -> str:
    kinds = {str(detail["type"]) for detail in details}
    if kinds & {"string_type"} and isinstance(node.value, bool | int | float):
        return "put it in quotes"
    if kinds & {"list_type"} and isinstance(node.value, str | int | float):
        return "put it in square brackets"
    if kinds & {"model_type", "model_attributes_type"} and node.value is True:
        return "write {} for the defaults, null to switch it off"
    if len(details) == 1 and details[0]["type"] == "literal_error" and isinstance(node.value, str):
        expected = str(details[0].get("ctx", {}).get("expected", ""))
        return did_you_mean(node.value, expected.replace(" or ", ", ").replace("'", "").split(", "))
    return ""


def _without_values(message: str, node: Node) -> str:
    """The message, or a duller one if it might repeat a secret or what a reference gave."""
    values = [str(found.value) for found in references(node)]
    if not isinstance(node.value, dict | list):
        values.append(str(node.value))
    lowered = message.lower()
    if any(value and value.lower() in lowered for value in values if len(value) > 1):
        return "the value is not accepted"
    return message


def _annotations(model: Any, loc: Iterable[str | int]) -> list[Any]:
    """The types that may stand at `loc` below `model`."""
    current: list[Any] = [model]
    for step in loc:
        below = [inner for annotation in _flat(current) for inner in _below(annotation, step)]
        # A step that leads nowhere is the name of a union's member.
        current = below or current
    return current


def _flat(annotations: Iterable[Any]) -> Iterator[Any]:
    """Without Annotated, unions and root models around them."""
    for annotation in annotations:
        origin = get_origin(annotation)
        if origin is Annotated:
            yield from _flat(get_args(annotation)[:1])
        elif origin in (Union, types.UnionType):
            yield from _flat(get_args(annotation))
        elif isinstance(annotation, type) and _is_root(annotation):
            yield from _flat([annotation.model_fields["root"].annotation])
        else:
            yield annotation


def _is_root(annotation: type) -> TypeGuard[type[BaseModel]]:
    return issubclass(annotation, BaseModel) and annotation.__pydantic_root_model__


def _below(annotation: Any, step: str | int) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.items()
        return [field.annotation for name, field in fields if step in (name, field.alias)]
    arguments = get_args(annotation)
    if get_origin(annotation) is dict and len(arguments) == 2:
        return [arguments[1]]
    if isinstance(step, int):
        return [argument for argument in arguments if argument is not Ellipsis]
    return []


def _known_keys(model: type[BaseModel], loc: Iterable[str | int]) -> list[str]:
    keys: list[str] = []
    for annotation in _flat(_annotations(model, loc)):
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            keys += [field.alias or name for name, field in annotation.model_fields.items()]
    return keys


def secret_paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """Where a validated model holds secrets."""
    if isinstance(value, SecretStr) or (isinstance(value, StoreUrl) and value.has_password):
        yield path
    for steps, item in _held(value):
        if type(item) not in _SCALARS:
            yield from secret_paths(item, path + steps)


def _held(value: Any) -> Iterable[tuple[Path, Any]]:
    if isinstance(value, BaseModel):
        held, fields = vars(value), type(value).model_fields.items()
        return [
            (() if name == "root" else (field.alias or name,), held.get(name))
            for name, field in fields
        ]
    if isinstance(value, dict):
        return [((str(key),), item) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [((index,), item) for index, item in enumerate(value)]
    return ()
