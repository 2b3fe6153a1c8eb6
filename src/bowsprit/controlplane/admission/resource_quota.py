"""ResourceQuota: what a namespace may use in all.

Upstream: k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go. The use is counted up in the quota's status before
the object is written, so that two requests cannot both take the last place; the quota controller counts down again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from weakref import WeakValueDictionary

from bowsprit.apiserver.admission.chain import CREATE, UPDATE, Target
from bowsprit.apiserver.admit import AdmissionAttributes
from bowsprit.apiserver.lookup import Listers
from bowsprit.controlplane.admission.pod_resources import Amounts, amounts, show
from bowsprit.controlplane.admission.quota_usage import Evaluator, evaluator_for, quota_matches, unknown_usage
from bowsprit.controlplane.admission.refusal import refused
from bowsprit.machinery.errors import ConflictError, NotFoundError
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj, deep_copy, nested

QUOTAS = GroupResource("", "resourcequotas")
_TRIES = 4
# Upstream's ignored resources: events are too many, and the tables of who may do what are no use of a namespace.
_IGNORED = frozenset(
    {
        GroupResource("", "bindings"),
        GroupResource("", "events"),
        GroupResource("events.k8s.io", "events"),
        GroupResource("", "componentstatuses"),
        GroupResource("authentication.k8s.io", "tokenreviews"),
        GroupResource("authorization.k8s.io", "localsubjectaccessreviews"),
        GroupResource("authorization.k8s.io", "selfsubjectaccessreviews"),
        GroupResource("authorization.k8s.io", "selfsubjectrulesreviews"),
        GroupResource("authorization.k8s.io", "subjectaccessreviews"),
    }
)

WriteStatus = Callable[[Obj], Awaitable[None]]


class ResourceQuota:
    """See the module's docstring.

    Args:
        write_status: stores a quota's status if its resourceVersion is still the current one; raises ConflictError or
            NotFoundError otherwise.
    """

    name = "ResourceQuota"

    def __init__(self, listers: Listers, write_status: WriteStatus) -> None:
        self._listers = listers
        self._write_status = write_status
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin."""
        if target.subresource or target.resource in _IGNORED:
            return False
        if target.operation is UPDATE:
            return evaluator_for(target.resource).on_update
        return target.operation is CREATE

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Check the quotas of the namespace and count the object."""
        namespace = attributes.namespace
        if not namespace or not self._listers(QUOTAS).list(namespace):
            return
        evaluator = evaluator_for(attributes.gvr.gr)
        lock = self._locks.setdefault(namespace, asyncio.Lock())
        async with lock:
            for attempt in range(_TRIES):
                changed = self._check(attributes, evaluator)
                if attributes.dry_run:
                    return
                try:
                    for quota in changed:
                        await self._write_status(quota)
                except (ConflictError, NotFoundError):
                    if attempt == _TRIES - 1:
                        raise
                    await asyncio.sleep(0)
                else:
                    return

    def _check(self, attributes: AdmissionAttributes, evaluator: Evaluator) -> list[Obj]:
        """The quotas with the object counted in."""
        obj = attributes.object or {}
        concerned: list[Obj] = []
        for quota in sorted(
            self._listers(QUOTAS).list(attributes.namespace), key=lambda item: str(item["metadata"]["name"])
        ):
            if not quota_matches(quota, attributes.gvr.gr, obj):
                continue
            hard = nested(quota, "status", "hard", default={})
            names = [name for name in hard if evaluator.covers(name)]
            if problem := evaluator.constraints(names, obj):
                raise refused(attributes, f"failed quota: {quota['metadata']['name']}: {problem}")
            if unknown := unknown_usage(quota, names):
                text = f"status unknown for quota: {quota['metadata']['name']}, resources: {','.join(unknown)}"
                raise refused(attributes, text)
            if names:
                concerned.append(quota)
        delta = self._delta(attributes, evaluator) if concerned else {}
        if not delta:
            return []
        counted = (self._count(attributes, quota, delta) for quota in concerned)
        return [quota for quota in counted if quota is not None]

    @staticmethod
    def _delta(attributes: AdmissionAttributes, evaluator: Evaluator) -> Amounts:
        delta = evaluator.usage(attributes.object or {})
        negative = sorted(name for name, value in delta.items() if value.sign() < 0)
        if negative:
            raise refused(attributes, f"quota usage is negative for resource(s): {','.join(negative)}")
        if attributes.operation is UPDATE:
            for name, value in evaluator.usage(attributes.old_object or {}).items():
                delta[name] = delta[name] - value if name in delta else -value
        return {name: value for name, value in delta.items() if value}

    @staticmethod
    def _count(attributes: AdmissionAttributes, quota: Obj, delta: Amounts) -> Obj | None:
        hard = amounts(quota["status"]["hard"])
        used = amounts(quota["status"].get("used"))
        requested = {name: value for name, value in delta.items() if name in hard}
        if not requested:
            return None
        new = {name: used[name] + value if name in used else value for name, value in requested.items()}
        # Giving back is never refused, even where the use stays above the limit.
        exceeded = [name for name in requested if requested[name].sign() > 0 and hard[name] < new[name]]
        if exceeded:
            parts = [("requested", requested), ("used", used), ("limited", hard)]
            text = ", ".join(
                f"{word}: {show({name: values[name] for name in exceeded if name in values})}" for word, values in parts
            )
            raise refused(attributes, f"exceeded quota: {quota['metadata']['name']}, {text}")
        counted: Obj = deep_copy(quota)
        counted["status"]["used"] = {
            **(quota["status"].get("used") or {}),
            **{name: str(value) for name, value in new.items()},
        }
        return counted
