"""flag: a route exists only where a flag is on; elsewhere it is as if it were not there (404).

It stands in two places. Where a flag is off for everybody, the first one answers, before anything
could ask for credentials or tell that there is a route. Who is in a group or a share is known when
the caller is: behind `auth`.
"""

from __future__ import annotations

from typing import ClassVar, Final

from pydantic import ConfigDict, RootModel

from gateway.config.types import Name
from gateway.errors import ROUTE_NOT_FOUND, Rejection
from gateway.flags.rules import Switch
from gateway.message import Exchange
from gateway.policies.base import BuildContext, Guard

# The same words as for a path that no route has.
_REFUSAL: Final = Rejection(ROUTE_NOT_FOUND)


class FlagUse(RootModel[Name]):
    """The flag, by its name under flags, that must be on for the route to be there; else 404."""

    model_config = ConfigDict(frozen=True)


class FlagPolicy(Guard):
    """Answers 404 while the flag is off for everybody."""

    name: ClassVar[str] = "flag"
    Config: ClassVar[type[FlagUse]] = FlagUse

    def __init__(self, switch: Switch) -> None:
        self._switch = switch

    @classmethod
    def build(cls, config: FlagUse, context: BuildContext) -> FlagPolicy:
        """Bind the switch. Raises ConfigError if there is no such flag."""
        return cls(context.flag(config.root))

    def check(self, exchange: Exchange) -> Rejection | None:
        """Refuse if nobody may pass."""
        del exchange
        return _REFUSAL if self._switch.rule.is_for_none else None


class FlagGroupPolicy(Guard):
    """Answers 404 to those for whom the flag is off."""

    name: ClassVar[str] = "flag_group"
    Config: ClassVar[type[FlagUse]] = FlagUse

    def __init__(self, switch: Switch) -> None:
        self._switch = switch

    @classmethod
    def build(cls, config: FlagUse, context: BuildContext) -> FlagGroupPolicy:
        """Bind the switch. Raises ConfigError if there is no such flag."""
        return cls(context.flag(config.root))

    def check(self, exchange: Exchange) -> Rejection | None:
        """Refuse if the caller is not one of those for whom it is on."""
        return None if self._switch.rule.takes(exchange) else _REFUSAL
