"""The author's admission functions as plugins of the admission chain: `App.mutate` and `App.admit`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bowsprit.apiserver.admission.chain import Target
from bowsprit.apiserver.admit import AdmissionAttributes, Operation
from bowsprit.apiserver.request import RequestContext, RequestInfo
from bowsprit.apiserver.resource import Version
from bowsprit.extension.hooks import Hooks, awaited, replace_changed
from bowsprit.extension.kind import Kind, render
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj

_WRITES = (Operation.CREATE, Operation.UPDATE, Operation.DELETE)
_VERBS = {Operation.CREATE: "create", Operation.UPDATE: "update", Operation.DELETE: "delete"}


class _AppPlugin:
    """What both plugins share."""

    name = ""

    def __init__(self, hooks: Mapping[GroupResource, Hooks], now: Any) -> None:
        self._hooks = hooks
        self._now = now

    def concerns(self, target: Target) -> bool:
        """Objects of the app themselves and their status; a Scale or what is connected to is of another kind."""
        return target.operation in _WRITES and target.resource in self._hooks and target.subresource in ("", "status")

    def _context(self, attributes: AdmissionAttributes) -> RequestContext:
        gvr = attributes.gvr
        info = RequestInfo(
            "",
            _VERBS[attributes.operation],
            True,
            "apis",
            gvr.group,
            gvr.version,
            attributes.namespace,
            gvr.resource,
            attributes.subresource,
            attributes.name,
        )
        ctx = RequestContext(info, attributes.user, self._now(), dry_run=attributes.dry_run)
        ctx.warnings = _Warnings(attributes)
        return ctx


class _Warnings(list[str]):
    """Warnings of a context that go to the request being admitted."""

    def __init__(self, attributes: AdmissionAttributes) -> None:
        super().__init__()
        self._attributes = attributes

    def append(self, text: str) -> None:
        self._attributes.warn(text)


class AppMutation(_AppPlugin):
    """`App.mutate`, before the core server's webhooks."""

    name = "AppMutation"

    async def mutate(self, attributes: AdmissionAttributes) -> None:
        """Let the author's functions change the object."""
        hooks = self._hooks[attributes.gvr.gr]
        obj = attributes.object
        if obj is None or not hooks.declaration.mutations:
            return
        functions = hooks.declaration.mutations.get(hooks.model_of(obj), ())
        if not functions:
            return
        new = hooks.fitting(obj)
        if new is None:
            return  # validation says what is wrong with it
        old = _old(hooks, attributes.old_object)
        before = render(new)
        ctx = self._context(attributes)
        with hooks.answering(attributes.name):
            for function in functions:
                await awaited(function(new, old, ctx))
        replace_changed(obj, before, render(new))


class AppAdmission(_AppPlugin):
    """`App.admit`, before the core server's validating webhooks."""

    name = "AppAdmission"

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Let the author's functions refuse. Functions of any version see the object as theirs."""
        hooks = self._hooks[attributes.gvr.gr]
        for model, functions in hooks.declaration.admissions.items():
            new = _as(hooks, attributes, model, attributes.object)
            old = _as(hooks, attributes, model, attributes.old_object)
            ctx = self._context(attributes)
            with hooks.answering(attributes.name):
                for function in functions:
                    await awaited(function(new, old, ctx))


def _old(hooks: Hooks, obj: Obj | None) -> Kind | None:
    return None if obj is None else hooks.fitting(obj)


def _as(hooks: Hooks, attributes: AdmissionAttributes, model: type[Kind], obj: Obj | None) -> Kind | None:
    """The object in the version of a class."""
    if obj is None:
        return None
    if hooks.model_of(obj) is not model:
        versions: dict[str, Version] = {each.gvk.api_version: each for each in attributes.resource.versions}
        source = versions[str(obj["apiVersion"])]
        target = next(
            each for each in versions.values() if hooks.model_of({"apiVersion": each.gvk.api_version}) is model
        )
        hub = source.to_hub(obj) if source.to_hub is not None else obj
        obj = target.from_hub(hub) if target.from_hub is not None else hub
    return hooks.fitting(obj)
