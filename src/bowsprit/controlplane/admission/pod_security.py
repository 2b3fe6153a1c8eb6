"""PodSecurity: the Pod Security Standards, as the labels of the namespace ask.

Upstream: k8s.io/pod-security-admission/admission. `enforce` refuses pods; `warn` and `audit` also look at the pod templates
of workloads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bowsprit.apiserver.admission.chain import CREATE, UPDATE, Target
from bowsprit.apiserver.admit import AdmissionAttributes
from bowsprit.apiserver.lookup import Listers
from bowsprit.controlplane.admission.pod_security_checks import LEVELS, violations
from bowsprit.controlplane.admission.refusal import refused
from bowsprit.machinery import fielderrors
from bowsprit.machinery.errors import invalid
from bowsprit.machinery.fielderrors import FieldError
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.names import GroupKind, GroupResource
from bowsprit.machinery.objects import Obj, labels, metadata, nested

PODS = GroupResource("", "pods")
NAMESPACES = GroupResource("", "namespaces")
_PREFIX = "pod-security.kubernetes.io/"
_VERSION = re.compile(r"v1\.(0|[1-9][0-9]*)", re.ASCII)
_MOST_PODS_TOLD = 3000
_POD_SUBRESOURCES = frozenset({"", "ephemeralcontainers", "resize"})
# Where the pod's metadata and spec are in each workload.
_TEMPLATES = {
    GroupResource("", "replicationcontrollers"): ("spec", "template"),
    GroupResource("", "podtemplates"): ("template",),
    GroupResource("apps", "replicasets"): ("spec", "template"),
    GroupResource("apps", "deployments"): ("spec", "template"),
    GroupResource("apps", "statefulsets"): ("spec", "template"),
    GroupResource("apps", "daemonsets"): ("spec", "template"),
    GroupResource("batch", "jobs"): ("spec", "template"),
    GroupResource("batch", "cronjobs"): ("spec", "jobTemplate", "spec", "template"),
}


@dataclass(frozen=True, slots=True)
class LevelVersion:
    """A level and the version of the standards; prints as `restricted:latest`."""

    level: str = "privileged"
    version: str = "latest"

    def __str__(self) -> str:
        return f"{self.level}:{self.version}"


@dataclass(frozen=True, slots=True)
class Policy:
    """What a namespace asks for."""

    enforce: LevelVersion = LevelVersion()
    audit: LevelVersion = LevelVersion()
    warn: LevelVersion = LevelVersion()


def policy_of(given: dict[str, str]) -> tuple[Policy, list[FieldError]]:
    """The policy in a namespace's labels, and what is wrong with them (upstream PolicyToEvaluate)."""
    errors: list[FieldError] = []
    found: dict[str, LevelVersion] = {}
    for mode in ("enforce", "audit", "warn"):
        level = given.get(_PREFIX + mode, "privileged")
        if level not in LEVELS:
            where = fielderrors.path("metadata", "labels").key(_PREFIX + mode)
            errors.append(fielderrors.invalid(where, level, f"must be one of {', '.join(LEVELS)}"))
            level = "restricted" if mode == "enforce" else "privileged"  # fails closed
        version = given.get(f"{_PREFIX}{mode}-version", "latest")
        if version != "latest" and not _VERSION.fullmatch(version):
            where = fielderrors.path("metadata", "labels").key(f"{_PREFIX}{mode}-version")
            errors.append(fielderrors.invalid(where, version, 'must be "latest" or "v1.x"'))
            version = "latest"
        found[mode] = LevelVersion(level, version)
    enforce, warn = found["enforce"], found["warn"]
    if _PREFIX + "warn" not in given and LEVELS.index(enforce.level) > LEVELS.index(warn.level):
        version = warn.version if f"{_PREFIX}warn-version" in given else enforce.version
        warn = LevelVersion(enforce.level, version)
    return Policy(enforce, found["audit"], warn), errors


