"""One compiled JSON Schema, and what it says of a value.

Compiling touches no network and no file: what a schema refers to must be in the registry. Patterns
are matched in linear time, whatever they are and whatever they are matched against. The one module
that knows the validator library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from itertools import islice
from typing import Any, Final

from gateway.contracts.messages import describe
from gateway.contracts.violations import MAX_VIOLATIONS, Violation, escape

# Above so many values in a body, finding every violation would stop the gateway for too long: then
# the first one is told.
MAX_NODES: Final = 5000
_REGEX_SIZE: Final = 4 * 1024 * 1024
_DRAFTS: Final = {
    "http://json-schema.org/draft-04/schema": "Draft4Validator",
    "http://json-schema.org/draft-06/schema": "Draft6Validator",
    "http://json-schema.org/draft-07/schema": "Draft7Validator",
    "https://json-schema.org/draft/2019-09/schema": "Draft201909Validator",
    "https://json-schema.org/draft/2020-12/schema": "Draft202012Validator",
}


@cache
def _library() -> Any:
    # When the first schema is compiled: it takes 6 MB that a gateway without contracts saves.
    import jsonschema_rs  # noqa: PLC0415

    return jsonschema_rs


@cache
def _patterns() -> Any:
    return _library().RegexOptions(size_limit=_REGEX_SIZE, dfa_size_limit=_REGEX_SIZE)


class SchemaError(ValueError):
    """A schema can't be compiled. `pointer` is a JSON pointer to what is wrong in it."""

    def __init__(self, message: str, pointer: str = "") -> None:
        super().__init__(f"{pointer}: {message}" if pointer else message)
        self.message = message
        self.pointer = pointer


class Registry:
    """Documents that schemas may refer to, by URI. Raises SchemaError if they can't stand there."""

    __slots__ = ("native",)

    def __init__(self, documents: Iterable[tuple[str, Any]]) -> None:
        library = _library()
        try:
            self.native = library.Registry(list(documents), draft=library.Draft202012)
        except (ValueError, library.ReferencingError) as error:
            raise SchemaError(_first_line(error)) from None


class Schema:
    """A compiled schema; safe to share."""

    __slots__ = ("_evaluate", "_is_valid", "_validate")

    def __init__(self, document: dict[str, Any] | bool, registry: Registry | None = None) -> None:
        validator = _compile(document, registry)
        self._is_valid: Callable[[Any], bool] = validator.is_valid
        self._evaluate = validator.evaluate
        self._validate = validator.validate

    def check(self, value: Any, where: str, prefix: str = "") -> list[Violation]:
        """What is wrong with `value`, in document order; empty if nothing is.

        `prefix` stands before the pointers. Of a very large value only the first violation is told.
        """
        if self._is_valid(value):
            return []
        if _is_large(value):
            return [self._first(value, where, prefix)]
        errors = self._evaluate(value).errors()
        found = [
            describe(where, prefix, each["schemaLocation"], each["instanceLocation"], each["error"])
            for each in islice(errors, MAX_VIOLATIONS)
        ]
        if len(errors) > MAX_VIOLATIONS:
            # Counted, not told.
            found += [found[-1]] * (len(errors) - MAX_VIOLATIONS)
        return found or [Violation(where, prefix, "does not meet the schema", "schema")]

    def is_valid(self, value: Any) -> bool:
        """Whether nothing is wrong with `value`."""
        return self._is_valid(value)

    def _first(self, value: Any, where: str, prefix: str) -> Violation:
        try:
            self._validate(value)
        except _library().ValidationError as error:
            return describe(
                where, prefix, pointer_of(error.schema_path), pointer_of(error.instance_path),
                error.message,
            )  # fmt: skip
        return Violation(where, prefix, "does not meet the schema", "schema")


def check_pattern(pattern: str) -> bool:
    """Whether a pattern can be matched in linear time."""
    try:
        _library().Draft202012Validator({"pattern": pattern}, pattern_options=_patterns())
    except ValueError:
        return False
    return True


def pointer_of(path: Iterable[str | int]) -> str:
    """The JSON pointer of these steps."""
    return "".join("/" + escape(str(step)) for step in path)


def _compile(document: dict[str, Any] | bool, registry: Registry | None) -> Any:
    library = _library()
    draft = "Draft202012Validator"
    if isinstance(document, dict) and isinstance(stated := document.get("$schema"), str):
        known = _DRAFTS.get(stated.rstrip("#"))
        if known is None:
            raise SchemaError("no JSON Schema dialect that is known here", "/$schema")
        draft = known
    try:
        return getattr(library, draft)(
            document,
            validate_formats=True,
            offline=True,
            mask="a value",
            pattern_options=_patterns(),
            registry=registry.native if registry is not None else None,
        )
    except library.ValidationError as error:
        pointer = pointer_of(error.instance_path)
        raise SchemaError(_explain(error), pointer) from None
    except (ValueError, library.ReferencingError) as error:
        raise SchemaError(_first_line(error)) from None


def _explain(error: Any) -> str:
    message = _first_line(error)
    last = error.instance_path[-1] if error.instance_path else ""
    if last == "pattern" or "patternProperties" in error.instance_path:
        return (
            "no regular expression that can be matched in linear time "
            "(look-around and back-references can't)"
        )
    if "Retrieval is disabled" in message or "is not present in a registry" in message:
        target = message.partition("'")[2].partition("'")[0]
        return f"{target} is not there; what a schema refers to is never fetched"
    return message


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _is_large(value: Any) -> bool:
    """Whether there are more values in it than can be judged one by one."""
    count = 1
    level = [value]
    while level:
        level = [
            child
            for parent in level
            if type(parent) is dict or type(parent) is list
            for child in (parent.values() if type(parent) is dict else parent)
        ]
        count += len(level)
        if count > MAX_NODES:
            return True
    return False
