"""All built-in kinds: the generated data joined with the functions of each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bowsprit.apiserver.authorization.escalation import EscalationCheck
from bowsprit.apiserver.resource import (
    Column,
    Printer,
    Resource,
    ScaleSubresource,
    StatusSubresource,
    Subresource,
    Version,
)
from bowsprit.apiserver.strategy import Strategy
from bowsprit.controlplane.admissionregistration import webhooks
from bowsprit.controlplane.apiextensions.strategy import DefinitionStatusStrategy, DefinitionStrategy
from bowsprit.controlplane.apiregistration import apiservice
from bowsprit.controlplane.apps import controllerrevision, daemonset, deployment, replicaset, statefulset
from bowsprit.controlplane.autoscaling import hpa
from bowsprit.controlplane.batch import cronjob, job
from bowsprit.controlplane.behaviour import Behaviour
from bowsprit.controlplane.certificates import signingrequest
from bowsprit.controlplane.coordination import lease
from bowsprit.controlplane.core import (
    componentstatus,
    configmap,
    endpoints,
    namespace,
    pod,
    quota,
    replication,
    secret,
    service,
    serviceaccount,
    storage,
)
from bowsprit.controlplane.core import node as core_node
from bowsprit.controlplane.discovery import endpointslice
from bowsprit.controlplane.events import event
from bowsprit.controlplane.flowcontrol import priority
from bowsprit.controlplane.networking import ingress, policy
from bowsprit.controlplane.node import runtimeclass
from bowsprit.controlplane.policy import disruption
from bowsprit.controlplane.printing import labels_text
from bowsprit.controlplane.rbac import roles
from bowsprit.controlplane.resource import claims
from bowsprit.controlplane.resource.adminaccess import LabelsOf, all_labelled
from bowsprit.controlplane.scheduling import priorityclass
from bowsprit.controlplane.schemas import BuiltinSchema, load_data
from bowsprit.controlplane.statused import RESET_METADATA, StatusStrategy
from bowsprit.controlplane.storage import classes
from bowsprit.machinery.names import GroupResource, GroupVersionKind, GroupVersionResource
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.selectors import LabelSelector


def behaviours(
    escalation: Callable[[], EscalationCheck | None],
    services: Strategy,
    labels_of: LabelsOf = all_labelled,
) -> dict[GroupResource, Behaviour]:
    """What each kind does; kinds that are missing are stored as they are."""
    pods, namespaces, requests = (
        pod.PodStrategy(),
        namespace.NamespaceStrategy(),
        signingrequest.SigningRequestStrategy(),
    )
    nodes = core_node.NodeStrategy()
    role, binding = roles.RoleStrategy(escalation), roles.BindingStrategy(escalation)
    definition = DefinitionStrategy()
    flow_schemas = priority.FlowSchemaStrategy()
    label_scale = ScaleSubresource(selector=_label_selector_text)
    return {
        **_core(pods, namespaces, nodes, services),
        GroupResource("apps", "deployments"): Behaviour(
            deployments := deployment.DeploymentStrategy(),
            deployment.DeploymentStatusStrategy(deployments, ("labels",)),
            cells=deployment.cells,
            scale=label_scale,
        ),
        GroupResource("apps", "replicasets"): Behaviour(
            replica_sets := replicaset.ReplicaSetStrategy(),
            replicaset.ReplicaSetStatusStrategy(replica_sets),
            cells=replicaset.cells,
            scale=label_scale,
        ),
        **_with_status("apps", "statefulsets", statefulset.StatefulSetStrategy(), statefulset.cells, (), label_scale),
        **_with_status("apps", "daemonsets", daemonset.DaemonSetStrategy(), daemonset.cells),
        GroupResource("apps", "controllerrevisions"): Behaviour(
            controllerrevision.ControllerRevisionStrategy(), cells=controllerrevision.cells
        ),
        **_with_status("batch", "jobs", job.JobStrategy(), job.cells),
        **_with_status("batch", "cronjobs", cronjob.CronJobStrategy(), cronjob.cells),
        GroupResource("autoscaling", "horizontalpodautoscalers"): Behaviour(
            strategy := hpa.AutoscalerStrategy(),
            StatusStrategy(strategy),
            cells=hpa.cells,
            convert={"autoscaling/v1": (hpa.from_v1, hpa.to_v1)},
        ),
        **_with_status("networking.k8s.io", "ingresses", ingress.IngressStrategy(), ingress.cells),
        GroupResource("networking.k8s.io", "ingressclasses"): Behaviour(
            ingress.IngressClassStrategy(), cells=ingress.class_cells
        ),
        GroupResource("networking.k8s.io", "networkpolicies"): Behaviour(
            policy.NetworkPolicyStrategy(), cells=policy.cells
        ),
        GroupResource("networking.k8s.io", "ipaddresses"): Behaviour(
            policy.AddressStrategy(), cells=policy.address_cells
        ),
        **_with_status(
            "networking.k8s.io", "servicecidrs", policy.ServiceCIDRStrategy(), policy.cidr_cells, RESET_METADATA
        ),
        GroupResource("policy", "poddisruptionbudgets"): Behaviour(
            budgets := disruption.DisruptionBudgetStrategy(),
            disruption.DisruptionBudgetStatusStrategy(budgets),
            cells=disruption.cells,
        ),
        GroupResource(roles.RBAC_GROUP, "roles"): Behaviour(role, cells=roles.role_cells),
        GroupResource(roles.RBAC_GROUP, "clusterroles"): Behaviour(role, cells=roles.role_cells),
        GroupResource(roles.RBAC_GROUP, "rolebindings"): Behaviour(binding, cells=roles.binding_cells),
        GroupResource(roles.RBAC_GROUP, "clusterrolebindings"): Behaviour(binding, cells=roles.binding_cells),
        **_storage(),
        GroupResource("scheduling.k8s.io", "priorityclasses"): Behaviour(
            priorityclass.PriorityClassStrategy(), cells=priorityclass.cells
        ),
        GroupResource("coordination.k8s.io", "leases"): Behaviour(lease.LeaseStrategy(), cells=lease.cells),
        GroupResource("apiextensions.k8s.io", "customresourcedefinitions"): Behaviour(
            definition, DefinitionStatusStrategy(definition)
        ),
        GroupResource("node.k8s.io", "runtimeclasses"): Behaviour(
            runtimeclass.RuntimeClassStrategy(), cells=runtimeclass.cells
        ),
        GroupResource("discovery.k8s.io", "endpointslices"): Behaviour(
            endpointslice.EndpointSliceStrategy(), cells=endpointslice.cells
        ),
        GroupResource("flowcontrol.apiserver.k8s.io", "flowschemas"): Behaviour(
            flow_schemas,
            StatusStrategy(flow_schemas, RESET_METADATA),
            cells=priority.schema_cells,
            order=priority.schema_order,
        ),
        **_with_status(
            "flowcontrol.apiserver.k8s.io",
            "prioritylevelconfigurations",
            priority.PriorityLevelStrategy(),
            priority.level_cells,
            RESET_METADATA,
        ),
        **_admission(),
        GroupResource("certificates.k8s.io", "certificatesigningrequests"): Behaviour(
            requests,
            signingrequest.SigningRequestStatusStrategy(requests, approval=False),
            {"approval": signingrequest.SigningRequestStatusStrategy(requests, approval=True)},
            signingrequest.cells,
        ),
        **_with_status(
            "apiregistration.k8s.io",
            "apiservices",
            apiservice.APIServiceStrategy(),
            apiservice.cells,
            ("labels", "annotations", "finalizers", "ownerReferences"),
        ),
        **_resource_allocation(labels_of),
    }


def _core(
    pods: pod.PodStrategy, namespaces: namespace.NamespaceStrategy, nodes: core_node.NodeStrategy, services: Strategy
) -> dict[GroupResource, Behaviour]:
    controllers = replication.ReplicationControllerStrategy()
    events = Behaviour(
        event.EventStrategy(),
        cells=event.cells,
        convert={"events.k8s.io/v1": (event.from_events, event.to_events)},
        ttl_seconds=event.TTL_SECONDS,
    )
    return {
        GroupResource("", "pods"): Behaviour(
            pods,
            pod.PodStatusStrategy(pods),
            {
                "ephemeralcontainers": pod.PodEphemeralContainersStrategy(pods),
                "resize": pod.PodResizeStrategy(pods),
            },
            pod.cells,
            conditions=pod.conditions,
        ),
        GroupResource("", "namespaces"): Behaviour(
            namespaces,
            namespace.NamespaceStatusStrategy(namespaces),
            {"finalize": namespace.NamespaceFinalizeStrategy(namespaces)},
            namespace.cells,
        ),
        GroupResource("", "nodes"): Behaviour(nodes, core_node.NodeStatusStrategy(nodes), cells=core_node.cells),
        GroupResource("", "services"): Behaviour(
            services, service.ServiceStatusStrategy(services), cells=service.cells
        ),
        **_with_status("", "persistentvolumes", storage.VolumeStrategy(), storage.volume_cells),
        **_with_status("", "persistentvolumeclaims", storage.ClaimStrategy(), storage.claim_cells),
        **_with_status("", "resourcequotas", quota.QuotaStrategy(), quota.quota_cells),
        GroupResource("", "limitranges"): Behaviour(quota.LimitRangeStrategy(), cells=quota.limit_range_cells),
        GroupResource("", "configmaps"): Behaviour(configmap.ConfigMapStrategy(), cells=configmap.cells),
        GroupResource("", "secrets"): Behaviour(secret.SecretStrategy(), cells=secret.cells),
        GroupResource("", "serviceaccounts"): Behaviour(
            serviceaccount.ServiceAccountStrategy(), cells=serviceaccount.cells
        ),
        GroupResource("", "endpoints"): Behaviour(endpoints.EndpointsStrategy(), cells=endpoints.cells),
        GroupResource("", "podtemplates"): Behaviour(
            replication.PodTemplateStrategy(), cells=replication.template_cells
        ),
        GroupResource("", "replicationcontrollers"): Behaviour(
            controllers,
            StatusStrategy(controllers),
            cells=replication.cells,
            scale=ScaleSubresource(selector=lambda obj: labels_text((obj.get("spec") or {}).get("selector"))),
        ),
        GroupResource("", "componentstatuses"): Behaviour(cells=componentstatus.cells),
        GroupResource("", "events"): events,
        GroupResource("events.k8s.io", "events"): events,
    }


def _storage() -> dict[GroupResource, Behaviour]:
    group = "storage.k8s.io"
    return {
        GroupResource(group, "storageclasses"): Behaviour(classes.StorageClassStrategy(), cells=classes.class_cells),
        GroupResource(group, "csidrivers"): Behaviour(classes.CSIDriverStrategy(), cells=classes.driver_cells),
        GroupResource(group, "csinodes"): Behaviour(classes.CSINodeStrategy(), cells=classes.node_cells),
        GroupResource(group, "csistoragecapacities"): Behaviour(
            classes.CapacityStrategy(), cells=classes.capacity_cells
        ),
        **_with_status(
            group, "volumeattachments", classes.VolumeAttachmentStrategy(), classes.attachment_cells, RESET_METADATA
        ),
        GroupResource(group, "volumeattributesclasses"): Behaviour(
            classes.AttributesClassStrategy(), cells=classes.attributes_cells
        ),
    }


def _admission() -> dict[GroupResource, Behaviour]:
    group = "admissionregistration.k8s.io"
    hooks = Behaviour(webhooks.WebhookStrategy(), cells=webhooks.webhook_cells)
    binding = Behaviour(webhooks.PolicyBindingStrategy(), cells=webhooks.binding_cells)
    return {
        GroupResource(group, "mutatingwebhookconfigurations"): hooks,
        GroupResource(group, "validatingwebhookconfigurations"): hooks,
        **_with_status(
            group,
            "validatingadmissionpolicies",
            webhooks.PolicyStrategy(),
            webhooks.validating_policy_cells,
            RESET_METADATA,
        ),
        GroupResource(group, "mutatingadmissionpolicies"): Behaviour(
            webhooks.MutatingPolicyStrategy(), cells=webhooks.mutating_policy_cells
        ),
        GroupResource(group, "validatingadmissionpolicybindings"): binding,
        GroupResource(group, "mutatingadmissionpolicybindings"): binding,
    }


def _resource_allocation(labels_of: LabelsOf) -> dict[GroupResource, Behaviour]:
    group = "resource.k8s.io"
    claim = claims.ClaimStrategy(labels_of)
    return {
        GroupResource(group, "deviceclasses"): Behaviour(claims.ClassStrategy(), cells=claims.class_cells),
        GroupResource(group, "resourceclaims"): Behaviour(
            claim, claims.ClaimStatusStrategy(claim), cells=claims.claim_cells
        ),
        GroupResource(group, "resourceclaimtemplates"): Behaviour(
            claims.ClaimTemplateStrategy(labels_of), cells=claims.class_cells
        ),
        GroupResource(group, "resourceslices"): Behaviour(claims.SliceStrategy(), cells=claims.slice_cells),
    }


def _with_status(
    group: str,
    resource: str,
    strategy: Strategy,
    cells: Any,
    keeps: tuple[str, ...] = (),
    scale: ScaleSubresource | None = None,
) -> dict[GroupResource, Behaviour]:
    return {
        GroupResource(group, resource): Behaviour(strategy, StatusStrategy(strategy, keeps), cells=cells, scale=scale)
    }


def _label_selector_text(obj: Obj) -> str:
    return str(LabelSelector.from_obj((obj.get("spec") or {}).get("selector") or {}))


# Sent as a Warning with every request.
_DEPRECATED = {
    GroupVersionKind(
        "", "v1", "Endpoints"
    ): "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
    GroupVersionKind("", "v1", "ComponentStatus"): "v1 ComponentStatus is deprecated in v1.19+",
}

# These groups check their metadata as custom resources do; all others know the standard finalizers.
_GENERIC_METADATA = frozenset({"admissionregistration.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io"})
_ANY_FINALIZERS = frozenset(
    {
        GroupResource("", "events"),
        GroupResource("coordination.k8s.io", "leases"),
        GroupResource("node.k8s.io", "runtimeclasses"),
        GroupResource("policy", "poddisruptionbudgets"),
    }
)

_NO_UPDATE_RULES = frozenset(
    {
        GroupResource("", "events"),
        GroupResource("", "limitranges"),
        GroupResource("flowcontrol.apiserver.k8s.io", "flowschemas"),
        GroupResource("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"),
        GroupResource("policy", "poddisruptionbudgets"),
    }
)
_CREATION_RULES_AGAIN = frozenset(
    GroupResource(group, name)
    for group, names in {
        "": "configmaps endpoints limitranges namespaces nodes persistentvolumeclaims persistentvolumes pods secrets serviceaccounts",
        "apiregistration.k8s.io": "apiservices",
        "apps": "controllerrevisions",
        "batch": "jobs",
        "certificates.k8s.io": "certificatesigningrequests",
        "flowcontrol.apiserver.k8s.io": "flowschemas prioritylevelconfigurations",
        "networking.k8s.io": "ingressclasses ingresses ipaddresses",
        "node.k8s.io": "runtimeclasses",
        "rbac.authorization.k8s.io": "clusterrolebindings clusterroles rolebindings roles",
        "resource.k8s.io": "deviceclasses resourceclaims resourceclaimtemplates",
        "storage.k8s.io": "csistoragecapacities storageclasses volumeattributesclasses",
    }.items()
    for name in names.split()
)

# One resource serves both: whoever lists events of either group sees all of them.
_SHARED_STORAGE = {GroupResource("events.k8s.io", "events"): GroupResource("", "events")}


def built_in_resources(
    escalation: Callable[[], EscalationCheck | None],
    further: Mapping[GroupResource, Mapping[str, Subresource]],
    services: Strategy | None = None,
    skip: frozenset[GroupResource] = frozenset(),
    labels_of: LabelsOf = all_labelled,
) -> list[Resource]:
    """Every stored built-in resource.

    Args:
        escalation: gives the running server's check of RBAC writes.
        further: subresources that need the running server (binding, eviction, token, log, proxy …).
        services: the strategy of Services, with the running server's allocators; without it nothing is allocated.
        skip: resources that others register (reviews, which are not stored).
        labels_of: the labels of a namespace, which say who may use devices as an administrator; without it everybody may.
    """
    known = behaviours(escalation, services or service.ServiceStrategy(), labels_of)
    grouped: dict[GroupResource, list[dict[str, Any]]] = {}
    for entry in load_data("kinds"):
        gr = GroupResource(entry["group"], entry["resource"])
        if gr not in skip:
            grouped.setdefault(_SHARED_STORAGE.get(gr, gr), []).append(entry)
    return [_resource(gr, entries, known.get(gr, Behaviour()), further.get(gr, {})) for gr, entries in grouped.items()]


def _resource(
    gr: GroupResource, entries: list[dict[str, Any]], behaviour: Behaviour, further: Mapping[str, Subresource]
) -> Resource:
    first = entries[0]
    subresources: dict[str, Subresource] = {}
    for entry in first.get("subresources", ()):
        made = _subresource(entry, behaviour)
        if made is not None:
            subresources[entry["name"]] = made
    return Resource(
        kind=first["kind"],
        plural=first["resource"],
        versions=[_version(entry, behaviour) for entry in entries],
        group=gr.group,
        singular=first.get("singularName", ""),
        namespaced=first["namespaced"],
        short_names=tuple(first.get("shortNames", ())),
        categories=tuple(first.get("categories", ())),
        verbs=tuple(first["verbs"]),
        strategy=behaviour.strategy,
        subresources={**subresources, **further},
        ttl_seconds=behaviour.ttl_seconds,
        standard_finalizers=gr.group not in _GENERIC_METADATA and gr not in _ANY_FINALIZERS,
        repeats_update_rules=gr not in _NO_UPDATE_RULES,
        repeats_creation_rules=gr in _CREATION_RULES_AGAIN,
        storage_version_hash=first.get("storageVersionHash", ""),
    )


def _subresource(entry: dict[str, Any], behaviour: Behaviour) -> Subresource | None:
    name = entry["name"]
    if name == "status" and behaviour.status is not None:
        return StatusSubresource(behaviour.status)
    if name == "scale":
        return behaviour.scale or ScaleSubresource(selector=_label_selector_text)
    if name in behaviour.others:
        return StatusSubresource(behaviour.others[name], name, tuple(entry["verbs"]))
    return None


def _version(entry: dict[str, Any], behaviour: Behaviour) -> Version:
    gvk = GroupVersionKind(entry["group"], entry["version"], entry["kind"])
    to_hub, from_hub = behaviour.convert.get(gvk.api_version, (None, None))
    printer = None
    columns = entry.get("columns")
    if columns and behaviour.cells is not None:
        printer = Printer(
            [Column(**column) for column in columns], behaviour.cells, behaviour.conditions, behaviour.order
        )
    return Version(
        GroupVersionResource(entry["group"], entry["version"], entry["resource"]),
        gvk,
        BuiltinSchema(gvk),
        to_hub,
        from_hub,
        printer,
        deprecation_warning=_DEPRECATED.get(gvk, ""),
    )