class PodSecurity:
    """See the module's docstring."""

    name = "PodSecurity"

    def __init__(self, listers: Listers) -> None:
        self._listers = listers

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin."""
        if target.operation not in (CREATE, UPDATE):
            return False
        if target.resource == PODS:
            return target.subresource in _POD_SUBRESOURCES
        return not target.subresource and (target.resource == NAMESPACES or target.resource in _TEMPLATES)

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Judge a namespace's labels, a pod, or a workload's template."""
        obj = attributes.object or {}
        if attributes.gvr.gr == NAMESPACES:
            self._check_namespace(attributes, obj)
            return
        namespace = self._listers(NAMESPACES).get("", attributes.namespace) or {}
        policy, _ = policy_of(dict(labels(namespace)))
        if policy == Policy():
            return
        if attributes.gvr.gr == PODS:
            if attributes.operation is UPDATE and not _significant(obj, attributes.old_object or {}):
                return
            self._judge(attributes, policy, metadata(obj), obj.get("spec") or {}, enforce=True)
            return
        template = nested(obj, *_TEMPLATES[attributes.gvr.gr])
        if template:
            meta, spec = template.get("metadata") or {}, template.get("spec") or {}
            self._judge(attributes, policy, meta, spec, enforce=False)

    @staticmethod
    def _judge(attributes: AdmissionAttributes, policy: Policy, meta: Obj, spec: Obj, *, enforce: bool) -> None:
        enforced = violations(policy.enforce.level, meta, spec) if enforce else []
        if audited := violations(policy.audit.level, meta, spec):
            text = f"would violate PodSecurity {quote(str(policy.audit))}: {', '.join(audited)}"
            attributes.annotations["pod-security.kubernetes.io/audit-violations"] = text
        if enforced:
            raise refused(attributes, f"violates PodSecurity {quote(str(policy.enforce))}: {', '.join(enforced)}")
        if enforce:
            attributes.annotations["pod-security.kubernetes.io/enforce-policy"] = str(policy.enforce)
        if warned := violations(policy.warn.level, meta, spec):
            attributes.warn(f"would violate PodSecurity {quote(str(policy.warn))}: {', '.join(warned)}")

    def _check_namespace(self, attributes: AdmissionAttributes, namespace: Obj) -> None:
        policy, errors = policy_of(dict(labels(namespace)))
        old = attributes.old_object
        if errors and (old is None or not policy_of(dict(labels(old)))[1]):
            raise invalid(GroupKind("", "Namespace"), attributes.name, errors)
        if (
            old is None
            or policy.enforce.level == "privileged"
            or policy_of(dict(labels(old)))[0].enforce == policy.enforce
        ):
            return
        by_reason: dict[str, list[str]] = {}
        for pod in self._listers(PODS).list(attributes.name)[:_MOST_PODS_TOLD]:
            found = [text.partition(" (")[0] for text in violations(policy.enforce.level, metadata(pod), pod["spec"])]
            if found:
                by_reason.setdefault(", ".join(found), []).append(pod["metadata"]["name"])
        if not by_reason:
            return
        level = quote(str(policy.enforce))
        attributes.warn(
            f"existing pods in namespace {quote(attributes.name)} violate the new PodSecurity enforce level {level}"
        )
        for reason, pods in sorted(by_reason.items(), key=lambda entry: min(entry[1])):
            first, others = min(pods), len(pods) - 1
            more = f" (and {others} other pod{'s' if others > 1 else ''})" if others else ""
            attributes.warn(f"{first}{more}: {reason}")


def _significant(new: Obj, old: Obj) -> bool:
    """Whether an update may change the verdict: anything but labels, tolerations and the like (isSignificantPodUpdate)."""

    def shape(pod: Obj) -> Obj:
        spec = dict(pod.get("spec") or {})
        for field in ("tolerations", "activeDeadlineSeconds", "terminationGracePeriodSeconds", "nodeName"):
            spec.pop(field, None)
        spec["annotations"] = {
            key: value
            for key, value in (metadata(pod).get("annotations") or {}).items()
            if key.startswith("container.apparmor.security.beta.kubernetes.io/")
        }
        return spec

    return shape(new) != shape(old)
