"""The certificates, keys and kubeconfigs of a cluster: made at the first start, renewed when a third of their life is left.

One authority signs serving and client certificates, a second one the aggregator's client certificate, as kubeadm has it.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from pathlib import Path

import yaml

from bowsprit.client.kubeconfig import render
from bowsprit.cluster.paths import ClusterPaths
from bowsprit.cluster.supervisor import write_atomically
from bowsprit.pki.authority import Authority, needs_renewal
from bowsprit.pki.files import read_file, write_private
from bowsprit.pki.keypair import KeyPair
from bowsprit.pki.signing import new_signing_key

ADMIN = "admin"
CONTROLLER_MANAGER = "controller-manager"
SCHEDULER = "scheduler"
_NODES_GROUP = "system:nodes"
_IDENTITIES: dict[str, tuple[str, tuple[str, ...]]] = {
    ADMIN: ("kubernetes-admin", ("system:masters",)),
    # Its right is to make tokens: each controller acts as a ServiceAccount of its own.
    CONTROLLER_MANAGER: ("system:kube-controller-manager", ()),
    SCHEDULER: ("system:kube-scheduler", ()),
}


class Credentials:
    """What a cluster's processes prove themselves with, in files below ``paths.pki`` and ``paths.kubeconfigs``."""

    def __init__(self, paths: ClusterPaths) -> None:
        self._paths = paths
        self._pki = paths.pki

    @property
    def ca_file(self) -> Path:
        return self._pki / "ca.crt"

    @property
    def front_proxy_ca_file(self) -> Path:
        return self._pki / "front-proxy-ca.crt"

    @property
    def signing_key_file(self) -> Path:
        return self._pki / "sa.key"

    def pair(self, name: str) -> tuple[Path, Path]:
        """The certificate and key file of a name."""
        return self._pki / f"{name}.crt", self._pki / f"{name}.key"

    def make(self, *, server: str, service_address: str, nodes: Iterable[str], context: str) -> None:
        """Make what is missing or about to expire.

        Args:
            server: the API server's address for clients, ``https://127.0.0.1:PORT``.
            service_address: the address of the Service default/kubernetes, for the serving certificate.
            nodes: the nodes to give identities to.
            context: the name of the admin's context.
        """
        self._paths.make()
        authority = self._authority("ca", "kubernetes")
        front_proxy = self._authority("front-proxy-ca", "front-proxy-ca")
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
        if self._due("apiserver"):
            addresses = ["127.0.0.1", "::1", service_address]
            self._save("apiserver", authority.issue_server("kube-apiserver", [*names, "localhost"], addresses))
        if self._due("front-proxy-client"):
            self._save("front-proxy-client", front_proxy.issue_client("front-proxy-client"))
        if self._due("kubelet-serving"):
            self._save("kubelet-serving", authority.issue_server("kubelet", ["localhost"], ["127.0.0.1"]))
        if self._due("apiserver-kubelet-client"):
            client = authority.issue_client("kube-apiserver-kubelet-client", ["kubeadm:cluster-admins"])
            self._save("apiserver-kubelet-client", client)
        if not self.signing_key_file.exists():
            write_private(self.signing_key_file, new_signing_key())
        for name, (user, groups) in _IDENTITIES.items():
            self._identity(authority, name, user, groups, server, context if name == ADMIN else name)
        for node in nodes:
            self._identity(authority, f"node-{node}", f"system:node:{node}", (_NODES_GROUP,), server, node)

    @property
    def konnectivity_ca_file(self) -> Path:
        return self._pki / "konnectivity-ca.crt"

    def make_konnectivity(self, agents: Iterable[str]) -> None:
        """Make the server's and the agents' certificates, of an authority that signs nothing else.

        Its certificates admit agents: with the cluster's authority every node and user could be one.
        """
        authority = self._authority("konnectivity-ca", "konnectivity-ca")
        if self._due("konnectivity-server"):
            self._save(
                "konnectivity-server", authority.issue_server("konnectivity-server", ["localhost"], ["127.0.0.1"])
            )
        for agent in agents:
            if self._due(agent):
                self._save(agent, authority.issue_client(f"system:{agent}"))

    def kubeconfig(self, name: str) -> Path:
        """The kubeconfig file of an identity: ``admin``, a component, or ``node-NAME``."""
        return self._paths.kubeconfigs / f"{name}.conf"

    def _authority(self, name: str, common_name: str) -> Authority:
        cert, key = self.pair(name)
        if not (cert.exists() and key.exists()):
            Authority.create(common_name).pair.save(cert, key)
        return Authority.load(cert, key)

    def _due(self, name: str) -> bool:
        cert, key = self.pair(name)
        now = datetime.datetime.now(datetime.UTC)
        return not (cert.exists() and key.exists()) or needs_renewal(read_file(cert), now)

    def _save(self, name: str, pair: KeyPair) -> None:
        pair.save(*self.pair(name))

    def _identity(
        self, authority: Authority, name: str, user: str, groups: tuple[str, ...], server: str, context: str
    ) -> None:
        fresh = self._due(name)
        if fresh:
            self._save(name, authority.issue_client(user, groups))
        path = self.kubeconfig(name)
        pair = KeyPair.load(*self.pair(name))
        document = render(context, server=server, ca_pem=authority.ca_pem, cert_pem=pair.cert_pem, key_pem=pair.key_pem)
        text = yaml.safe_dump(document, sort_keys=False).encode()
        if not path.exists() or path.read_bytes() != text:
            write_atomically(path, text)
