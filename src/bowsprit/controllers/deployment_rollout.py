"""Deployments: which ReplicaSet gets how many replicas, and what the status says. No I/O.

Upstream: pkg/controller/deployment (rolling.go, recreate.go, sync.go, progress.go) and util/deployment_util.go.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from bowsprit.controllers import conditions
from bowsprit.controllers.pods import normalised
from bowsprit.machinery import objects
from bowsprit.machinery.objects import Obj, nested
from bowsprit.machinery.time import format_time, parse_time

REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAX = "deployment.kubernetes.io/max-replicas"
HASH_LABEL = "pod-template-hash"
_NOT_COPIED = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        REVISION_HISTORY,
        DESIRED,
        MAX,
        "deprecated.deployment.rollback.to",
    }
)
_NO_DEADLINE = 2**31 - 1


@dataclass(slots=True)
class View:
    """A deployment with its ReplicaSets, as the informers show them."""

    deployment: Obj
    new: Obj | None
    old: list[Obj] = field(default_factory=list)

    @property
    def all(self) -> list[Obj]:
        """Every ReplicaSet."""
        return [*self.old, self.new] if self.new else list(self.old)


@dataclass(frozen=True, slots=True)
class Scale:
    """Set a ReplicaSet to a number of replicas."""

    replica_set: Obj
    replicas: int


def replicas(replica_set: Obj) -> int:
    """``spec.replicas``, 1 by default."""
    value = nested(replica_set, "spec", "replicas")
    return 1 if value is None else int(value)


def status_count(replica_sets: Iterable[Obj | None], name: str) -> int:
    """The sum of a status field."""
    return sum(int(nested(item, "status", name, default=0)) for item in replica_sets if item)


def resolve(value: object, total: int, *, up: bool) -> int:
    """An int-or-percent of ``total``."""
    if isinstance(value, str) and value.endswith("%"):
        share = int(value[:-1]) * total / 100
        return math.ceil(share) if up else math.floor(share)
    return int(str(value or 0))


def fenceposts(deployment: Obj) -> tuple[int, int]:
    """``(maxSurge, maxUnavailable)`` in pods; never both zero (upstream ResolveFenceposts)."""
    rolling = nested(deployment, "spec", "strategy", "rollingUpdate", default={})
    total = replicas(deployment)
    surge = resolve(rolling.get("maxSurge", 0), total, up=True)
    unavailable = resolve(rolling.get("maxUnavailable", 0), total, up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, unavailable


def is_rolling(deployment: Obj) -> bool:
    """Whether the strategy is RollingUpdate."""
    return bool(nested(deployment, "spec", "strategy", "type", default="RollingUpdate") == "RollingUpdate")


def max_surge(deployment: Obj) -> int:
    """Pods above the desired number while rolling."""
    return fenceposts(deployment)[0] if is_rolling(deployment) else 0


def max_unavailable(deployment: Obj) -> int:
    """Pods below the desired number while rolling."""
    if not is_rolling(deployment) or replicas(deployment) == 0:
        return 0
    return min(fenceposts(deployment)[1], replicas(deployment))


def same_template(one: Obj, other: Obj) -> bool:
    """Equality of pod templates, the hash label aside (upstream EqualIgnoreHash)."""

    def bare(template: Obj) -> object:
        meta = template.get("metadata") or {}
        labels = {key: value for key, value in (meta.get("labels") or {}).items() if key != HASH_LABEL}
        return normalised({**template, "metadata": {**meta, "labels": labels, "creationTimestamp": None}})

    return bare(one) == bare(other)


def _age(replica_set: Obj) -> tuple[str, str]:
    return (replica_set["metadata"].get("creationTimestamp") or "", replica_set["metadata"]["name"])


def view(deployment: Obj, replica_sets: Iterable[Obj]) -> View:
    """Tell the new ReplicaSet (the oldest with the deployment's template) from the old ones."""
    ordered = sorted(replica_sets, key=_age)
    template = deployment["spec"].get("template") or {}
    new = next((item for item in ordered if same_template(item["spec"].get("template") or {}, template)), None)
    return View(deployment, new, [item for item in ordered if item is not new])


def revision(obj: Obj) -> int:
    """The revision annotation, 0 without one."""
    try:
        return int(objects.annotations(obj).get(REVISION, "0"))
    except ValueError:
        return 0


def next_revision(old: Iterable[Obj]) -> int:
    """One more than the old ReplicaSets' highest."""
    return max((revision(item) for item in old), default=0) + 1


def replica_set_annotations(
    deployment: Obj, current: dict[str, str], new_revision: int, exists: bool
) -> dict[str, str]:
    """The annotations of the new ReplicaSet (upstream SetNewReplicaSetAnnotations)."""
    result = dict(current)
    for key, value in objects.annotations(deployment).items():
        if key not in _NOT_COPIED:
            result[key] = value
    old_revision = int(result.get(REVISION) or 0)
    if old_revision < new_revision:
        result[REVISION] = str(new_revision)
        if exists and old_revision:
            history = [part for part in result.get(REVISION_HISTORY, "").split(",") if part]
            if str(old_revision) not in history:
                result[REVISION_HISTORY] = ",".join([*history, str(old_revision)])
    if not exists:
        result |= replica_annotations(deployment)
    return result


def replica_annotations(deployment: Obj) -> dict[str, str]:
    """What a ReplicaSet remembers of the deployment's size, for proportional scaling."""
    return {DESIRED: str(replicas(deployment)), MAX: str(replicas(deployment) + max_surge(deployment))}


def new_replica_set_size(deployment: Obj, everything: Iterable[Obj], new: Obj | None) -> int:
    """Replicas of the new set within the surge (upstream NewRSNewReplicas)."""
    wanted = replicas(deployment)
    if not is_rolling(deployment):
        return wanted
    current = sum(replicas(item) for item in everything)
    limit = wanted + max_surge(deployment)
    own = replicas(new) if new else 0
    if current >= limit:
        return own
    return own + min(limit - current, wanted - own)


def is_saturated(deployment: Obj, replica_set: Obj | None) -> bool:
    """Whether one set alone has what the deployment wants (upstream IsSaturated)."""
    if replica_set is None:
        return False
    wanted = replicas(deployment)
    desired = objects.annotations(replica_set).get(DESIRED)
    available = int(nested(replica_set, "status", "availableReplicas", default=0))
    return replicas(replica_set) == wanted and desired == str(wanted) and available == wanted


def is_scaling(seen: View) -> bool:
    """Whether the deployment's size changed since its sets were last sized (upstream isScalingEvent)."""
    for item in seen.all:
        if replicas(item) > 0:
            desired = objects.annotations(item).get(DESIRED)
            if desired is not None and desired != str(replicas(seen.deployment)):
                return True
    return False


def roll(seen: View) -> list[Scale]:
    """One step of a rolling update: the new set up, or, if it stands, old ones down."""
    assert seen.new is not None
    deployment, new = seen.deployment, seen.new
    if replicas(new) > replicas(deployment):
        return [Scale(new, replicas(deployment))]
    size = new_replica_set_size(deployment, seen.all, new)
    if size != replicas(new):
        return [Scale(new, size)]
    return _scale_old_down(seen)


def _scale_old_down(seen: View) -> list[Scale]:
    deployment, new = seen.deployment, seen.new
    assert new is not None
    if not sum(replicas(item) for item in seen.old):
        return []
    min_available = replicas(deployment) - max_unavailable(deployment)
    new_unavailable = replicas(new) - int(nested(new, "status", "availableReplicas", default=0))
    budget = sum(replicas(item) for item in seen.all) - min_available - new_unavailable
    if budget <= 0:
        return []
    steps: dict[str, Scale] = {}
    current = {item["metadata"]["name"]: replicas(item) for item in seen.old}
    # Unhealthy replicas of old sets first: they only block the way (cleanupUnhealthyReplicas)
    cleaned = 0
    for item in sorted(seen.old, key=_age):
        size = replicas(item)
        unhealthy = size - int(nested(item, "status", "availableReplicas", default=0))
        drop = min(budget - cleaned, unhealthy)
        if size and drop > 0:
            cleaned += drop
            current[item["metadata"]["name"]] = size - drop
            steps[item["metadata"]["name"]] = Scale(item, size - drop)
    # then whatever availability allows (scaleDownOldReplicaSetsForRollingUpdate)
    spare = sum(map(_staying_available, seen.all)) - min_available
    for item in sorted(seen.old, key=_age):
        name = item["metadata"]["name"]
        drop = min(current[name], spare)
        if drop > 0:
            spare -= drop
            current[name] -= drop
            steps[name] = Scale(item, current[name])
    return list(steps.values())


def _staying_available(replica_set: Obj) -> int:
    """The available replicas once the set has its size: its status may not know yet that it was scaled down."""
    return min(replicas(replica_set), int(nested(replica_set, "status", "availableReplicas", default=0)))


def scale_proportionally(seen: View) -> list[Scale]:
    """The deployment's size changed: share the difference among its sets (upstream scale())."""
    deployment = seen.deployment
    wanted = replicas(deployment)
    active = [item for item in seen.all if replicas(item) > 0]
    only = None
    if len(active) == 1:
        only = active[0]
    elif not active:
        only = seen.new or max(seen.old, key=_age, default=None)
    if only is not None:
        return [Scale(only, wanted)] if replicas(only) != wanted or _sized_for(only) != wanted else []
    if is_saturated(deployment, seen.new):
        return [Scale(item, 0) for item in seen.old if replicas(item)]
    if not is_rolling(deployment):
        return []
    total = sum(replicas(item) for item in active)
    allowed = wanted + max_surge(deployment) if wanted > 0 else 0
    to_add = allowed - total
    # larger sets first; of equals, the newer when growing and the older when shrinking
    if to_add > 0:
        ordered = sorted(sorted(active, key=_age, reverse=True), key=replicas, reverse=True)
    else:
        ordered = sorted(sorted(active, key=_age), key=replicas, reverse=True)
    sizes: list[int] = []
    added = 0
    for item in ordered:
        share = _proportion(item, deployment, to_add, added) if to_add else 0
        sizes.append(replicas(item) + share)
        added += share
    leftover = to_add - added  # of rounding: the largest takes it, and the next where that has too few to give
    for index, size in enumerate(sizes):
        sizes[index] = max(0, size + leftover)
        leftover -= sizes[index] - size
    return [Scale(item, size) for item, size in zip(ordered, sizes, strict=True)]


def _sized_for(replica_set: Obj) -> int:
    value = objects.annotations(replica_set).get(DESIRED, "")
    return int(value) if value.isdigit() else -1


def _proportion(replica_set: Obj, deployment: Obj, to_add: int, added: int) -> int:
    annotated = objects.annotations(replica_set).get(MAX, "")
    base = (
        int(annotated)
        if annotated.isdigit() and int(annotated)
        else int(nested(deployment, "status", "replicas", default=0))
    )
    if not base or to_add == added:
        return 0
    size = replicas(replica_set)
    target = size * (replicas(deployment) + max_surge(deployment)) / base
    fraction = math.floor(target + 0.5) - size if replicas(deployment) else -size
    allowed = to_add - added
    return min(fraction, allowed) if to_add > 0 else max(fraction, allowed)


def surplus(seen: View) -> list[Obj]:
    """Old sets beyond the revision history limit, oldest revision first (upstream cleanupDeployment)."""
    limit = seen.deployment["spec"].get("revisionHistoryLimit")
    if limit is None or limit == _NO_DEADLINE:
        return []
    candidates = [item for item in seen.old if not item["metadata"].get("deletionTimestamp")]
    excess = len(candidates) - int(limit)
    if excess <= 0:
        return []
    return [
        item
        for item in sorted(candidates, key=lambda item: (revision(item), _age(item)))[:excess]
        if not (
            nested(item, "status", "replicas", default=0)
            or replicas(item)
            or item["metadata"].get("generation", 0) > nested(item, "status", "observedGeneration", default=0)
        )
    ]


# Status


def basic_status(seen: View, now: datetime) -> Obj:
    """Counts and the Available condition (upstream calculateStatus)."""
    deployment = seen.deployment
    everything = seen.all
    total, available = sum(replicas(item) for item in everything), status_count(everything, "availableReplicas")
    status: Obj = {
        "observedGeneration": deployment["metadata"].get("generation", 0),
        "replicas": status_count(everything, "replicas"),
        "updatedReplicas": status_count([seen.new], "replicas"),
        "readyReplicas": status_count(everything, "readyReplicas"),
        "availableReplicas": available,
        "unavailableReplicas": max(0, total - available),
        "terminatingReplicas": status_count(everything, "terminatingReplicas"),
        "collisionCount": nested(deployment, "status", "collisionCount"),
    }
    current = list(nested(deployment, "status", "conditions", default=[]))
    if available >= replicas(deployment) - max_unavailable(deployment):
        new = deployment_condition(
            "Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.", now
        )
    else:
        new = deployment_condition(
            "Available", "False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.", now
        )
    status["conditions"] = conditions.with_condition(current, new)
    return _trimmed(status)


def _trimmed(status: Obj) -> Obj:
    return {
        key: value for key, value in status.items() if value not in (0, None, []) or key in ("terminatingReplicas",)
    }


def deployment_condition(type_: str, status: str, reason: str, message: str, now: datetime) -> Obj:
    """Deployment conditions also carry lastUpdateTime."""
    return conditions.condition(type_, status, reason, message, now, lastUpdateTime=format_time(now))


def is_complete(deployment: Obj, status: Obj) -> bool:
    """Whether the rollout is done (upstream DeploymentComplete)."""
    wanted = replicas(deployment)
    return bool(
        status.get("updatedReplicas", 0) == wanted
        and status.get("replicas", 0) == wanted
        and status.get("availableReplicas", 0) == wanted
        and status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    )


def is_progressing(deployment: Obj, status: Obj) -> bool:
    """Whether this status is nearer to completion than the last (upstream DeploymentProgressing)."""
    old = deployment.get("status") or {}

    def old_replicas(of: Obj) -> int:
        return int(of.get("replicas", 0)) - int(of.get("updatedReplicas", 0))

    return bool(
        status.get("updatedReplicas", 0) > old.get("updatedReplicas", 0)
        or old_replicas(status) < old_replicas(old)
        or status.get("readyReplicas", 0) > old.get("readyReplicas", 0)
        or status.get("availableReplicas", 0) > old.get("availableReplicas", 0)
    )


def deadline(deployment: Obj) -> int | None:
    """``progressDeadlineSeconds``, None for "never"."""
    value = deployment["spec"].get("progressDeadlineSeconds")
    return None if value in (None, _NO_DEADLINE) else int(value)


def timed_out(deployment: Obj, status: Obj, now: datetime) -> bool:
    """Whether nothing has moved for longer than the deadline (upstream DeploymentTimedOut)."""
    condition = conditions.find(status.get("conditions", []), "Progressing")
    limit = deadline(deployment)
    if condition is None or limit is None or condition["reason"] == "NewReplicaSetAvailable":
        return False
    if condition["reason"] == "ProgressDeadlineExceeded":
        return True
    return parse_time(condition["lastUpdateTime"]) + timedelta(seconds=limit) < now


def rollout_status(seen: View, now: datetime) -> Obj:
    """The status with the Progressing and ReplicaFailure conditions (upstream syncRolloutStatus)."""
    deployment = seen.deployment
    status = basic_status(seen, now)
    listed: list[Obj] = status.get("conditions", [])
    if deadline(deployment) is None:
        listed = conditions.without_condition(listed, "Progressing")
    current = conditions.find(listed, "Progressing")
    finished = (
        status.get("replicas", 0) == status.get("updatedReplicas", 0)
        and current is not None
        and current["reason"] == "NewReplicaSetAvailable"
    )
    if deadline(deployment) is not None and not finished:
        what = (
            f'ReplicaSet "{seen.new["metadata"]["name"]}"'
            if seen.new
            else f'Deployment "{deployment["metadata"]["name"]}"'
        )
        if is_complete(deployment, status):
            done = f"{what} has successfully progressed."
            listed = conditions.with_condition(
                listed, deployment_condition("Progressing", "True", "NewReplicaSetAvailable", done, now)
            )
        elif is_progressing(deployment, status):
            new = deployment_condition("Progressing", "True", "ReplicaSetUpdated", f"{what} is progressing.", now)
            if current is not None and current["status"] == "True":
                new["lastTransitionTime"] = current["lastTransitionTime"]
            listed = [*conditions.without_condition(listed, "Progressing"), new]
        elif timed_out(deployment, {**status, "conditions": listed}, now):
            late = f"{what} has timed out progressing."
            listed = conditions.with_condition(
                listed, deployment_condition("Progressing", "False", "ProgressDeadlineExceeded", late, now)
            )
    failure = next((item for rs in reversed(seen.all) if (item := objects.find_condition(rs, "ReplicaFailure"))), None)
    if failure is not None:
        new = {**failure, "lastUpdateTime": failure.get("lastTransitionTime")}
        listed = conditions.with_condition(listed, new)
    else:
        listed = conditions.without_condition(listed, "ReplicaFailure")
    status["conditions"] = listed
    return _trimmed(status)


def stuck_check_in(deployment: Obj, status: Obj, now: datetime) -> float | None:
    """Seconds until the progress deadline must be looked at, None if it need not be (upstream requeueStuckDeployment)."""
    condition = conditions.find(status.get("conditions", []), "Progressing")
    limit = deadline(deployment)
    if limit is None or condition is None or is_complete(deployment, status):
        return None
    if condition["reason"] in ("ProgressDeadlineExceeded", "NewReplicaSetAvailable"):
        return None
    due = parse_time(condition["lastUpdateTime"]) + timedelta(seconds=limit)
    return max(0.0, (due - now).total_seconds()) + 1.0
