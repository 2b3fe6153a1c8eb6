"""MutatingAdmissionWebhook and ValidatingAdmissionWebhook.

Upstream: k8s.io/apiserver/pkg/admission/plugin/webhook/{mutating,validating}. Mutating webhooks are asked one after the other,
validating ones at the same time. Once a mutating webhook has changed the object, the plugins before it run again, and with
them those webhooks that ask for it (`reinvocationPolicy: IfNeeded`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bowsprit.apiserver.admission.chain import REINVOKE, SECOND_ROUND, Target
from bowsprit.apiserver.admission.conditions import ConditionError, MatchConditions
from bowsprit.apiserver.admission.hookclient import CallError, HookClient
from bowsprit.apiserver.admission.matching import Match, Matcher, converted, is_exempt, redefaulted
from bowsprit.apiserver.admission.review import (
    SUPPORTED,
    ReviewError,
    Verdict,
    admission_request,
    admission_review,
    denial,
    read_verdict,
)
from bowsprit.apiserver.admit import AdmissionAttributes
from bowsprit.apiserver.lookup import Listers
from bowsprit.machinery import jsonpatch
from bowsprit.machinery.errors import bad_request, internal_error
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj, deep_copy

logger = logging.getLogger(__name__)

MUTATING = GroupResource("admissionregistration.k8s.io", "mutatingwebhookconfigurations")
VALIDATING = GroupResource("admissionregistration.k8s.io", "validatingwebhookconfigurations")
_DEFAULT_SECONDS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Hook:
    """One webhook of a configuration."""

    uid: str  # configuration and position: distinct even where names repeat
    name: str
    spec: Obj
    conditions: MatchConditions

    @property
    def ignores_failures(self) -> bool:
        return self.spec.get("failurePolicy") == "Ignore"

    @property
    def seconds(self) -> float:
        return float(self.spec.get("timeoutSeconds") or _DEFAULT_SECONDS)

    @property
    def version(self) -> str:
        """The first version of AdmissionReview that both sides know."""
        return next((item for item in self.spec.get("admissionReviewVersions") or () if item in SUPPORTED), "")


class _Hooks:
    """The webhooks of one kind of configuration, and how one is asked."""

    def __init__(
        self,
        resource: GroupResource,
        listers: Listers,
        client: HookClient,
        new_uid: Callable[[], str],
        *,
        mutating: bool,
    ) -> None:
        self._resource = resource
        self._listers = listers
        self._client = client
        self._new_uid = new_uid
        self._mutating = mutating
        self.matcher = Matcher(listers)
        self._known: tuple[object, list[Hook]] = (None, [])

    def all(self) -> Sequence[Hook]:
        """By configuration name, then in the configurations' order; read again when a configuration changes."""
        lister = self._listers(self._resource)
        configurations = lister.list()
        version: Any = getattr(lister, "version", None)
        token = version if version is not None else tuple(map(id, configurations))
        if self._known[0] != token:
            hooks = []
            for configuration in sorted(configurations, key=lambda item: str(item["metadata"]["name"])):
                owner, counts = configuration["metadata"]["name"], dict[str, int]()
                for spec in configuration.get("webhooks") or ():
                    name = str(spec.get("name", ""))
                    position = counts[name] = counts.get(name, -1) + 1
                    conditions = MatchConditions(spec.get("matchConditions") or ())
                    hooks.append(Hook(f"{owner}/{name}/{position}", name, spec, conditions))
            self._known = (token, hooks)
        return self._known[1]

    async def match(self, hook: Hook, attributes: AdmissionAttributes) -> Match | None:
        """How the request matches the webhook, None when it is not to be asked.

        Raises:
            StatusError: a match condition fails, and so does the webhook then.
        """
        spec = hook.spec
        found = self.matcher.match(
            attributes,
            spec.get("rules") or (),
            namespaces=spec.get("namespaceSelector"),
            objects=spec.get("objectSelector"),
            equivalent=spec.get("matchPolicy") != "Exact",
        )
        if found is None or hook.conditions.is_empty:
            return found
        obj = await converted(attributes.object, attributes.resource, found.gvk)
        old = await converted(attributes.old_object, attributes.resource, found.gvk)
        request = admission_request(attributes, found, "", obj, old)
        try:
            return found if hook.conditions.hold(request, obj, old) else None
        except ConditionError as exc:
            if hook.ignores_failures:
                return None
            raise internal_error(f"failed calling webhook {quote(hook.name)}: {exc}") from exc

    async def ask(self, hook: Hook, match: Match, attributes: AdmissionAttributes) -> Verdict | None:
        """The webhook's verdict; None when it failed and failures are ignored.

        Raises:
            StatusError: it failed, or refuses a dry run.
        """
        if attributes.dry_run and hook.spec.get("sideEffects") not in ("None", "NoneOnDryRun"):
            raise bad_request(f"admission webhook {quote(hook.name)} does not support dry run")
        uid = self._new_uid()
        obj = await converted(attributes.object, attributes.resource, match.gvk)
        old = await converted(attributes.old_object, attributes.resource, match.gvk)
        try:
            if not hook.version:
                raise ReviewError("webhook does not accept known AdmissionReview versions (v1, v1beta1)")
            review = admission_review(admission_request(attributes, match, uid, obj, old), hook.version)
            body = await self._client.post(hook.spec.get("clientConfig") or {}, review, hook.seconds)
            verdict = read_verdict(body, uid, hook.version, mutating=self._mutating)
        except CallError as exc:
            return self._failed(hook, f"failed to call webhook: {exc}")
        except ReviewError as exc:
            return self._failed(hook, f"received invalid webhook response: {exc}")
        for text in verdict.warnings:
            attributes.warn(text)
        for key, value in verdict.annotations.items():
            attributes.annotations[f"{hook.name}/{key}"] = value
        return verdict

    @staticmethod
    def _failed(hook: Hook, why: str) -> None:
        text = f"failed calling webhook {quote(hook.name)}: {why}"
        if not hook.ignores_failures:
            raise internal_error(text)
        logger.warning("%s (ignored)", text)


