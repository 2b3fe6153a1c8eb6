"""Names of the built-in resources that several components use."""

from __future__ import annotations

from bowsprit.machinery.names import GroupVersionResource


def _core(resource: str) -> GroupVersionResource:
    return GroupVersionResource("", "v1", resource)


CONFIG_MAPS = _core("configmaps")
ENDPOINTS = _core("endpoints")
EVENTS = _core("events")
NAMESPACES = _core("namespaces")
NODES = _core("nodes")
PERSISTENT_VOLUME_CLAIMS = _core("persistentvolumeclaims")
PERSISTENT_VOLUMES = _core("persistentvolumes")
PODS = _core("pods")
REPLICATION_CONTROLLERS = _core("replicationcontrollers")
RESOURCE_QUOTAS = _core("resourcequotas")
SECRETS = _core("secrets")
SERVICE_ACCOUNTS = _core("serviceaccounts")
SERVICES = _core("services")

CONTROLLER_REVISIONS = GroupVersionResource("apps", "v1", "controllerrevisions")
DAEMON_SETS = GroupVersionResource("apps", "v1", "daemonsets")
DEPLOYMENTS = GroupVersionResource("apps", "v1", "deployments")
REPLICA_SETS = GroupVersionResource("apps", "v1", "replicasets")
STATEFUL_SETS = GroupVersionResource("apps", "v1", "statefulsets")

CRON_JOBS = GroupVersionResource("batch", "v1", "cronjobs")
JOBS = GroupVersionResource("batch", "v1", "jobs")

CERTIFICATE_SIGNING_REQUESTS = GroupVersionResource("certificates.k8s.io", "v1", "certificatesigningrequests")
CLUSTER_ROLES = GroupVersionResource("rbac.authorization.k8s.io", "v1", "clusterroles")
CUSTOM_RESOURCE_DEFINITIONS = GroupVersionResource("apiextensions.k8s.io", "v1", "customresourcedefinitions")
ENDPOINT_SLICES = GroupVersionResource("discovery.k8s.io", "v1", "endpointslices")
EVENTS_V1 = GroupVersionResource("events.k8s.io", "v1", "events")
LEASES = GroupVersionResource("coordination.k8s.io", "v1", "leases")
POD_DISRUPTION_BUDGETS = GroupVersionResource("policy", "v1", "poddisruptionbudgets")
PRIORITY_CLASSES = GroupVersionResource("scheduling.k8s.io", "v1", "priorityclasses")
SUBJECT_ACCESS_REVIEWS = GroupVersionResource("authorization.k8s.io", "v1", "subjectaccessreviews")
STORAGE_CLASSES = GroupVersionResource("storage.k8s.io", "v1", "storageclasses")
