"""The memory tier: stored answers of one process, for all routes, bounded by bytes.

It outlives reloads. The answer used longest ago goes first. It also knows what is being fetched, so
that an answer which was on its way when its URI was purged is not stored after all.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from gateway.message import Headers
from gateway.policies.cache.entry import Entry, Selector
from gateway.policies.cache.key import Slot, Uri, selection

_MAX_VARIANTS: Final = 100
_MAX_GROUPS: Final = 4


class Fetch:
    """An answer under way. `dead` once it may not be stored any more, because of a purge."""

    __slots__ = ("dead", "purged", "slot", "uri")

    def __init__(self, uri: Uri, slot: Slot) -> None:
        self.uri = uri
        self.slot = slot
        self.dead = False
        # Selectors by tag: the answer's tags are not known before it came.
        self.purged: list[Selector] = []

    def purge(self, selector: Selector) -> None:
        """Note a purge that came in between."""
        if selector.tag:
            self.purged.append(selector)
        elif selector.takes(self.uri, self.slot[0], ()):
            self.dead = True

    def may_store(self, entry: Entry) -> bool:
        """Whether no purge since its beginning meant this answer."""
        return not self.dead and not any(
            each.takes(entry.uri, entry.slot[0], entry.tags) for each in self.purged
        )


class _Group:
    """The stored answers of a URI and slot whose Vary names the same fields."""

    __slots__ = ("entries", "names")

    def __init__(self, names: tuple[bytes, ...]) -> None:
        self.names = names
        self.entries: dict[tuple[bytes | None, ...], Entry] = {}


class MemoryTier:
    """Stored answers by URI, slot and variant. `max_bytes` bounds what they take in memory.

    `size` is what they take now; `evictions` counts those that had to go for others.
    """

    def __init__(self, max_bytes: int) -> None:
        self.size = 0
        self.evictions = 0
        self._max_bytes = max_bytes
        self._resources: dict[Uri, dict[Slot, list[_Group]]] = {}
        # From the one used longest ago to the one used last. `touch` notes that a stored entry was.
        self._used: OrderedDict[Entry, None] = OrderedDict()
        self.touch = self._used.move_to_end
        self._tagged: dict[bytes, set[Entry]] = {}
        self._fetching: dict[Uri, set[Fetch]] = {}

    def __len__(self) -> int:
        return len(self._used)

    def resize(self, max_bytes: int) -> None:
        """Keep to another bound from now on."""
        self._max_bytes = max_bytes
        self._make_room()

    def find(self, uri: Uri, slot: Slot, headers: Headers) -> Entry | None:
        """The newest stored answer that matches a request, fresh or not."""
        resource = self._resources.get(uri)
        if resource is None:
            return None
        groups = resource.get(slot)
        if groups is None:
            return None
        if len(groups) == 1 and not groups[0].names:
            return groups[0].entries.get(())
        found: Entry | None = None
        for group in groups:
            entry = group.entries.get(selection(group.names, headers))
            if entry is not None and (found is None or entry.born > found.born):
                found = entry
        return found

    def knows(self, uri: Uri, slot: Slot) -> bool:
        """Whether some variant is stored."""
        return slot in self._resources.get(uri, ())

    def names(self, uri: Uri, slot: Slot) -> tuple[bytes, ...]:
        """What the stored variants vary by."""
        groups = self._resources.get(uri, {}).get(slot, ())
        return tuple(sorted({name for group in groups for name in group.names}))

    def __contains__(self, entry: Entry) -> bool:
        return entry in self._used

    def supersede(self, uri: Uri, slot: Slot, headers: Headers, *, open_only: bool) -> None:
        """Forget what matches a request, because there is a newer answer to it.

        All of it, whatever its Vary names: when the newer one is gone, an older one must not come
        to light again. `open_only` leaves what the request could not have been given.
        """
        for group in list(self._resources.get(uri, {}).get(slot, ())):
            entry = group.entries.get(selection(group.names, headers))
            if entry is not None and (entry.open or not open_only):
                self.remove(entry)

    def put(self, entry: Entry) -> bool:
        """Store an answer in place of the one it replaces; False if it has no room at all."""
        self.drop_variant(entry)
        if entry.size > self._max_bytes:
            return False
        groups = self._resources.setdefault(entry.uri, {}).setdefault(entry.slot, [])
        group = next((each for each in groups if each.names == entry.names), None)
        if group is None:
            group = _Group(entry.names)
            groups.append(group)
        group.entries[entry.values] = entry
        self._used[entry] = None
        self.size += entry.size
        for tag in entry.tags:
            self._tagged.setdefault(tag, set()).add(entry)
        if len(group.entries) > _MAX_VARIANTS:
            self.remove(next(iter(group.entries.values())))
        if len(groups) > _MAX_GROUPS:
            for each in list(groups[0].entries.values()):
                self.remove(each)
        self._make_room()
        return entry in self._used

    def drop_variant(self, entry: Entry) -> None:
        """Remove the stored answer that would be found in the same place, if there is one."""
        for group in self._resources.get(entry.uri, {}).get(entry.slot, ()):
            if group.names == entry.names:
                old = group.entries.get(entry.values)
                if old is not None:
                    self.remove(old)
                return

    def remove(self, entry: Entry) -> None:
        """Forget an entry; one that is gone already is fine."""
        if entry not in self._used:
            return
        del self._used[entry]
        self.size -= entry.size
        for tag in entry.tags:
            tagged = self._tagged[tag]
            tagged.discard(entry)
            if not tagged:
                del self._tagged[tag]
        resource = self._resources[entry.uri]
        groups = resource[entry.slot]
        group = next(each for each in groups if each.names == entry.names)
        del group.entries[entry.values]
        if not group.entries:
            groups.remove(group)
        if not groups:
            del resource[entry.slot]
        if not resource:
            del self._resources[entry.uri]

    def _make_room(self) -> None:
        while self.size > self._max_bytes:
            self.remove(next(iter(self._used)))
            self.evictions += 1

    def invalidate(self, uri: Uri) -> int:
        """Forget every answer of a URI, those under way too; how many were stored."""
        for fetch in self._fetching.get(uri, ()):
            fetch.dead = True
        slots = self._resources.get(uri, {})
        return self._forget(
            [entry for groups in slots.values() for group in groups
             for entry in group.entries.values()]
        )  # fmt: skip

    def purge(self, selector: Selector) -> int:
        """Forget what a selector takes, answers under way too; how many were stored."""
        for fetches in self._fetching.values():
            for fetch in fetches:
                fetch.purge(selector)
        if selector.tag:
            tag = selector.tag.encode("utf-8", "surrogateescape")
            return self._forget(list(self._tagged.get(tag, ())))
        return self._forget(
            [entry for entry in self._used if selector.takes(entry.uri, entry.slot[0], entry.tags)]
        )

    def _forget(self, entries: Iterable[Entry]) -> int:
        count = 0
        for entry in entries:
            self.remove(entry)
            count += 1
        return count

    def begin(self, uri: Uri, slot: Slot) -> Fetch:
        """Note that an answer is being fetched. `end` must follow."""
        fetch = Fetch(uri, slot)
        self._fetching.setdefault(uri, set()).add(fetch)
        return fetch

    def end(self, fetch: Fetch) -> None:
        """The answer has come whole, or never will. Safe to call twice."""
        fetches = self._fetching.get(fetch.uri)
        if fetches is not None:
            fetches.discard(fetch)
            if not fetches:
                del self._fetching[fetch.uri]

    def clear(self) -> None:
        """Forget everything."""
        self._forget(list(self._used))