class MutatingAdmissionWebhook:
    """See the module's docstring."""

    name = "MutatingAdmissionWebhook"

    def __init__(self, listers: Listers, client: HookClient, new_uid: Callable[[], str]) -> None:
        self._hooks = _Hooks(MUTATING, listers, client, new_uid, mutating=True)

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin."""
        return True

    async def mutate(self, attributes: AdmissionAttributes) -> None:
        """Ask one after the other."""
        hooks = self._hooks.all()
        if not hooks or is_exempt(attributes):
            return
        notes = attributes.reinvocation
        again = SECOND_ROUND in notes
        eligible: set[str] = notes.get("webhooks to ask again", set())
        if again and notes.get("object after webhooks") != attributes.object:
            eligible = set(notes.get("webhooks asked", ()))
        for hook in hooks:
            if again and hook.uid not in eligible:
                continue
            match = await self._hooks.match(hook, attributes)
            if match is None:
                continue
            verdict = await self._hooks.ask(hook, match, attributes)
            if verdict is None:
                continue
            if not verdict.allowed:
                raise denial(hook.name, verdict.status)
            if await _apply(verdict.patch, match, attributes):
                # Those asked before, and the plugins before them, see the change; not the one that made it.
                eligible |= set(notes.get("webhooks asked", ()))
                notes[REINVOKE] = True
            if hook.spec.get("reinvocationPolicy") == "IfNeeded":
                notes.setdefault("webhooks asked", set()).add(hook.uid)
        notes["webhooks to ask again"] = eligible
        notes["object after webhooks"] = deep_copy(attributes.object)


async def _apply(patch: Sequence[Obj], match: Match, attributes: AdmissionAttributes) -> bool:
    """Apply a patch to the object; whether it changed."""
    if not patch:
        return False
    if attributes.object is None:
        raise internal_error(
            "admission webhook attempted to modify the object, which is not supported for this operation"
        )
    shown = await converted(attributes.object, attributes.resource, match.gvk)
    try:
        patched = jsonpatch.apply(shown, list(patch))
    except jsonpatch.JSONPatchError as exc:
        raise internal_error(str(exc)) from exc
    if not isinstance(patched, dict):
        raise internal_error("the patch of an admission webhook made the object something else")
    changed = await converted(patched, attributes.resource, attributes.gvk)
    changed = redefaulted(changed or {}, attributes)
    if changed == attributes.object:
        return False
    attributes.object = changed
    return True


class ValidatingAdmissionWebhook:
    """See the module's docstring."""

    name = "ValidatingAdmissionWebhook"

    def __init__(self, listers: Listers, client: HookClient, new_uid: Callable[[], str]) -> None:
        self._hooks = _Hooks(VALIDATING, listers, client, new_uid, mutating=False)

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin."""
        return True

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Ask all at once; the first in order that refuses is told."""
        hooks = self._hooks.all()
        if not hooks or is_exempt(attributes):
            return
        found = [(hook, await self._hooks.match(hook, attributes)) for hook in hooks]
        asked = [self._judge(hook, match, attributes) for hook, match in found if match is not None]
        for outcome in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def _judge(self, hook: Hook, match: Match, attributes: AdmissionAttributes) -> None:
        verdict = await self._hooks.ask(hook, match, attributes)
        if verdict is not None and not verdict.allowed:
            raise denial(hook.name, verdict.status)
