"""What all controllers are made of: informers that put keys into a queue, and workers that sync them one at a time."""

from __future__ import annotations

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ClassVar

from bowsprit.client.cache import object_key
from bowsprit.client.discovery import DiscoveryClient, RestMapper
from bowsprit.client.errors import ClientError
from bowsprit.client.events import EventRecorder
from bowsprit.client.informer import Handler, Informer, InformerFactory
from bowsprit.client.rest import RestClient
from bowsprit.client.workqueue import ShutDown, WorkQueue
from bowsprit.machinery.errors import ConflictError, StatusError
from bowsprit.machinery.objects import Obj
from bowsprit.pki.authority import Authority
from bowsprit.pki.signing import PrivateKey

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ControllerContext:
    """What the manager gives to every controller. ``now`` and ``random`` are arguments for the tests' sake."""

    client: RestClient
    informers: InformerFactory
    discovery: DiscoveryClient
    mapper: RestMapper
    recorder: Callable[[str], EventRecorder]
    root_ca: bytes = b""
    token_key: PrivateKey | None = None  # signs the tokens in secrets
    signing_authority: Callable[[], Authority] | None = None  # read anew for each certificate: files change
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    random: random.Random = field(default_factory=random.Random)


class Controller(ABC):
    """One control loop.

    ``name`` is what --controllers calls it; ``component`` is the source of its events, if it records any; ``account`` is the
    ServiceAccount in kube-system that RBAC gives its rights to ("": it acts as the manager itself).
    """

    name: ClassVar[str]
    account: ClassVar[str]
    component: ClassVar[str] = ""
    workers: ClassVar[int] = 2

    def __init__(self, context: ControllerContext) -> None:
        self.context = context
        self.client = context.client
        self.queue: WorkQueue[str] = WorkQueue(self.name)
        self._recorder = context.recorder(self.component) if self.component else None

    @abstractmethod
    async def sync(self, key: str) -> None:
        """Bring the object called ``key`` nearer to what it asks for. An exception means: again, later."""

    async def run(self) -> None:
        """Work until cancelled; the informers are synced."""
        async with asyncio.TaskGroup() as group:
            for number in range(self.workers):
                group.create_task(self._work(), name=f"{self.name}-{number}")

    async def close(self) -> None:
        """Release what ``run`` does not: called once, after it has ended."""
        self.queue.shut_down()

    @property
    def idle(self) -> bool:
        """Nothing to do at the moment."""
        return self.queue.idle

    def now(self) -> datetime:
        """The time, UTC."""
        return self.context.now()

    def event(self, obj: Obj, type_: str, reason: str, message: str) -> None:
        """Record an event about ``obj`` (which has its apiVersion and kind)."""
        assert self._recorder is not None
        self._recorder.event(obj, "Warning" if type_ == "Warning" else "Normal", reason, message)

    def enqueue(self, obj: Obj) -> None:
        """Queue an object's key."""
        self.queue.add(object_key(obj))

    def watch(self, informer: Informer, enqueue: Callable[[Obj], None] | None = None) -> None:
        """Call ``enqueue`` (default: queue the object itself) for every change of the informer's objects."""
        call = enqueue or self.enqueue
        informer.add_handler(Handler(lambda obj, _: call(obj), lambda _, obj: call(obj), call))

    async def _work(self) -> None:
        while True:
            try:
                key = await self.queue.get()
            except ShutDown:
                return
            try:
                await self.sync(key)
                self.queue.forget(key)
            except ConflictError as exc:
                log.debug("%s: %s: %s", self.name, key, exc.message)
                self.queue.add_rate_limited(key)
            except (StatusError, ClientError, TimeoutError) as exc:
                log.info("%s: %s: %s", self.name, key, exc)
                self.queue.add_rate_limited(key)
            except Exception:
                log.exception("%s: sync of %s failed", self.name, key)
                self.queue.add_rate_limited(key)
            finally:
                self.queue.done(key)
