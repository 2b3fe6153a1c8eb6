"""The objects that set up an extension server in a cluster: the fifteen documented steps, as data.

https://kubernetes.io/docs/tasks/extend-kubernetes/setup-extension-api-server/ names the steps; the comments below number them.
The order is that of application: a server is there before the APIService that sends requests to it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bowsprit.extension.apiservices import api_services
from bowsprit.extension.app import App
from bowsprit.extension.certificates import Certificates, serving_names
from bowsprit.extension.errors import ExtensionError
from bowsprit.extension.permissions import AUTH_DELEGATOR, READ, WRITE, kind_rules, library_rules
from bowsprit.extension.storage import StoreSpec
from bowsprit.extension.trust import READER_ROLE
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_dns1123_label

PORT = 8443
SERVICE_PORT = 443
USER = 65532  # "nonroot" of the usual minimal images
LABEL = "bowsprit.dev/extension"
_CERTIFICATES = "/etc/bowsprit/serving"
_SHARED_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
_RBAC = "rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestOptions:
    """What varies from one installation to the next."""

    spec: str  # MODULE:APP
    namespace: str = ""  # default: <app>-system
    image: str = ""  # default: <app>:latest
    replicas: int = 1
    cert_manager: bool = False
    port: int = PORT  # of the container
    workdir: str = ""  # where the pod runs as a process of an embedded cluster's node, in place of an image

    def checked(self, app: App) -> ManifestOptions:
        """The same with its defaults. Raises ExtensionError for what cannot work."""
        namespace = self.namespace or f"{app.name}-system"
        if problems := is_dns1123_label(namespace):
            raise ExtensionError(f"namespace {namespace!r}: {problems[0]}", reason="InvalidNamespace")
        if self.replicas < 1:
            raise ExtensionError(f"replicas must be at least 1, not {self.replicas}", reason="InvalidReplicas")
        kept = stores(app)
        if self.replicas > 1 and kept:
            raise ExtensionError(
                f"{self.replicas} replicas would each have objects of their own: {app.name} keeps them in {kept[0]}",
                reason="StoreNotShared",
                hint="use one replica, or give the kinds a storage that the replicas share",
            )
        for store in kept:
            path = store.removeprefix("sqlite:")
            if store.startswith("sqlite:") and not PurePosixPath(path).is_absolute():
                raise ExtensionError(
                    f"the store {store} has no absolute path, so no volume can be mounted for it",
                    reason="StorePathRelative",
                    hint=f'write sqlite("/data/{PurePosixPath(path).name}"); a claim is mounted at /data',
                )
        return ManifestOptions(
            spec=_module(self.spec),
            namespace=namespace,
            image=self.image or f"{app.name}:latest",
            replicas=self.replicas,
            cert_manager=self.cert_manager,
            port=self.port,
            workdir=self.workdir,
        )


def _module(spec: str) -> str:
    """MODULE:APP as it is called inside the image: where the file lies in the working directory, or is installed."""
    place, _, attribute = spec.rpartition(":")
    module = (
        Path(place).stem if place.endswith(".py") else place.replace("-", "_")
    )  # the folder my-kind holds my_kind.py
    return f"{module}:{attribute}"


def stores(app: App) -> list[str]:
    """The library's stores in which the app keeps objects, as texts."""
    found: dict[str, None] = {}
    for declaration in app.declarations:
        if declaration.is_stored:
            own = declaration.storage
            found[own.text if isinstance(own, StoreSpec) else app.store.text] = None
    return list(found)


