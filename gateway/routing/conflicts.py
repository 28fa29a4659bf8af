"""Which routes can't be told apart. Only routes of one host pattern and path shape come here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gateway.routing.tree import Route, V


def conflicts(routes: Sequence[Route[V]]) -> Iterator[tuple[Route[V], Route[V]]]:
    """Pairs of routes of which one request could match both, neither being more specific.

    Each later route is named once, with the first earlier one that it collides with.
    """
    if len(routes) < 2:
        return
    earlier: dict[tuple[int, str], list[Route[V]]] = {}
    for route in routes:
        found = None
        for method in route.methods or ("",):
            # Routes of different method rank or different numbers of conditions never collide.
            rivals = earlier.setdefault((len(route.conditions), method), [])
            found = found or next((rival for rival in rivals if _both_hold(rival, route)), None)
            rivals.append(route)
        if found is not None:
            yield found, route


def _both_hold(first: Route[V], second: Route[V]) -> bool:
    """Whether one request could fulfil the header conditions of both."""
    wanted = dict(first.conditions)
    return all(wanted.get(name, value) == value for name, value in second.conditions)
