"""ServiceAccount: every pod has one, and a volume with its token.

Upstream: plugin/pkg/admission/serviceaccount.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bowsprit.apiserver.admission.chain import CREATE, UPDATE, Target
from bowsprit.apiserver.admit import AdmissionAttributes
from bowsprit.apiserver.lookup import Listers
from bowsprit.controlplane.admission.refusal import refused
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj, nested
from bowsprit.machinery.objects import annotations as annotations_of

PODS = GroupResource("", "pods")
SERVICE_ACCOUNTS = GroupResource("", "serviceaccounts")
MIRROR_POD = "kubernetes.io/config.mirror"
TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
_VOLUME_PREFIX = "kube-api-access-"
_TOKEN_SECONDS = 60 * 60 + 7
_ENFORCE = "kubernetes.io/enforce-mountable-secrets"


class ServiceAccount:
    """See the module's docstring.

    Args:
        suffix: makes the five random characters of a volume's name.
    """

    name = "ServiceAccount"

    def __init__(self, listers: Listers, suffix: Callable[[], str]) -> None:
        self._listers = listers
        self._suffix = suffix

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin."""
        if target.resource != PODS:
            return False
        return target.is_on(PODS, CREATE) or (
            target.operation is UPDATE and target.subresource == "ephemeralcontainers"
        )

    async def mutate(self, attributes: AdmissionAttributes) -> None:
        """Name the account, mount its token, add its pull secrets."""
        pod = attributes.object
        if attributes.subresource or pod is None or MIRROR_POD in annotations_of(pod):
            return
        spec = pod.setdefault("spec", {})
        # The old field follows the new one, as upstream's conversion has it.
        spec["serviceAccountName"] = spec["serviceAccount"] = spec.get("serviceAccountName") or "default"
        account = self._account(attributes, spec["serviceAccountName"])
        if _automounts(account, spec):
            self._mount(spec)
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = [{"name": item.get("name", "")} for item in account["imagePullSecrets"]]

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Mirror pods have no account and no secrets; others only the secrets that their account allows."""
        pod = attributes.object
        if pod is None:
            return
        spec = pod.get("spec") or {}
        name = spec.get("serviceAccountName") or ""
        if attributes.subresource:
            account = self._listers(SERVICE_ACCOUNTS).get(attributes.namespace, name)
            if account and _enforced(account):
                self._limit(attributes, account, _container_secrets(spec, ("ephemeralContainers",)))
            return
        if MIRROR_POD in annotations_of(pod):
            self._check_mirror(attributes, spec)
            return
        if not name:
            text = f"no service account specified for pod {attributes.namespace}/{attributes.name}"
            raise refused(attributes, text)
        account = self._account(attributes, name)
        if _enforced(account):
            kinds = ("initContainers", "containers")
            self._limit(attributes, account, [*_volume_secrets(spec), *_container_secrets(spec, kinds)])
            self._limit_pull_secrets(attributes, account, spec)

    def _account(self, attributes: AdmissionAttributes, name: str) -> Obj:
        account = self._listers(SERVICE_ACCOUNTS).get(attributes.namespace, name)
        if account is None:
            text = f"error looking up service account {attributes.namespace}/{name}: serviceaccount {quote(name)} not found"
            raise refused(attributes, text)
        return account

    def _mount(self, spec: Obj) -> None:
        volumes = spec.get("volumes") or []
        existing = next((item["name"] for item in volumes if str(item.get("name")).startswith(_VOLUME_PREFIX)), "")
        taken = {item.get("name") for item in volumes}
        name = existing
        while not name or (not existing and name in taken):
            name = _VOLUME_PREFIX + self._suffix()
        needed = False
        for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
            mounts = container.get("volumeMounts") or []
            if not any(mount.get("mountPath") == TOKEN_PATH for mount in mounts):
                container["volumeMounts"] = [*mounts, {"name": name, "readOnly": True, "mountPath": TOKEN_PATH}]
                needed = True
        if needed and not existing:
            spec["volumes"] = [*volumes, {"name": name, "projected": _token_sources()}]

    def _check_mirror(self, attributes: AdmissionAttributes, spec: Obj) -> None:
        if spec.get("serviceAccountName"):
            raise refused(attributes, "a mirror pod may not reference service accounts")
        kinds = ("initContainers", "containers", "ephemeralContainers")
        if any(True for _ in (*_volume_secrets(spec), *_container_secrets(spec, kinds))) or spec.get(
            "imagePullSecrets"
        ):
            raise refused(attributes, "a mirror pod may not reference secrets")
        for volume in spec.get("volumes") or ():
            if any("serviceAccountToken" in source for source in nested(volume, "projected", "sources", default=())):
                raise refused(attributes, "a mirror pod may not use ServiceAccountToken volume projections")

    def _limit(
        self, attributes: AdmissionAttributes, account: Obj, uses: Iterator[tuple[str, str]] | list[tuple[str, str]]
    ) -> None:
        allowed = {item.get("name") for item in account.get("secrets") or ()}
        for secret, where in uses:
            if secret not in allowed:
                owner = account["metadata"]["name"]
                reason = f"is not allowed because service account {owner} does not reference that secret"
                raise refused(attributes, f'{where} secret.secretName="{secret}" {reason}')

    def _limit_pull_secrets(self, attributes: AdmissionAttributes, account: Obj, spec: Obj) -> None:
        allowed = {item.get("name") for item in account.get("imagePullSecrets") or ()}
        for position, item in enumerate(spec.get("imagePullSecrets") or ()):
            if item.get("name") not in allowed:
                owner = account["metadata"]["name"]
                reason = f"is not allowed because service account {owner} does not reference that imagePullSecret"
                raise refused(attributes, f'imagePullSecrets[{position}].name="{item.get("name", "")}" {reason}')


def _automounts(account: Obj, spec: Obj) -> bool:
    for holder in (spec, account):
        if (value := holder.get("automountServiceAccountToken")) is not None:
            return bool(value)
    return True


def _enforced(account: Obj) -> bool:
    return annotations_of(account).get(_ENFORCE, "").lower() in ("1", "t", "true")


def _token_sources() -> Obj:
    """Token, the cluster's CA and the namespace (upstream TokenVolumeSource)."""
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    return {
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": _TOKEN_SECONDS, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [namespace]}},
        ],
        "defaultMode": 0o644,
    }


def _volume_secrets(spec: Obj) -> Iterator[tuple[str, str]]:
    for volume in spec.get("volumes") or ():
        if isinstance(volume.get("secret"), dict):
            yield volume["secret"].get("secretName", ""), "volume with"


def _container_secrets(spec: Obj, kinds: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    words = {
        "initContainers": "init container",
        "containers": "container",
        "ephemeralContainers": "ephemeral container",
    }
    for kind in kinds:
        for container in spec.get(kind) or ():
            owner = f"{words[kind]} {container.get('name', '')}"
            for variable in container.get("env") or ():
                if name := nested(variable, "valueFrom", "secretKeyRef", "name"):
                    yield name, f"{owner} with envVar {variable.get('name', '')} referencing"
            for source in container.get("envFrom") or ():
                if name := nested(source, "secretRef", "name"):
                    yield name, f"{owner} with envFrom referencing"
