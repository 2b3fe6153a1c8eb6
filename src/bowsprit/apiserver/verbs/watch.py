"""WATCH: the changes of a collection as they happen, over a chunked answer or a WebSocket.

Theory. A watch has a position, the revision it has sent everything up to. While it is `live`, the cache pushes changes and they
are written at once. When the client reads too slowly (the transport's buffer is above its mark) the watch stops being live and
its task reads what was missed from the cache's history once the buffer has drained. A watch that falls behind the history, or
does not drain in time, is ended: the client lists again. No watch has a queue. Live watches that want the same bytes form an
Audience, which encodes for all of them at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial
from random import uniform
from typing import TYPE_CHECKING, cast

from aiohttp import WSMsgType, web

from bowsprit.apiserver import negotiation
from bowsprit.apiserver.answer import Answer, Sent, chunk, date_header, header_lines, status_line
from bowsprit.apiserver.cacher import Cacher, Change, TooOldError
from bowsprit.apiserver.call import Call
from bowsprit.apiserver.collection import VIEWS_AT_ONCE
from bowsprit.apiserver.conversion import prepared
from bowsprit.apiserver.events import EventEncoder
from bowsprit.apiserver.options import ListOptions, parse_revision
from bowsprit.apiserver.selection import Selection
from bowsprit.apiserver.tables import check_include
from bowsprit.apiserver.verbs.get import FRESH_SECONDS
from bowsprit.machinery.errors import StatusError, expired, too_large_resource_version, unknown

if TYPE_CHECKING:
    from bowsprit.apiserver.connection import ConnectionHandler

MIN_TIMEOUT_SECONDS = 1800.0  # upstream MinRequestTimeout: a watch lasts this long, up to twice as long
BOOKMARK_SECONDS = 60.0
BOOKMARK_BEFORE_END = 2.0
DRAIN_SECONDS = 60.0
SLICE_BYTES = 256 << 10


async def watch(call: Call, common: bytes) -> Answer | Sent | web.StreamResponse:
    """Answers until the timeout, the client's leaving or the collection's end. Raises what can be told before the 200."""
    accept = call.request.headers.get("Accept", "")
    negotiation.check_route(accept, streams=True)
    chosen = negotiation.negotiate_watch(accept, protobuf=call.version.protobuf)
    include = check_include(call.query.get("includeObject", "") if call.query else "")
    options = ListOptions.from_query(call.query)
    options.check(watch=True)
    info = call.ctx.info
    selection = Selection(call.collection, info.namespace, options.label_selector, options.field_selector)
    if info.name and selection.only() is None:  # the legacy /watch/…/name paths
        selection = Selection(call.collection, info.namespace, options.label_selector, f"metadata.name={info.name}")
    try:
        revision = parse_revision(options.resource_version)
    except ValueError as failure:
        raise unknown(str(failure)) from None
    upgrade = call.request.headers.get("Upgrade", "").lower() == "websocket"
    encoder = EventEncoder(
        call.collection,
        call.version,
        chosen,
        _plain if upgrade else chunk,
        include=include,
        now=call.collection.world.now,
    )
    if options.send_initial_events and not await call.collection.cacher.wait_until(revision, FRESH_SECONDS):
        raise too_large_resource_version(revision, call.collection.cacher.revision)
    stream: _Watch
    if upgrade:
        socket = web.WebSocketResponse(heartbeat=30.0, protocols=())
        stream = _SocketWatch(call, encoder, selection, options, revision, socket)
        await stream.run()
        return socket
    protocol = cast("ConnectionHandler", call.request.protocol)
    stream = _ChunkedWatch(call, encoder, selection, options, revision, protocol)
    media_type = chosen.media_type if chosen.media_type == negotiation.JSON else f"{chosen.media_type};stream=watch"
    stream.begin(common, media_type)
    await stream.run()
    return Sent(200, stream.sent_bytes, keep_alive=stream.finished)


def _plain(data: bytes) -> bytes:
    return data


class Audience:
    """The live watches that want the same events in the same form; follows the cache while it has members."""

    def __init__(self, key: object, cacher: Cacher, encoder: EventEncoder, selection: Selection) -> None:
        self._key = key
        self._cacher = cacher
        self._encoder = encoder
        self._selection = selection
        self._members: dict[_ChunkedWatch, None] = {}
        self.namespace: str | None = selection.namespace or None

    @property
    def count(self) -> int:
        return len(self._members)

    def join(self, watch: _ChunkedWatch) -> None:
        if not self._members:
            self._cacher.audiences[self._key] = self
            self._cacher.add(self)
        self._members[watch] = None

    def leave(self, watch: _ChunkedWatch) -> None:
        if watch in self._members:
            del self._members[watch]
            if not self._members:
                del self._cacher.audiences[self._key]
                self._cacher.remove(self)

    def push(self, changes: Sequence[Change]) -> None:
        encoder, selection = self._encoder, self._selection
        lines = [line for change in changes if (line := encoder.change(change, selection)) is not None]
        if not lines:
            return
        data = lines[0] if len(lines) == 1 else b"".join(lines)
        self._cacher.count_sent(lines, len(self._members))
        slow = [member for member in self._members if not member.write_now(data)]
        for member in slow:
            self.leave(member)
            member.fall_behind(changes[-1].item.revision)

    def end(self) -> None:
        for member in tuple(self._members):
            member.end()


class _Watch:
    """What both transports share. Subclasses write."""

    def __init__(
        self, call: Call, encoder: EventEncoder, selection: Selection, options: ListOptions, revision: int
    ) -> None:
        self._call = call
        self._cacher = call.collection.cacher
        self._encoder = encoder
        self._selection = selection
        self._options = options
        self._start = revision
        self._position = 0  # while not live: everything up to this revision has been sent
        self._live = False
        self._ended = False
        self._wake = asyncio.Event()
        self.sent_bytes = 0
        self.finished = False

    # -- called by the audience ----------------------------------------------------------------------------------------

    def fall_behind(self, position: int) -> None:
        """The client reads too slowly: from here on the watch's task sends."""
        self._live = False
        self._position = position
        self._wake.set()

    def end(self) -> None:
        self._ended = True
        self._wake.set()

    # -- the watch's own task --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Sends everything until the end."""
        loop = asyncio.get_running_loop()
        timeout = self._options.timeout_seconds
        deadline = loop.time() + (timeout or uniform(1, 2) * MIN_TIMEOUT_SECONDS)
        try:
            await self._send_beginning()
            await self._follow(loop, deadline)
            await self._finish()
        except TooOldError as failure:
            error = expired(str(failure))
            with contextlib.suppress(ConnectionError, TimeoutError):
                await self._write(self._encoder.error(error.to_status()))
                await self._finish()
        except StatusError as failure:
            with contextlib.suppress(ConnectionError, TimeoutError):
                await self._write(self._encoder.error(failure.to_status()))
                await self._finish()
        except (ConnectionError, TimeoutError):
            self._abort()
        finally:
            self._go_offline()

    async def _send_beginning(self) -> None:
        options = self._options
        initial = options.send_initial_events
        if initial is None:
            initial = self._start == 0
        if not initial:
            if options.send_initial_events is False and self._start == 0:
                self._position = self._cacher.revision
            else:
                self._position = self._start
                if self._start < self._cacher.oldest:
                    raise TooOldError(self._start, self._cacher.oldest)
            return
        revision = self._cacher.revision
        only = self._selection.only()
        if only is not None:
            one = self._cacher.get(only)
            items = [one] if one is not None else []
        else:
            items = self._cacher.items(self._selection.prefix)
        self._position = revision
        piece: list[bytes] = []
        size = 0
        items = [item for item in items if self._selection.matches(item)] if self._encoder.takes_time else items
        for position, item in enumerate(items):
            if self._encoder.takes_time and position % VIEWS_AT_ONCE == 0:
                await self._encoder.prepare(items[position : position + VIEWS_AT_ONCE])
            if self._selection.matches(item):
                line = await prepared(partial(self._encoder.added, item))
                self._cacher.count_sent((line,))
                piece.append(line)
                size += len(line)
                if size >= SLICE_BYTES:
                    await self._write(b"".join(piece))
                    piece, size = [], 0
        if options.send_initial_events and options.allow_watch_bookmarks:
            piece.append(self._encoder.bookmark(revision, initial_end=True))
        if piece:
            await self._write(b"".join(piece))

    async def _follow(self, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        bookmarks = self._options.allow_watch_bookmarks
        bookmarked = self._position
        next_bookmark = self._next_bookmark(loop.time(), deadline)
        while not self._ended:
            self._wake.clear()
            await self._catch_up()
            now = loop.time()
            if now >= deadline or self._ended:
                return
            if bookmarks and now >= next_bookmark:
                # Live: everything that happened has been sent.
                revision = self._cacher.revision if self._live else self._position
                if revision > bookmarked:
                    await self._write(self._encoder.bookmark(revision))
                    bookmarked = revision
                next_bookmark = self._next_bookmark(now, deadline)
                continue
            until = min(deadline, next_bookmark) if bookmarks else deadline
            timer = loop.call_at(until, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                timer.cancel()

    @staticmethod
    def _next_bookmark(now: float, deadline: float) -> float:
        """About every minute, and shortly before the end (upstream cacheWatcher.nextBookmarkTime)."""
        heartbeat = now + BOOKMARK_SECONDS
        before_end = deadline - BOOKMARK_BEFORE_END
        return min(heartbeat, before_end) if before_end > now else heartbeat

    async def _catch_up(self) -> None:
        """Sends what is missing and goes live. Raises TooOldError when it is forgotten already."""
        while not self._live and not self._ended:
            piece: list[bytes] = []
            size = 0
            behind = False
            for change in self._cacher.changes_since(self._position):
                self._position = change.item.revision
                if not self._selection.covers(change.item.key):
                    continue
                line = await prepared(partial(self._encoder.change, change, self._selection))
                if line is not None:
                    piece.append(line)
                    size += len(line)
                    if size >= SLICE_BYTES:
                        behind = True
                        break
            if piece:
                self._cacher.count_sent(piece)
                await self._write(b"".join(piece))
                # Others may have written while we waited for the buffer.
                behind = behind or self._cacher.seen > self._position
            if not behind:
                self._go_live()

    def _go_live(self) -> None:
        """Everything has been sent: from here on the cache is listened to."""
        raise NotImplementedError

    def _go_offline(self) -> None:
        """Stops listening."""
        raise NotImplementedError

    async def _write(self, data: bytes) -> None:
        """Writes and waits until there is room for more. Raises ConnectionError, TimeoutError."""
        raise NotImplementedError

    async def _finish(self) -> None:
        """Ends the stream in order."""
        raise NotImplementedError

    def _abort(self) -> None:
        """Ends the stream at once."""
        raise NotImplementedError


class _ChunkedWatch(_Watch):
    """Events as the chunks of an HTTP/1.1 body, written straight to the transport."""

    count = 1

    def __init__(
        self,
        call: Call,
        encoder: EventEncoder,
        selection: Selection,
        options: ListOptions,
        revision: int,
        protocol: ConnectionHandler,
    ) -> None:
        super().__init__(call, encoder, selection, options, revision)
        self._protocol = protocol
        self._audience: Audience | None = None
        self.namespace: str | None = selection.namespace or None
        protocol.on_lost(self.end)

    def _go_live(self) -> None:
        if self._encoder.takes_time:
            self._live = True
            self._cacher.add(self)
            return
        key = self._encoder.audience_key(self._selection)
        audience = self._cacher.audiences.get(key)
        if not isinstance(audience, Audience):
            audience = Audience(key, self._cacher, self._encoder, self._selection)
        audience.join(self)
        self._audience = audience
        self._live = True

    def _go_offline(self) -> None:
        if self._audience is not None:
            self._audience.leave(self)
            self._audience = None
        self._cacher.remove(self)
        self._live = False

    def push(self, changes: Sequence[Change]) -> None:
        """What changed takes time to encode: the watch's task does it."""
        self._go_offline()
        self._wake.set()

    def begin(self, common: bytes, media_type: str) -> None:
        """The head of the answer: clients wait for it before anything happens."""
        transport = self._protocol.transport
        if transport is not None:
            lines = header_lines([("Content-Type", media_type), ("Transfer-Encoding", "chunked")])
            transport.write(status_line(200) + common + lines + date_header() + b"\r\n")

    def write_now(self, data: bytes) -> bool:
        """Writes without waiting; False when the client is too slow to get more."""
        protocol = self._protocol
        transport = protocol.transport
        if transport is None:
            self._ended = True
            return False
        self.sent_bytes += len(data)
        transport.write(data)
        return not protocol._paused

    async def _write(self, data: bytes) -> None:
        transport = self._protocol.transport
        if transport is None:
            raise ConnectionResetError("the client is gone")
        self.sent_bytes += len(data)
        transport.write(data)
        if self._protocol.writing_paused:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._protocol._drain_helper()

    async def _catch_up(self) -> None:
        if self._protocol.writing_paused:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._protocol._drain_helper()
        await super()._catch_up()

    async def _finish(self) -> None:
        self._protocol.off_lost(self.end)
        transport = self._protocol.transport
        if transport is not None:
            transport.write(b"0\r\n\r\n")
            self.finished = True

    def _abort(self) -> None:
        self._protocol.off_lost(self.end)
        transport = self._protocol.transport
        if transport is not None:
            transport.abort()


class _SocketWatch(_Watch):
    """Events as WebSocket messages (upstream WatchServer.HandleWS)."""

    count = 1

    def __init__(
        self,
        call: Call,
        encoder: EventEncoder,
        selection: Selection,
        options: ListOptions,
        revision: int,
        socket: web.WebSocketResponse,
    ) -> None:
        super().__init__(call, encoder, selection, options, revision)
        self._socket = socket
        self._text = encoder.is_text
        self.namespace: str | None = selection.namespace or None

    async def run(self) -> None:
        await self._socket.prepare(self._call.request)
        reader = asyncio.ensure_future(self._read())
        try:
            await super().run()
        finally:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader

    async def _read(self) -> None:
        async for message in self._socket:
            if message.type in (WSMsgType.CLOSE, WSMsgType.ERROR):
                break
        self.end()

    def _go_live(self) -> None:
        self._live = True
        self._cacher.add(self)

    def _go_offline(self) -> None:
        self._live = False
        self._cacher.remove(self)

    def push(self, changes: Sequence[Change]) -> None:
        """A message is written by a coroutine: the watch's task reads the changes itself."""
        self._go_offline()
        self._wake.set()

    async def _write(self, data: bytes) -> None:
        if self._socket.closed:
            raise ConnectionResetError("the client is gone")
        async with asyncio.timeout(DRAIN_SECONDS):
            for message in self._messages(data):
                self.sent_bytes += len(message)
                if self._text:
                    await self._socket.send_str(message.decode())
                else:
                    await self._socket.send_bytes(message)

    def _messages(self, data: bytes) -> list[bytes]:
        return data.splitlines() if self._text else [data]

    async def _finish(self) -> None:
        self.finished = True
        with contextlib.suppress(ConnectionError, RuntimeError):
            await self._socket.close()

    def _abort(self) -> None:
        self.finished = False
