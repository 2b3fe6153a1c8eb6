"""The API client of a server or agent, from its flags."""

from __future__ import annotations

import dataclasses
import logging

from bowsprit.client.config import RestConfig, in_cluster_config
from bowsprit.client.errors import ConfigError
from bowsprit.client.kubeconfig import Kubeconfig
from bowsprit.client.rest import RestClient

log = logging.getLogger(__name__)

NO_CONFIGURATION = (
    "invalid configuration: no configuration has been provided, try setting KUBERNETES_MASTER environment variable"
)
_QPS, _BURST = 5.0, 10  # client-go's defaults


class KubeClientError(Exception):
    """There is no usable configuration; the message is client-go's."""


def connect(kubeconfig: str, *, qps: float = 0.0, burst: int = 0, in_cluster_fallback: bool = False) -> RestClient:
    """A client by kubeconfig, or as a pod. Raises KubeClientError.

    ``in_cluster_fallback`` words the failure as clientcmd.BuildConfigFromFlags does (server), else as
    rest.InClusterConfig (agent).
    """
    config = _from_file(kubeconfig) if kubeconfig else _in_cluster(in_cluster_fallback)
    return RestClient(dataclasses.replace(config, qps=qps or _QPS, burst=burst or _BURST))


def _from_file(kubeconfig: str) -> RestConfig:
    try:
        loaded = Kubeconfig.load(kubeconfig)
        if not loaded.clusters and not loaded.contexts:
            raise KubeClientError(f"failed to load kubernetes client config: {NO_CONFIGURATION}")
        return loaded.rest_config()
    except ConfigError as exc:
        raise KubeClientError(f"failed to load kubernetes client config: {exc}") from exc


def _in_cluster(fallback: bool) -> RestConfig:
    try:
        if fallback:
            log.warning(
                "Neither --kubeconfig nor --master was specified.  Using the inClusterConfig.  This might not work."
            )
        return in_cluster_config()
    except ConfigError as exc:
        if not fallback:
            raise KubeClientError(f"failed to load in cluster kubernetes client config: {exc}") from exc
        log.warning("error creating inClusterConfig, falling back to default config: %s", exc)
        raise KubeClientError(f"failed to load kubernetes client config: {NO_CONFIGURATION}") from exc
