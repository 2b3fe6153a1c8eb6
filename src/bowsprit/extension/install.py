"""Installing an extension server in a cluster, replacing its certificates, removing it.

Objects are applied on the server's side with a manager of its own, so a second run changes only what differs. The APIServices
come last and go first: a registered API that nothing serves holds up a whole cluster (discovery, namespaces that are deleted).
"""

from __future__ import annotations

import datetime
import re
from base64 import b64decode
from collections.abc import Callable

from bowsprit.client.errors import ClientError
from bowsprit.client.resources import DEPLOYMENTS, NAMESPACES, SECRETS
from bowsprit.client.rest import PatchType, RestClient
from bowsprit.extension.apiservices import API_SERVICES
from bowsprit.extension.app import App
from bowsprit.extension.certificates import Certificates, serving_names
from bowsprit.extension.errors import ExtensionError
from bowsprit.extension.manifests import LABEL, ManifestOptions, Manifests
from bowsprit.extension.rollout import Rollout
from bowsprit.machinery.errors import ForbiddenError, NotFoundError, StatusError
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.machinery.objects import Obj, labels, nested
from bowsprit.pki.errors import PKIError

MANAGER = "bowsprit-extension"
Say = Callable[[str, str], None]
_TRUST_BUNDLES = ("kube-root-ca.crt", "openshift-service-ca.crt", "istio-ca-root-cert")
_OTHERS = ("deployments", "statefulsets", "daemonsets", "services", "configmaps", "secrets", "persistentvolumeclaims")


def resource_of(obj: Obj) -> GroupVersionResource:
    """Where an object of the manifests is written to."""
    group, _, version = obj["apiVersion"].rpartition("/")
    return GroupVersionResource(group, version, obj["kind"].lower() + "s")  # all of these kinds are regular nouns


def told(obj: Obj) -> str:
    """An object's kind and name, as kubectl writes them."""
    group = obj["apiVersion"].rpartition("/")[0]
    return f"{obj['kind'].lower()}{'.' + group if group else ''}/{obj['metadata']['name']}"


