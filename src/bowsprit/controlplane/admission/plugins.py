"""Which plugins there are, in which order they run, and which are on by default.

Upstream: pkg/kubeapiserver/options/plugins.go. Plugins that call out (webhooks, policies) come last, then ResourceQuota, which
counts only what all others have admitted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from bowsprit.apiserver.access import Authorizer
from bowsprit.apiserver.admission.chain import AdmissionChain, Plugin
from bowsprit.apiserver.admission.lifecycle import NamespaceLifecycle
from bowsprit.apiserver.lookup import Listers
from bowsprit.controlplane.admission.certificates import (
    CertificateApproval,
    CertificateSigning,
    CertificateSubjectRestriction,
    ClusterTrustBundleAttest,
)
from bowsprit.controlplane.admission.ingress_class import DefaultIngressClass, DenyServiceExternalIPs
from bowsprit.controlplane.admission.limit_ranger import LimitRanger
from bowsprit.controlplane.admission.namespaces import (
    AlwaysAdmit,
    AlwaysDeny,
    NamespaceAutoProvision,
    NamespaceExists,
)
from bowsprit.controlplane.admission.node_restriction import NodeRestriction
from bowsprit.controlplane.admission.pod_labels import AlwaysPullImages, PodTopologyLabels
from bowsprit.controlplane.admission.pod_security import PodSecurity
from bowsprit.controlplane.admission.priority import Priority
from bowsprit.controlplane.admission.resource_quota import ResourceQuota, WriteStatus
from bowsprit.controlplane.admission.runtime_class import RuntimeClass
from bowsprit.controlplane.admission.service_account import ServiceAccount
from bowsprit.controlplane.admission.storage import (
    DefaultStorageClass,
    PersistentVolumeClaimResize,
    StorageObjectInUseProtection,
)
from bowsprit.controlplane.admission.tolerations import (
    DefaultTolerationSeconds,
    ExtendedResourceToleration,
    TaintNodesByCondition,
)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What plugins are given. `calls` are the plugins that call out, by name; those that are absent are not served."""

    listers: Listers
    authorizer: Authorizer
    suffix: Callable[[], str]  # five random characters
    write_quota_status: WriteStatus
    create_namespace: Callable[[str], Awaitable[None]]
    calls: dict[str, Plugin]


_MAKERS: dict[str, Callable[[Surroundings], Plugin]] = {
    "AlwaysAdmit": lambda _: AlwaysAdmit(),
    "NamespaceAutoProvision": lambda given: NamespaceAutoProvision(given.listers, given.create_namespace),
    "NamespaceLifecycle": lambda given: NamespaceLifecycle(given.listers),
    "NamespaceExists": lambda given: NamespaceExists(given.listers),
    "LimitRanger": lambda given: LimitRanger(given.listers),
    "ServiceAccount": lambda given: ServiceAccount(given.listers, given.suffix),
    "NodeRestriction": lambda given: NodeRestriction(given.listers),
    "TaintNodesByCondition": lambda _: TaintNodesByCondition(),
    "AlwaysPullImages": lambda _: AlwaysPullImages(),
    "PodSecurity": lambda given: PodSecurity(given.listers),
    "Priority": lambda given: Priority(given.listers),
    "DefaultTolerationSeconds": lambda _: DefaultTolerationSeconds(),
    "ExtendedResourceToleration": lambda _: ExtendedResourceToleration(),
    "DefaultStorageClass": lambda given: DefaultStorageClass(given.listers),
    "StorageObjectInUseProtection": lambda _: StorageObjectInUseProtection(),
    "PersistentVolumeClaimResize": lambda given: PersistentVolumeClaimResize(given.listers),
    "RuntimeClass": lambda given: RuntimeClass(given.listers),
    "CertificateApproval": lambda given: CertificateApproval(given.authorizer),
    "CertificateSigning": lambda given: CertificateSigning(given.authorizer),
    "ClusterTrustBundleAttest": lambda given: ClusterTrustBundleAttest(given.authorizer),
    "CertificateSubjectRestriction": lambda _: CertificateSubjectRestriction(),
    "DefaultIngressClass": lambda given: DefaultIngressClass(given.listers),
    "DenyServiceExternalIPs": lambda _: DenyServiceExternalIPs(),
    "PodTopologyLabels": lambda given: PodTopologyLabels(given.listers),
    "MutatingAdmissionPolicy": lambda given: given.calls["MutatingAdmissionPolicy"],
    "MutatingAdmissionWebhook": lambda given: given.calls["MutatingAdmissionWebhook"],
    "ValidatingAdmissionPolicy": lambda given: given.calls["ValidatingAdmissionPolicy"],
    "ValidatingAdmissionWebhook": lambda given: given.calls["ValidatingAdmissionWebhook"],
    "ResourceQuota": lambda given: ResourceQuota(given.listers, given.write_quota_status),
    "AlwaysDeny": lambda _: AlwaysDeny(),
}
KNOWN = tuple(_MAKERS)
CALLING = frozenset(
    {"MutatingAdmissionPolicy", "MutatingAdmissionWebhook", "ValidatingAdmissionPolicy", "ValidatingAdmissionWebhook"}
)
_OFF_BY_DEFAULT = frozenset(
    {
        "AlwaysAdmit",
        "AlwaysDeny",
        "AlwaysPullImages",
        "DenyServiceExternalIPs",
        "ExtendedResourceToleration",
        "NamespaceAutoProvision",
        "NamespaceExists",
        "NodeRestriction",
    }
)
DEFAULT_ON = tuple(name for name in KNOWN if name not in _OFF_BY_DEFAULT)


def check_names(enabled: Sequence[str], disabled: Sequence[str]) -> list[str]:
    """What is wrong with `--enable-admission-plugins` and `--disable-admission-plugins`."""
    problems = []
    for flag, names in (("enable", enabled), ("disable", disabled)):
        problems += [f'{flag}-admission-plugins plugin "{name}" is unknown' for name in names if name not in KNOWN]
    both = [name for name in enabled if name in disabled]
    problems += [f"{both} in enable-admission-plugins and disable-admission-plugins overlapped"] if both else []
    return problems


def build_chain(given: Surroundings, enabled: Sequence[str] = (), disabled: Sequence[str] = ()) -> AdmissionChain:
    """The chain of the default plugins, with some more or some less."""
    on = (set(DEFAULT_ON) | set(enabled)) - set(disabled)
    on -= CALLING - set(given.calls)
    return AdmissionChain([_MAKERS[name](given) for name in KNOWN if name in on])
