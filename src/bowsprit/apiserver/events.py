"""Watch events as bytes: from a change of the cache to the line that a watcher reads, encoded once for all who read the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import orjson

from bowsprit.apiserver import tables
from bowsprit.apiserver.cacher import Change, Item
from bowsprit.apiserver.collection import Collection
from bowsprit.apiserver.encoding import encode, encode_plain
from bowsprit.apiserver.negotiation import JSON, Representation
from bowsprit.apiserver.resource import Version
from bowsprit.apiserver.selection import Selection
from bowsprit.machinery import protobuf
from bowsprit.machinery.objects import Obj

INITIAL_EVENTS_END = "k8s.io/initial-events-end"
_OPENING = {
    name: b'{"type":"%b","object":' % name.encode() for name in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR")
}

Frame = Callable[[bytes], bytes]  # how one event is wrapped for the transport (a chunk of a chunked body)


class EventEncoder:
    """Makes the events of one watch. Encoders with the same `key` make the same bytes and share them."""

    def __init__(
        self,
        collection: Collection,
        version: Version,
        chosen: Representation,
        frame: Frame,
        *,
        include: str = "",
        now: Callable[[], datetime],
    ) -> None:
        self._collection = collection
        self._version = version
        self._chosen = chosen
        self._frame = frame
        self._include = include
        self._now = now
        self._raw = chosen.media_type == JSON and not chosen.convert and collection.is_hub(version)
        # Whoever converts elsewhere cannot do so while changes are handed out.
        self.takes_time = collection.resource.conversion is not None and not collection.is_hub(version)
        # Tables carry ages, and columns only in the first event: they are made anew for every watch.
        self._shared = chosen.convert != "Table"
        self._columns_sent = False
        self.is_text = chosen.media_type == JSON
        self.key: object = (version.gvk, chosen, frame)

    def audience_key(self, selection: Selection) -> object:
        """What watches have in common that get the same events; a table's watch is alone."""
        return (self.key, selection.key) if self._shared else self

    def change(self, change: Change, selection: Selection) -> bytes | None:
        """The event that a change is for a watch with this selection, None if it is none."""
        sort, from_previous = _transition(change, selection)
        if not sort:
            return None
        if not self._shared:
            return self._make(sort, change.item, change.previous if from_previous else None)
        key = (self.key, sort)
        line = change.lines.get(key)
        if line is None:
            line = self._make(sort, change.item, change.previous if from_previous else None)
            change.lines[key] = line
        return line

    async def prepare(self, items: Sequence[Item]) -> None:
        """Makes the events of items ready, if that takes time. Raises StatusError."""
        if self.takes_time:
            await self._collection.prepare(self._version, [self._collection.decode(item) for item in items])

    def added(self, item: Item) -> bytes:
        """The synthetic ADDED event of an item that was there before the watch began."""
        return self._make("ADDED", item, None)

    def _make(self, sort: str, item: Item, previous: Item | None) -> bytes:
        if previous is not None:
            # The object left the selection: watchers see its last matching state, stamped with the revision of the change.
            obj = self._collection.decode(previous)
            if self._raw:
                return self._frame(_OPENING[sort] + encode(obj).at(item.revision) + b"}\n")
            obj["metadata"]["resourceVersion"] = str(item.revision)
            return self._encode(sort, obj)
        if self._raw:
            return self._frame(_OPENING[sort] + item.value + b"}\n")
        return self._encode(sort, self._collection.decode(item))

    def _encode(self, sort: str, hub: Obj) -> bytes:
        return self._event(sort, self._convert(self._collection.from_hub(self._version, hub)))

    def _convert(self, obj: Obj, include: str = "") -> Obj:
        convert = self._chosen.convert
        if convert == "Table":
            revision = obj["metadata"].get("resourceVersion")
            table = tables.table(
                [obj],
                self._version.printer,
                self._now(),
                include=include or self._include,
                version=self._chosen.version,
                metadata={"resourceVersion": revision} if revision else {},
                with_columns=not self._columns_sent,
            )
            self._columns_sent = True
            return table
        return tables.partial(obj, self._chosen.version) if convert else obj

    def _event(self, sort: str, obj: Obj) -> bytes:
        if self._chosen.media_type != JSON:
            return self._frame(protobuf.encode_watch_event(sort, protobuf.encode(obj)))
        body = encode_plain(obj) if not self._chosen.convert and "uid" in obj.get("metadata", {}) else orjson.dumps(obj)
        return self._frame(_OPENING[sort] + body + b"}\n")

    def bookmark(self, revision: int, *, initial_end: bool = False) -> bytes:
        """A BOOKMARK at the revision, that which ends the initial events if so wanted."""
        metadata: Obj = {"resourceVersion": str(revision)}
        if initial_end:
            metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
        obj = {"kind": self._version.gvk.kind, "apiVersion": self._version.gvk.api_version, "metadata": metadata}
        # A table's bookmark must carry the annotation, whatever includeObject says.
        return self._event("BOOKMARK", self._convert(obj, "Metadata"))

    def error(self, status: Obj) -> bytes:
        """An ERROR event with a Status."""
        if self._chosen.media_type != JSON:
            return self._frame(protobuf.encode_watch_event("ERROR", protobuf.encode(status)))
        return self._frame(_OPENING["ERROR"] + orjson.dumps(status) + b"}\n")


def _transition(change: Change, selection: Selection) -> tuple[str, bool]:
    """(event type or "", whether the object shown is the previous one)."""
    previous = change.previous
    if selection.everything:
        if change.deleted:
            return "DELETED", False
        return ("ADDED" if previous is None else "MODIFIED"), False
    was = previous is not None and selection.matches(previous)
    if change.deleted:
        return ("DELETED" if was else ""), False
    matches = selection.matches(change.item)
    if matches:
        return ("MODIFIED" if was else "ADDED"), False
    return ("DELETED" if was else ""), was