class Installation:
    """One app in one cluster.

    Args:
        options: checked, see ManifestOptions.checked.
        now: the clock.
        say: told what is done: a step's stable name, and a line.
        timeout: for each thing that is waited for.
    """

    def __init__(
        self,
        client: RestClient,
        app: App,
        options: ManifestOptions,
        *,
        now: Callable[[], datetime.datetime],
        say: Say,
        timeout: float = 120.0,
    ) -> None:
        self._client = client
        self._app = app
        self._options = options
        self._now = now
        self._say = say
        self._rollout = Rollout(client, app, options.namespace, say, timeout)

    # -- install ---------------------------------------------------------------------------------------------------------

    async def install(self, *, dry_run: bool = False) -> None:
        """Apply, wait, and try it. Raises ExtensionError; what was applied stays, so that a second run goes on from there."""
        try:
            await self._refuse_foreign()
            certificates = await self._certificates()
            manifests = Manifests(self._app, self._options, certificates)
            before = await self._without_foreign_namespace(manifests.before())
            if self._options.cert_manager:
                await self._need_cert_manager()
            if dry_run:
                for obj in [*before, *manifests.workload(), *manifests.registration()]:
                    self._say("apply", f"{told(obj)} would be applied")
                return
            await self._apply("permissions", before)
            await self._apply("workload", manifests.workload())
            await self._rollout.wait_deployment()
            await self._rollout.wait_endpoints()
            await self._apply("register", manifests.registration())
            await self._rollout.wait_available()
            await self._rollout.wait_discovery()
            await self._rollout.try_out()
        except (StatusError, ClientError, TimeoutError) as failure:
            raise explained(failure) from failure

    async def _apply(self, step: str, objects: list[Obj]) -> None:
        for obj in objects:
            try:
                await self._client.apply(resource_of(obj), obj, field_manager=MANAGER, force=True)
            except NotFoundError as failure:
                raise ExtensionError(f"{told(obj)}: {failure.message}", reason="ApplyFailed") from failure
        kinds = ", ".join(dict.fromkeys(obj["kind"] for obj in objects))
        self._say(step, f"Applied {len(objects)} objects: {kinds}")

    async def _refuse_foreign(self) -> None:
        for gv in self._app.group_versions:
            try:
                found = await self._client.get(API_SERVICES, f"{gv.version}.{gv.group}")
            except NotFoundError:
                continue
            service = nested(found, "spec", "service")
            if service is None:
                raise ExtensionError(
                    f"{gv.group}/{gv.version} is served by a CustomResourceDefinition of this cluster",
                    reason="AlreadyServed",
                    hint="delete the definition (and with it its objects), or take another group",
                )
            if (service["namespace"], service["name"]) != (self._options.namespace, self._app.name):
                raise ExtensionError(
                    f"{gv.group}/{gv.version} is registered for Service {service['namespace']}/{service['name']}",
                    reason="AlreadyServed",
                    hint="stop `bowsprit extension run --dev` or uninstall that server first",
                )

    async def _without_foreign_namespace(self, objects: list[Obj]) -> list[Obj]:
        """A namespace that somebody else made is used, not changed, so that `uninstall` will leave it."""
        try:
            found = await self._client.get(NAMESPACES, self._options.namespace)
        except NotFoundError:
            return objects
        if nested(found, "metadata", "deletionTimestamp"):
            raise ExtensionError(
                f"namespace {self._options.namespace} is being deleted",
                reason="NamespaceTerminating",
                hint=f"wait: kubectl wait --for=delete namespace/{self._options.namespace}",
            )
        if labels(found).get(LABEL) == self._app.name:
            return objects
        return [obj for obj in objects if obj["kind"] != "Namespace"]

    async def _need_cert_manager(self) -> None:
        answer = await self._client.raw("GET", "/apis/cert-manager.io/v1")
        if answer.status != 200:
            raise ExtensionError(
                "cert-manager is not installed in this cluster",
                reason="NoCertManager",
                hint="install cert-manager, or leave out --cert-manager: bowsprit then makes the certificates",
            )

    # -- certificates ----------------------------------------------------------------------------------------------------

    async def _certificates(self) -> Certificates | None:
        """Those in the cluster when they are of use, else new ones."""
        if self._options.cert_manager:
            return None
        service, namespace, now = self._app.name, self._options.namespace, self._now()
        try:
            found = await self.stored()
        except PKIError as failure:
            self._say("certificates", f"The certificates in the cluster are of no use: {failure.message}")
            found = None
        if found is None:
            self._say("certificates", f"Made an authority and a certificate for {serving_names(service, namespace)[0]}")
            return Certificates.make(service, namespace, now=now)
        problem = found.problem(serving_names(service, namespace), now)
        if not problem:
            self._say("certificates", "The certificates in the cluster are valid and stay")
            return found
        try:
            renewed = found.renew(service, namespace, now)
            if not renewed.problem(serving_names(service, namespace), now):
                self._say("certificates", f"Renewed the serving certificate: {problem}")
                return renewed
        except PKIError:
            pass
        self._say("certificates", f"Replaced authority and certificate: {problem}")
        return Certificates.make(service, namespace, now=now).with_bundle(found.bundle, now=now)

    async def stored(self) -> Certificates | None:
        """The certificates in the cluster's Secrets. Raises PKIError when they are malformed."""
        manifests = Manifests(self._app, self._options, None)
        serving = await self._secret(manifests.serving_secret)
        if serving is None:
            return None
        return Certificates.from_secrets(serving, await self._secret(manifests.authority_secret) or {})

    async def _secret(self, name: str) -> dict[str, bytes] | None:
        try:
            found = await self._client.get(SECRETS, name, namespace=self._options.namespace)
        except NotFoundError:
            return None
        return {key: b64decode(value) for key, value in (found.get("data") or {}).items()}

    async def rotate(self, *, authority: bool = False, drop_old: bool = False) -> None:
        """Replaces the serving certificate; with `authority` its authority too, the old one staying trusted meanwhile.

        Trust comes first: the APIServices trust both authorities before any server serves the new certificate, so no request
        fails, however long the pods take to notice. `drop_old` (later) ends the trust in all but the present authority.
        """
        try:
            await self._rotate(authority, drop_old)
        except (StatusError, ClientError, TimeoutError) as failure:
            raise explained(failure) from failure

    async def _rotate(self, authority: bool, drop_old: bool) -> None:
        service, namespace, now = self._app.name, self._options.namespace, self._now()
        try:
            found = await self.stored()
            if found is None:
                raise ExtensionError(
                    f"{service} is not installed in namespace {namespace}",
                    reason="NotInstalled",
                    hint="give its --namespace, or install it first",
                )
            if drop_old:
                rotated = found.with_bundle(now=now)
            elif authority:
                # The one before last goes: nothing serves a certificate of it any more.
                rotated = Certificates.make(service, namespace, now=now).with_bundle(found.ca_pem, now=now)
            else:
                rotated = found.renew(service, namespace, now)
        except PKIError as failure:
            raise ExtensionError(failure.message, reason="InvalidCertificate", hint=failure.hint) from failure
        if drop_old and (problem := rotated.problem(serving_names(service, namespace), now)):
            raise ExtensionError(f"the serving certificate is not of the present authority: {problem}")
        manifests = Manifests(self._app, self._options, rotated)
        await self._trust(manifests)
        await self._apply("certificates", manifests.secrets())
        await self._rollout.wait_available()
        if not drop_old:
            self._say(
                "certificates", "The servers take up the new certificate without a restart, within a minute or so"
            )
        if authority:
            self._say("certificates", "The old authority stays trusted; later: rotate-certs --drop-old")

    async def _trust(self, manifests: Manifests) -> None:
        for item in manifests.registration():
            name = item["metadata"]["name"]
            found = await self._client.get(API_SERVICES, name)
            if "cert-manager.io/inject-ca-from" in (nested(found, "metadata", "annotations") or {}):
                raise ExtensionError(
                    f"the certificates of {name} are cert-manager's", reason="CertManager", hint="it renews them itself"
                )
            patch = {"spec": {"caBundle": item["spec"]["caBundle"]}}
            await self._client.patch(API_SERVICES, name, patch, patch_type=PatchType.MERGE, field_manager=MANAGER)
        self._say("trust", "The API server trusts the authorities of the old and the new certificate")

    # -- uninstall -------------------------------------------------------------------------------------------------------

    async def uninstall(self, *, keep_data: bool = False, dry_run: bool = False) -> None:
        """Removes what `install` made, APIServices first. What is not there, or not ours, is passed over."""
        try:
            await self._uninstall(keep_data, dry_run)
        except (StatusError, ClientError, TimeoutError) as failure:
            raise explained(failure) from failure

    async def _uninstall(self, keep_data: bool, dry_run: bool) -> None:
        every = Manifests(self._app, self._options, None)
        rest = [*every.before(), *every.workload()]
        if not self._options.cert_manager:
            for name in (every.authority_secret, every.serving_secret):
                meta = {"name": name, "namespace": self._options.namespace}
                rest.append({"apiVersion": "v1", "kind": "Secret", "metadata": meta})
        removed = 0
        for obj in [*every.registration(), *reversed(rest)]:
            kept = obj["kind"] == "Namespace" or (keep_data and obj["kind"] == "PersistentVolumeClaim")
            if not kept and await self._remove(obj, dry_run):
                removed += 1
        for obj in rest:
            if obj["kind"] == "Namespace" and not keep_data:
                removed += await self._remove_namespace(obj, dry_run)
        if not removed:
            self._say("uninstall", f"{self._app.name} is not installed in namespace {self._options.namespace}")

    async def _remove(self, obj: Obj, dry_run: bool) -> bool:
        gvr, meta = resource_of(obj), obj["metadata"]
        try:
            found = await self._client.get(gvr, meta["name"], namespace=meta.get("namespace"))
        except NotFoundError:
            return False
        if labels(found).get(LABEL) != self._app.name:
            self._say("uninstall", f"{told(obj)} stays: install did not make it")
            return False
        service = nested(found, "spec", "service", default={})
        if obj["kind"] == "APIService" and service.get("namespace") != self._options.namespace:
            self._say("uninstall", f"{told(obj)} stays: it belongs to namespace {service.get('namespace')}")
            return False
        if not dry_run:
            await self._client.delete(
                gvr,
                meta["name"],
                namespace=meta.get("namespace"),
                uid=found["metadata"]["uid"],
                propagation_policy="Background" if gvr == DEPLOYMENTS else None,
            )
        self._say("uninstall", f"{told(obj)} {'would be ' if dry_run else ''}deleted")
        return True

    async def _remove_namespace(self, obj: Obj, dry_run: bool) -> bool:
        """Only when nothing of others is in it: what is in a namespace goes with it."""
        others = await self._others()
        if others:
            self._say("uninstall", f"{told(obj)} stays: it holds {others[0]}, which install did not make")
            return False
        return await self._remove(obj, dry_run)

    async def _others(self) -> list[str]:
        found = []
        for resource in _OTHERS:
            group = "apps" if resource in _OTHERS[:3] else ""
            gvr = GroupVersionResource(group, "v1", resource)
            listed = await self._client.list(gvr, namespace=self._options.namespace)
            for item in listed["items"]:
                if not _comes_with_a_namespace(item) and labels(item).get(LABEL) != self._app.name:
                    found.append(f"{resource}/{item['metadata']['name']}")
        return found


def _comes_with_a_namespace(item: Obj) -> bool:
    """Whether controllers made it: trust bundles and account tokens that every namespace gets, parts of other objects."""
    meta = item["metadata"]
    noted = meta.get("annotations") or {}
    return (
        meta["name"] in _TRUST_BUNDLES
        or "kubernetes.io/service-account.name" in noted
        or bool(meta.get("ownerReferences"))
    )


def explained(failure: Exception) -> ExtensionError:
    """A refusal of the cluster as an author's error."""
    if isinstance(failure, ExtensionError):
        return failure
    if isinstance(failure, ForbiddenError):
        match = re.match(r'.*User "([^"]+)"', failure.message)
        who = match[1] if match else "this user"
        return ExtensionError(
            failure.message,
            reason="InstallForbidden",
            hint=f"installing needs the rights of cluster-admin, which {who} does not have",
        )
    if isinstance(failure, TimeoutError):
        return ExtensionError("the API server did not answer in time", reason="Timeout")
    reason = failure.reason if isinstance(failure, StatusError) else "ClusterUnreachable"
    return ExtensionError(str(failure), reason=reason or "Failed")
