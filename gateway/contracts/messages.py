"""What the validator reports, as violations: what was asked for, never what was there."""

from __future__ import annotations

import re
from typing import Final

from gateway.contracts.violations import Violation

# The validator's texts put the value first; what stands behind the last of these words is the
# schema's own.
_INFIX: Final = {
    "type": " is not of type",
    "pattern": " does not match ",
    "format": ' is not a "',
    "minimum": " is less than ",
    "maximum": " is greater than ",
    "exclusiveMinimum": " is less than or equal to ",
    "exclusiveMaximum": " is greater than or equal to ",
    "multipleOf": " is not a multiple of ",
    "minLength": " is shorter than ",
    "maxLength": " is longer than ",
    "minItems": " has less than ",
    "maxItems": " has more than ",
    "minProperties": " has less than ",
    "maxProperties": " has more than ",
}
_FIXED: Final = {
    "enum": "is not one of the values that are allowed",
    "const": "is not the value that is expected",
    "uniqueItems": "holds the same item twice",
    "contains": "does not hold the items that it must",
    "minContains": "does not hold enough of the items that it must",
    "maxContains": "holds too many of such items",
    "not": "is what it must not be",
    "oneOf": "meets several of the alternatives, and must meet one",
    "anyOf": "meets none of the alternatives",
    "unevaluatedProperties": "is not allowed here",
    "unevaluatedItems": "is not allowed here",
}
_REQUIRED: Final = " is a required property"
_FALSE: Final = "False schema does not allow"
_UNEXPECTED: Final = "Additional properties are not allowed ("
_KEYWORDS_OF_FALSE: Final = ("additionalProperties", "items", "unevaluatedProperties")
_MAX_MESSAGE: Final = 300
_MAX_NAMES: Final = 200


def describe(where: str, prefix: str, location: str, instance: str, error: str) -> Violation:
    """One reported error as a violation.

    `location` is the keyword's place in the schema and `instance` the value's, as JSON pointers;
    `prefix` stands before the latter.
    """
    steps = location.rpartition("#")[2].split("/")
    keyword = steps[-1]
    if keyword.isdigit() and len(steps) > 1:
        keyword = steps[-2]
    if error.startswith(_FALSE):
        keyword = keyword if keyword in _KEYWORDS_OF_FALSE else "false"
        message = "is not allowed here"
    elif error.endswith(_REQUIRED):
        message = f"the property {_shortened(error.removesuffix(_REQUIRED), _MAX_NAMES)} is missing"
    elif error.startswith(_UNEXPECTED):
        names = error.removeprefix(_UNEXPECTED).removesuffix(")")
        names = names.removesuffix(" were unexpected").removesuffix(" was unexpected")
        message = f"these properties are not allowed: {_shortened(names, _MAX_NAMES)}"
    else:
        message = _FIXED.get(keyword) or _constraint(keyword, error)
    return Violation(where, prefix + instance, message, keyword)


def _constraint(keyword: str, error: str) -> str:
    infix = _INFIX.get(keyword)
    if infix is not None:
        at = error.rfind(infix)
        if at >= 0 and keyword == "type":
            names = re.findall("[a-z]+", error[at + len(infix) + 1 :])
            return "is not of type " + " or ".join(sorted(names))
        if at >= 0:
            return _shortened(error[at + 1 :], _MAX_MESSAGE)
    return f"does not meet {_shortened(keyword, 40)}"


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[:length] + "..."
