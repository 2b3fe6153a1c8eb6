"""Subscribers of a store within one process: who is told about which prefix."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bowsprit.store.protocol import Deliver, Event


class Subscriber:
    """One watch. Deliveries begin when `active`."""

    __slots__ = ("_cancel", "active", "deliver", "prefix")

    def __init__(self, prefix: str, deliver: Deliver, cancel: Callable[[Subscriber], None]) -> None:
        self.prefix = prefix
        self.deliver = deliver
        self.active = False
        self._cancel = cancel

    def cancel(self) -> None:
        self.active = False
        self._cancel(self)


class Subscribers:
    """All watches of a store, found by the folders of a key ("/registry/core/pods/" for "/registry/core/pods/ns/name")."""

    def __init__(self) -> None:
        self._by_prefix: dict[str, list[Subscriber]] = {}
        self._odd: list[str] = []  # prefixes that end within a folder's name

    def add(self, prefix: str, deliver: Deliver) -> Subscriber:
        """A new, not yet active watch."""
        subscriber = Subscriber(prefix, deliver, self._remove)
        self._by_prefix.setdefault(prefix, []).append(subscriber)
        if not prefix.endswith("/") and prefix not in self._odd:
            self._odd.append(prefix)
        return subscriber

    def _remove(self, subscriber: Subscriber) -> None:
        rest = [other for other in self._by_prefix.get(subscriber.prefix, []) if other is not subscriber]
        if rest:
            self._by_prefix[subscriber.prefix] = rest
        else:
            self._by_prefix.pop(subscriber.prefix, None)
            self._odd = [prefix for prefix in self._odd if prefix != subscriber.prefix]

    def publish(self, events: Sequence[Event]) -> None:
        """Hands the events, in revision order, to every active watch; each watch gets one batch."""
        batches: dict[Subscriber, list[Event]] = {}
        for event in events:
            for subscriber in self._of(event.entry.key):
                if subscriber.active:
                    batches.setdefault(subscriber, []).append(event)
        for subscriber, batch in batches.items():
            if subscriber.active:  # an earlier delivery may have cancelled it
                subscriber.deliver(batch)

    def _of(self, key: str) -> list[Subscriber]:
        found: list[Subscriber] = []
        slash = key.find("/")
        while slash >= 0:
            found += self._by_prefix.get(key[: slash + 1], ())
            slash = key.find("/", slash + 1)
        for prefix in self._odd:
            if key.startswith(prefix):
                found += self._by_prefix.get(prefix, ())
        return found

    def clear(self) -> None:
        for subscribers in self._by_prefix.values():
            for subscriber in subscribers:
                subscriber.active = False
        self._by_prefix.clear()
        self._odd.clear()