class Manifests:
    """All objects of one installation.

    Args:
        options: checked, see ManifestOptions.checked.
        certificates: None with cert-manager, which makes its own.
    """

    def __init__(self, app: App, options: ManifestOptions, certificates: Certificates | None) -> None:
        self.app = app
        self.options = options
        self.certificates = certificates

    @property
    def serving_secret(self) -> str:
        """The name of the Secret that the pods mount."""
        return f"{self.app.name}-serving"

    @property
    def authority_secret(self) -> str:
        """The name of the Secret with the authority's key."""
        return f"{self.app.name}-ca"

    def objects(self) -> list[Obj]:
        """Everything, in the order of application."""
        return [*self.before(), *self.workload(), *self.registration()]

    def before(self) -> list[Obj]:
        """Steps 3 to 6 and 9 to 13: namespace, certificates, account, permissions."""
        made: list[Obj] = []
        if self.options.namespace not in _SHARED_NAMESPACES:
            made.append(self._namespace())
        made += self._cert_manager() if self.options.cert_manager else self.secrets()
        made.append(self._object("v1", "ServiceAccount", self.app.name, self.options.namespace))
        return [*made, *self._permissions()]

    def workload(self) -> list[Obj]:
        """Steps 7 and 8: the Deployment that serves the certificate, its Service, and volumes for what it stores."""
        return [*self._claims(), self._service(), self._deployment()]

    def registration(self) -> list[Obj]:
        """Step 14: the APIServices."""
        bundle = self.certificates.bundle if self.certificates is not None else None
        made = api_services(
            self.app,
            service=self.app.name,
            namespace=self.options.namespace,
            port=SERVICE_PORT,
            ca_bundle=bundle,
        )
        for item in made:
            item["metadata"]["labels"] = self._labels()
            if bundle is None:
                source = f"{self.options.namespace}/{self.serving_secret}"
                item["metadata"]["annotations"] = {"cert-manager.io/inject-ca-from": source}
        return made

    def secrets(self) -> list[Obj]:
        """Steps 4 to 6: the serving pair, and the authority's beside it, from which the next one is issued."""
        if self.certificates is None:
            return []
        return [
            self._secret(self.authority_secret, self.certificates.authority_data()),
            self._secret(self.serving_secret, self.certificates.serving_data()),
        ]

    # -- parts -----------------------------------------------------------------------------------------------------------

    def _labels(self) -> dict[str, str]:
        return {
            "app.kubernetes.io/name": self.app.name,
            "app.kubernetes.io/managed-by": "bowsprit",
            LABEL: self.app.name,
        }

    def _object(self, api_version: str, kind: str, name: str, namespace: str = "", **fields: object) -> Obj:
        meta: Obj = {"name": name, "labels": self._labels()}
        if namespace:
            meta["namespace"] = namespace
        return {"apiVersion": api_version, "kind": kind, "metadata": meta, **fields}

    def _namespace(self) -> Obj:
        made = self._object("v1", "Namespace", self.options.namespace)
        made["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "restricted"
        return made

    def _secret(self, name: str, data: Mapping[str, bytes]) -> Obj:
        encoded = {key: b64encode(value).decode() for key, value in data.items()}
        return self._object("v1", "Secret", name, self.options.namespace, type="kubernetes.io/tls", data=encoded)

    def _cert_manager(self) -> list[Obj]:
        """A self-signed issuer makes the authority, that one the serving certificate; both are renewed by cert-manager."""
        api, name, namespace = "cert-manager.io/v1", self.app.name, self.options.namespace
        names = serving_names(name, namespace)
        return [
            self._object(api, "Issuer", f"{name}-selfsigned", namespace, spec={"selfSigned": {}}),
            self._object(
                api,
                "Certificate",
                self.authority_secret,
                namespace,
                spec={
                    "isCA": True,
                    "commonName": f"{name}.{namespace} CA",
                    "secretName": self.authority_secret,
                    "duration": "87600h",
                    "privateKey": {"algorithm": "ECDSA", "size": 256},
                    "issuerRef": {"kind": "Issuer", "name": f"{name}-selfsigned"},
                },
            ),
            self._object(
                api, "Issuer", self.authority_secret, namespace, spec={"ca": {"secretName": self.authority_secret}}
            ),
            self._object(
                api,
                "Certificate",
                self.serving_secret,
                namespace,
                spec={
                    "commonName": names[0][:64],
                    "dnsNames": names,
                    "secretName": self.serving_secret,
                    "duration": "2160h",
                    "renewBefore": "720h",
                    "usages": ["digital signature", "key encipherment", "server auth"],
                    "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
                    "issuerRef": {"kind": "Issuer", "name": self.authority_secret},
                },
            ),
        ]

    def _permissions(self) -> list[Obj]:
        group = self.app.group
        made = [
            self._cluster_role(f"{group}:server", kind_rules(self.app)),
            self._binding("ClusterRole", f"{group}:server", f"{group}:server"),
            self._cluster_role(f"{group}:library", library_rules()),
            self._binding("ClusterRole", f"{group}:library", f"{group}:library"),
            self._binding("ClusterRole", f"{group}:auth-delegator", AUTH_DELEGATOR),
            self._binding("Role", f"{group}:authentication-reader", READER_ROLE, "kube-system"),
        ]
        # What people may do who are admin, edit or view of a namespace.
        for role, verbs in (("edit", (*READ, *WRITE)), ("view", READ)):
            rules = kind_rules(self.app, verbs=verbs, namespaced_only=True)
            if rules:
                aggregated = self._cluster_role(f"{group}:{role}", rules)
                targets = ("admin", "edit") if role == "edit" else ("admin", "edit", "view")
                for target in targets:
                    aggregated["metadata"]["labels"][f"{_RBAC}/aggregate-to-{target}"] = "true"
                made.append(aggregated)
        return made

    def _cluster_role(self, name: str, rules: list[Obj]) -> Obj:
        return self._object(f"{_RBAC}/v1", "ClusterRole", name, rules=rules)

    def _binding(self, kind: str, name: str, role: str, namespace: str = "") -> Obj:
        subject = {"kind": "ServiceAccount", "name": self.app.name, "namespace": self.options.namespace}
        return self._object(
            f"{_RBAC}/v1",
            f"{kind}Binding",
            name,
            namespace,
            subjects=[subject],
            roleRef={"apiGroup": _RBAC, "kind": kind, "name": role},
        )

    def _service(self) -> Obj:
        port = {"name": "https", "port": SERVICE_PORT, "protocol": "TCP", "targetPort": "https"}
        return self._object(
            "v1",
            "Service",
            self.app.name,
            self.options.namespace,
            spec={"selector": {"app.kubernetes.io/name": self.app.name}, "ports": [port]},
        )

    def _folders(self) -> list[str]:
        paths = [text.removeprefix("sqlite:") for text in stores(self.app) if text.startswith("sqlite:")]
        return list(dict.fromkeys(str(PurePosixPath(path).parent) for path in paths))

    def _claims(self) -> list[Obj]:
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        return [
            self._object("v1", "PersistentVolumeClaim", self._claim(number), self.options.namespace, spec=spec)
            for number, _ in enumerate(self._folders())
        ]

    def _claim(self, number: int) -> str:
        return f"{self.app.name}-data" + (f"-{number}" if number else "")

    def _deployment(self) -> Obj:
        options = self.options
        template: Obj = {"metadata": {"labels": {"app.kubernetes.io/name": self.app.name}}, "spec": self._pod()}
        if options.workdir:
            annotations = {"bowsprit.dev/run": "process", "bowsprit.dev/workdir": options.workdir}
            template["metadata"]["annotations"] = annotations
        spec: Obj = {
            "replicas": options.replicas,
            "selector": {"matchLabels": {"app.kubernetes.io/name": self.app.name}},
            # Two pods with stores of their own must never serve at the same time.
            "strategy": {"type": "Recreate"}
            if stores(self.app)
            else {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": template,
        }
        return self._object("apps/v1", "Deployment", self.app.name, options.namespace, spec=spec)

    def _pod(self) -> Obj:
        volumes: list[Obj] = [
            {"name": "serving", "secret": {"secretName": self.serving_secret, "defaultMode": 0o440}},
            {"name": "tmp", "emptyDir": {}},
        ]
        for number, _ in enumerate(self._folders()):
            claim = self._claim(number)
            volumes.append({"name": claim, "persistentVolumeClaim": {"claimName": claim}})
        pod: Obj = {
            "serviceAccountName": self.app.name,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [self._container()],
            "volumes": volumes,
            "terminationGracePeriodSeconds": 35,
        }
        if self.options.replicas > 1:
            pod["topologySpreadConstraints"] = [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": {"app.kubernetes.io/name": self.app.name}},
                }
            ]
        return pod

    def _container(self) -> Obj:
        def probe(path: str, **more: int) -> Obj:
            return {"httpGet": {"path": path, "port": "https", "scheme": "HTTPS"}, **more}

        mounts: list[Obj] = [
            {"name": "serving", "mountPath": _CERTIFICATES, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - in the container
        ]
        mounts += [{"name": self._claim(number), "mountPath": folder} for number, folder in enumerate(self._folders())]
        return {
            "name": "apiserver",
            "image": self.options.image,
            "imagePullPolicy": "IfNotPresent",
            "command": ["bowsprit", "extension", "run", self.options.spec],
            "args": [
                f"--secure-port={self.options.port}",
                f"--tls-cert-file={_CERTIFICATES}/tls.crt",
                f"--tls-private-key-file={_CERTIFICATES}/tls.key",
            ],
            "ports": [{"name": "https", "containerPort": self.options.port, "protocol": "TCP"}],
            "startupProbe": probe("/livez", periodSeconds=2, failureThreshold=30),
            "livenessProbe": probe("/livez", periodSeconds=10, failureThreshold=3),
            "readinessProbe": probe("/readyz", periodSeconds=5, failureThreshold=2),
            "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}},
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            },
            "volumeMounts": mounts,
        }
