"""The admission chain: plugins in a fixed order, first those that change objects, then those that only judge them.

Upstream: k8s.io/apiserver/pkg/admission/chain.go. Which plugins a request concerns depends on its operation and resource
alone, so that is worked out once per kind of request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import NamedTuple, Protocol, runtime_checkable

from bowsprit.apiserver.admit import AdmissionAttributes, Operation
from bowsprit.machinery.names import GroupResource, GroupVersionKind

_REMEMBERED = 4096

CREATE, UPDATE, DELETE, CONNECT = Operation.CREATE, Operation.UPDATE, Operation.DELETE, Operation.CONNECT


class Target(NamedTuple):
    """What a request is aimed at: all that `Plugin.concerns` may look at."""

    operation: Operation
    resource: GroupResource
    subresource: str
    kind: str

    def is_on(self, resource: GroupResource, *operations: Operation) -> bool:
        """Whether the target is the resource itself (no subresource), under one of the operations."""
        return self.operation in operations and self.resource == resource and not self.subresource


class Plugin(Protocol):
    """An admission plugin; it also is a Mutator, a Validator or both."""

    @property
    def name(self) -> str:
        """As in `--enable-admission-plugins`."""
        ...

    def concerns(self, target: Target) -> bool:
        """Whether requests of this sort are shown to the plugin; the answer must not change."""
        ...


@runtime_checkable
class Mutator(Protocol):
    """A plugin that may change `attributes.object`."""

    async def mutate(self, attributes: AdmissionAttributes) -> None:
        """Change the object, or raise StatusError to refuse."""
        ...


@runtime_checkable
class Validator(Protocol):
    """A plugin that judges."""

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Raise StatusError to refuse."""
        ...


Step = Callable[[AdmissionAttributes], Awaitable[None]]
Steps = tuple[tuple[str, Step], ...]  # with the plugins' names
Observer = Callable[[str, str, str, bool, float], None]
"""Told of a plugin (\"\": of all of them): its name, the operation, \"admit\" or \"validate\", whether it refused, seconds."""
# Once a webhook or policy has changed the object, the plugins before it see it again, for what it has added.
Reinvoke = Callable[[AdmissionAttributes], bool]


class AdmissionChain:
    """See the module's docstring; implements admit.Admission.

    Args:
        plugins: in order.
    """

    def __init__(self, plugins: Sequence[Plugin]) -> None:
        self._plugins = tuple(plugins)
        self._steps: dict[Target, tuple[Steps, Steps]] = {}
        self.observer: Observer | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The plugins' names, in order."""
        return tuple(plugin.name for plugin in self._plugins)

    async def mutate(self, attributes: AdmissionAttributes) -> None:
        """See admit.Admission. Runs twice when a plugin asks for it (upstream's reinvocation)."""
        steps = self._for(attributes)[0]
        await self._walk("admit", steps, attributes)
        if attributes.reinvocation.pop(REINVOKE, False):
            attributes.reinvocation[SECOND_ROUND] = True
            await self._walk("admit", steps, attributes)

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """See admit.Admission."""
        await self._walk("validate", self._for(attributes)[1], attributes)

    async def _walk(self, sort: str, steps: Steps, attributes: AdmissionAttributes) -> None:
        observer = self.observer
        if observer is None:
            for _, step in steps:
                await step(attributes)
            return
        operation: str = attributes.operation.value
        begun = last = perf_counter()
        name, rejected = "", True
        try:
            for name, step in steps:
                await step(attributes)
                now = perf_counter()
                observer(name, operation, sort, False, now - last)
                last = now
            rejected = False
        finally:
            now = perf_counter()
            if rejected:
                observer(name, operation, sort, True, now - last)
            observer("", operation, sort, rejected, now - begun)

    def _for(self, attributes: AdmissionAttributes) -> tuple[Steps, Steps]:
        target = Target(attributes.operation, attributes.gvr.gr, attributes.subresource, attributes.gvk.kind)
        steps = self._steps.get(target)
        if steps is None:
            if len(self._steps) >= _REMEMBERED:  # custom resources come and go
                self._steps.clear()
            concerned = [plugin for plugin in self._plugins if plugin.concerns(target)]
            steps = self._steps[target] = (
                tuple((plugin.name, plugin.mutate) for plugin in concerned if isinstance(plugin, Mutator)),
                tuple((plugin.name, plugin.validate) for plugin in concerned if isinstance(plugin, Validator)),
            )
        return steps


REINVOKE = "reinvoke"  # set in `attributes.reinvocation`: the object changed, run the mutating plugins once more
SECOND_ROUND = "second round"  # set while they run again


def is_virtual_review(kind: GroupVersionKind) -> bool:
    """Whether the kind is one of the reviews that webhooks never see (upstream authorization and authentication kinds)."""
    return kind.group in ("authentication.k8s.io", "authorization.k8s.io") and kind.kind.endswith("Review")
