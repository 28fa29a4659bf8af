"""What is wrong with a message, told so that its sender can mend it, and without its values."""

from __future__ import annotations

from typing import Final

import msgspec

MAX_VIOLATIONS: Final = 100
_MAX_POINTER: Final = 256


class Violation(msgspec.Struct, frozen=True, gc=False):
    """One thing that breaks the contract.

    `where` is body, query, header, path or cookie. `pointer` is a JSON pointer into the body, or a
    parameter's name, with a pointer behind it for what stands inside. `keyword` is the JSON Schema
    keyword that is not met, or `json`, `content` and the like for what no keyword says. `message`
    holds no value that the sender sent.
    """

    where: str
    pointer: str
    message: str
    keyword: str

    def as_mapping(self) -> dict[str, str]:
        """As it stands in the problem."""
        pointer = self.pointer
        if len(pointer) > _MAX_POINTER:
            pointer = pointer[:_MAX_POINTER] + "..."
        return {
            "in": self.where,
            "pointer": pointer,
            "message": self.message,
            "keyword": self.keyword,
        }


def summary(violations: list[Violation]) -> dict[str, object]:
    """The members of a problem that tell the violations, a bounded number of them."""
    shown = [violation.as_mapping() for violation in violations[:MAX_VIOLATIONS]]
    members: dict[str, object] = {"violations": shown}
    if len(violations) > MAX_VIOLATIONS:
        members["violations_total"] = len(violations)
    return members


def escape(token: str) -> str:
    """One step of a JSON pointer (RFC 6901 section 3)."""
    return token.replace("~", "~0").replace("/", "~1")
