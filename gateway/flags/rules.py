"""For whom a flag is on. Pure: an exchange in, yes or no out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gateway.groups import Group, Tagged, consumer_or_ip, members, point
from gateway.message import Exchange

if TYPE_CHECKING:
    from gateway.config.model_flag import FlagConfig


class Rule:
    """One state of a flag. `name` is the flag's, `known` are the consumers with tags."""

    __slots__ = ("_group", "_name", "is_for_all", "is_for_none", "share")

    def __init__(self, name: str, config: FlagConfig, known: Mapping[str, Tagged]) -> None:
        self._name = name
        self.share = config.percent
        self._group: Group | None = None
        if config.has_group:
            taken = members(config.consumers, config.tags, known)
            self._group = Group(config.header, taken)
        self.is_for_all = self.share >= 1.0
        self.is_for_none = self.share <= 0.0 and self._group is None

    def takes(self, exchange: Exchange) -> bool:
        """Whether the flag is on for this exchange.

        A share is one of callers: consumers, or addresses of those that have not proved a name.
        Who has neither (on a unix socket) is in no share but that of 100 %.
        """
        if self.is_for_all:
            return True
        if self.is_for_none:
            return False
        if self._group is not None and self._group.takes(exchange):
            return True
        if self.share <= 0.0:
            return False
        key = consumer_or_ip(exchange)
        return bool(key) and point(self._name, key) < self.share


class Switch:
    """What a route or a policy asks. Its rule is put in place of another while it is used."""

    __slots__ = ("__weakref__", "_configured", "_known", "name", "rule")

    def __init__(self, name: str, configured: FlagConfig, known: Mapping[str, Tagged]) -> None:
        self.name = name
        self._configured = configured
        self._known = known
        self.rule = Rule(name, configured, known)

    def follow(self, order: FlagConfig | None) -> None:
        """Do as ordered, or as configured if there is no order."""
        self.rule = Rule(self.name, order or self._configured, self._known)

    def is_on(self, exchange: Exchange) -> bool:
        """Whether it is on for this exchange."""
        return self.rule.takes(exchange)
