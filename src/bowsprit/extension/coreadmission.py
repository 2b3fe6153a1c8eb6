"""The core server's admission, honoured here: webhooks, policies and the life of namespaces.

kube-apiserver runs no admission for requests that it hands to an extension server; the extension server does, from its own
copies of the core's configuration. That needs the right to list and watch the configuration. Upstream's library waits for its
copies for ever, and every write with it (a v1.36 library without rules for mutatingadmissionpolicies refuses all writes).
Here each plugin is on, or visibly off: what may not be read is probed first, its plugin is switched off with a line in the
log and a line in ``/readyz?verbose``, and probed again every half minute.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bowsprit.apiserver.admission.chain import AdmissionChain, Plugin
from bowsprit.apiserver.admission.hookclient import HookClient
from bowsprit.apiserver.admission.lifecycle import NAMESPACES, NamespaceLifecycle
from bowsprit.apiserver.admission.webhooks import MUTATING, VALIDATING
from bowsprit.apiserver.admit import AdmissionAttributes
from bowsprit.client.errors import ClientError
from bowsprit.client.informer import Informer
from bowsprit.client.rest import RestClient
from bowsprit.extension.corelisters import CoreListers
from bowsprit.extension.servicelookup import ServiceLookup
from bowsprit.machinery.errors import ForbiddenError, NotFoundError, StatusError, forbidden
from bowsprit.machinery.names import GroupResource, GroupVersionResource

logger = logging.getLogger("bowsprit.extension")

GROUP = "admissionregistration.k8s.io"
POLICIES = GroupResource(GROUP, "validatingadmissionpolicies")
POLICY_BINDINGS = GroupResource(GROUP, "validatingadmissionpolicybindings")
MUTATING_POLICIES = GroupResource(GROUP, "mutatingadmissionpolicies")
MUTATING_POLICY_BINDINGS = GroupResource(GROUP, "mutatingadmissionpolicybindings")
REQUIRED: Mapping[str, tuple[GroupResource, ...]] = {
    "NamespaceLifecycle": (NAMESPACES,),
    "MutatingAdmissionPolicy": (NAMESPACES, MUTATING_POLICIES, MUTATING_POLICY_BINDINGS),
    "MutatingAdmissionWebhook": (NAMESPACES, MUTATING),
    "ValidatingAdmissionPolicy": (NAMESPACES, POLICIES, POLICY_BINDINGS),
    "ValidatingAdmissionWebhook": (NAMESPACES, VALIDATING),
}
"""What each plugin must be allowed to list and watch."""

VERSIONS = ("v1", "v1beta1", "v1alpha1")
PROBE_SECONDS = 30.0
READY_SECONDS = 10.0  # upstream admission.WaitForReady
_CALL_SECONDS = 10.0


@dataclass(slots=True)
class PluginState:
    """Whether a plugin runs: `on`, `off` (it may not read what it needs), `absent` (the core does not have it), `unknown`."""

    name: str
    state: str = "unknown"
    reason: str = ""
    informers: list[Informer] = field(default_factory=list)

    @property
    def ready(self) -> bool:
        """Whether requests can be judged."""
        return self.state in ("off", "absent") or (
            self.state == "on" and all(each.has_synced for each in self.informers)
        )


class CoreAdmission:
    """See the module's docstring; an admit.Admission.

    Args:
        own: plugins of the app: those that change objects, and those that judge.
        changed: called when a plugin has gone on or off.
    """

    def __init__(
        self,
        client: RestClient,
        listers: CoreListers,
        own: tuple[Sequence[Plugin], Sequence[Plugin]],
        new_uid: Callable[[], str],
        changed: Callable[[], None],
    ) -> None:
        self._client = client
        self._listers = listers
        self._own = own
        self._new_uid = new_uid
        self._changed = changed
        self._hooks = HookClient(ServiceLookup(client, in_cluster="KUBERNETES_SERVICE_HOST" in os.environ).find)
        self.states = {name: PluginState(name) for name in REQUIRED}
        self._chain = AdmissionChain([*own[0], *own[1]])
        self._task: asyncio.Task[None] | None = None
        self._decided = asyncio.Event()

    async def start(self) -> None:
        """Begin to probe and to follow."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="core admission")

    async def stop(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._hooks.close()

    # -- admission -----------------------------------------------------------------------------------------------------

    async def mutate(self, attributes: AdmissionAttributes) -> None:
        """See admit.Admission. Raises 403 when the configuration has not been read in time."""
        await self._ready(attributes)
        if attributes.namespace and self.states["NamespaceLifecycle"].state == "on":
            await self._listers.find_namespace(attributes.namespace)
        await self._chain.mutate(attributes)

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """See admit.Admission."""
        await self._chain.validate(attributes)

    async def _ready(self, attributes: AdmissionAttributes) -> None:
        if all(state.ready for state in self.states.values()):
            return
        try:
            async with asyncio.timeout(READY_SECONDS):
                await self._decided.wait()
                for state in self.states.values():
                    for informer in state.informers:
                        await informer.wait_synced()
        except TimeoutError:
            raise forbidden(attributes.gvr.gr, attributes.name, "not yet ready to handle request") from None

    async def check(self) -> None:
        """The health check: raises while writes would have to wait."""
        waiting = [state.name for state in self.states.values() if not state.ready]
        if waiting:
            raise RuntimeError(f"not ready: {', '.join(waiting)}")

    # -- what runs -----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            before = {name: state.state for name, state in self.states.items()}
            try:
                async with asyncio.timeout(PROBE_SECONDS):
                    await self._probe()
            except (StatusError, ClientError, TimeoutError) as failure:
                logger.warning("the core's admission configuration cannot be probed: %s", failure or "timed out")
                await asyncio.sleep(1.0)
                if not self._decided.is_set():
                    continue
            else:
                self._decided.set()
            if before != {name: state.state for name, state in self.states.items()}:
                self._rebuild()
                self._changed()
            await asyncio.sleep(PROBE_SECONDS)

    async def _probe(self) -> None:
        served = await self._served()
        verdicts: dict[GroupResource, str] = {}
        for state in self.states.values():
            if state.state == "on":
                continue
            missing = [gr for gr in REQUIRED[state.name] if gr not in served]
            if missing:
                self._set(state, "absent", f"the core API server does not serve {missing[0]}")
                continue
            for gr in REQUIRED[state.name]:
                if gr not in verdicts:
                    verdicts[gr] = await self._may_read(served[gr])
            refusals = [verdicts[gr] for gr in REQUIRED[state.name] if verdicts[gr]]
            if refusals:
                self._set(state, "off", refusals[0])
                continue
            state.informers = [self._listers.follow(served[gr]) for gr in REQUIRED[state.name]]
            if state.name.endswith("Policy"):
                self._listers.follow_params(state.informers[1])
            self._set(state, "on", "")

    @staticmethod
    def _set(state: PluginState, name: str, reason: str) -> None:
        if state.state == name:
            return
        if name == "off":
            logger.warning(
                "admission plugin %s is off: %s; grant this server's account get, list and watch to turn it on",
                state.name,
                reason,
            )
        elif state.state == "off":
            logger.warning("admission plugin %s is %s", state.name, name)
        state.state, state.reason = name, reason

    async def _served(self) -> dict[GroupResource, GroupVersionResource]:
        """The newest version of each kind that the core serves."""
        found = {NAMESPACES: GroupVersionResource("", "v1", "namespaces")}
        for version in VERSIONS:
            try:
                async with asyncio.timeout(_CALL_SECONDS):
                    listed = await self._client.request_json("GET", f"/apis/{GROUP}/{version}")
            except (NotFoundError, ForbiddenError):
                continue
            for entry in listed.get("resources") or ():
                name = str(entry.get("name"))
                found.setdefault(GroupResource(GROUP, name), GroupVersionResource(GROUP, version, name))
        return found

    async def _may_read(self, gvr: GroupVersionResource) -> str:
        """Why a kind may not be followed, "" if it may."""
        for verb in ("list", "watch"):
            attributes = {"verb": verb, "group": gvr.group, "version": gvr.version, "resource": gvr.resource}
            body = {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": attributes},
            }
            async with asyncio.timeout(_CALL_SECONDS):
                try:
                    answer = await self._client.create(_SELF_REVIEWS, body)
                except ForbiddenError as failure:
                    return f"may not review its own access: {failure.message}"
            if not (answer.get("status") or {}).get("allowed"):
                return f"may not {verb} {gvr.gr}"
        return ""

    def _rebuild(self) -> None:
        """The chain in upstream's order, with the app's own plugins before the core's of the same sort."""
        makers: dict[str, Callable[[], Plugin]] = {
            "NamespaceLifecycle": lambda: NamespaceLifecycle(self._listers),
            "MutatingAdmissionPolicy": self._mutating_policy,
            "MutatingAdmissionWebhook": self._mutating_webhook,
            "ValidatingAdmissionPolicy": self._validating_policy,
            "ValidatingAdmissionWebhook": self._validating_webhook,
        }
        on = {name: make for name, make in makers.items() if self.states[name].state == "on"}
        order: list[Plugin] = []
        if "NamespaceLifecycle" in on:
            order.append(on["NamespaceLifecycle"]())
        order += self._own[0]
        order += [on[name]() for name in on if name.startswith("Mutating")]
        order += self._own[1]
        order += [on[name]() for name in on if name.startswith("Validating")]
        self._chain = AdmissionChain(order)

    def _mutating_webhook(self) -> Plugin:
        from bowsprit.apiserver.admission.webhooks import MutatingAdmissionWebhook

        return MutatingAdmissionWebhook(self._listers, self._hooks, self._new_uid)

    def _validating_webhook(self) -> Plugin:
        from bowsprit.apiserver.admission.webhooks import ValidatingAdmissionWebhook

        return ValidatingAdmissionWebhook(self._listers, self._hooks, self._new_uid)

    def _mutating_policy(self) -> Plugin:
        from bowsprit.apiserver.admission.mutation_policy import MutatingAdmissionPolicy

        return MutatingAdmissionPolicy(self._listers, self._listers.find_kind)

    def _validating_policy(self) -> Plugin:
        from bowsprit.apiserver.admission.policy import ValidatingAdmissionPolicy

        return ValidatingAdmissionPolicy(self._listers, self._listers.find_kind)


_SELF_REVIEWS = GroupVersionResource("authorization.k8s.io", "v1", "selfsubjectaccessreviews")
