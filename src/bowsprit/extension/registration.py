"""Registering a server of this host in a cluster, for as long as it is developed: `bowsprit extension run --dev`.

A Service without selector, an EndpointSlice with this host's address, one APIService per group-version. EndpointSlices must not
name loopback addresses; where the API server runs on this very host and does not route to endpoints, a Service of type
ExternalName that names ``localhost`` is the way. What a crashed run left behind is taken over by the next one.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import secrets
from urllib.parse import urlsplit

from bowsprit.client.errors import ClientError
from bowsprit.client.resources import ENDPOINT_SLICES, NAMESPACES, SERVICES
from bowsprit.client.rest import RestClient
from bowsprit.extension.apiservices import API_SERVICES, api_services, availability, hint_for
from bowsprit.extension.app import App
from bowsprit.extension.certificates import Certificates
from bowsprit.extension.errors import ExtensionError
from bowsprit.machinery import objects
from bowsprit.machinery.errors import ForbiddenError, NotFoundError, StatusError
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.machinery.objects import Obj, labels, name, nested
from bowsprit.net import hostaddress

log = logging.getLogger("bowsprit.extension")

MANAGER = "bowsprit-extension-dev"
REGISTRATION = "bowsprit.dev/registration"  # label: the app
INSTANCE = "bowsprit.dev/instance"  # annotation: the run that it belongs to
_PORT = 443
_LOOK_EVERY = 0.1
_SWITCH_AFTER = 4.0
_NAMESPACE_WAIT = 60.0


def service_of(app: App) -> str:
    """The name of the Service of a registration."""
    return f"{app.name}-dev"


def make_certificates(app: App, *, namespace: str = "default") -> Certificates:
    """A throw-away authority, and the serving pair that the registered server must serve."""
    return Certificates.make(service_of(app), namespace)


def host_address(server: str) -> str:
    """This host's address on the way to the API server at a URL; not a loopback one. Raises ExtensionError."""
    if found := hostaddress.host_address(urlsplit(server).hostname or ""):
        return found
    raise ExtensionError(
        "this host has no network address but loopback ones, which endpoints must not have",
        reason="NoHostAddress",
        hint="connect a network, or add an address: ip address add 192.0.2.10/32 dev lo",
    )


def is_local(server: str) -> bool:
    """Whether the API server at a URL is on this host, as far as its name tells."""
    host = urlsplit(server).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Registration:
    """One run of a server, registered.

    Args:
        client: may write Services, EndpointSlices and APIServices.
        host: where the API server reaches the server; "" or a wildcard or loopback address: this host's own address.
        port: the server's.
        ca_bundle: PEM of the authority of the serving certificate, which is valid for `service_of(app)` in `namespace`.
        namespace: of the Service; made (and removed) when it does not exist.
    """

    def __init__(
        self,
        client: RestClient,
        app: App,
        host: str,
        port: int,
        ca_bundle: bytes,
        *,
        namespace: str = "default",
    ) -> None:
        self._client = client
        self._app = app
        self._host = host
        self._port = port
        self._ca_bundle = ca_bundle
        self._namespace = namespace
        self._service = service_of(app)
        self._instance = secrets.token_hex(8)
        self._by_name = False  # an ExternalName instead of endpoints
        self._own_namespace = False

    @property
    def address(self) -> str:
        """What the API server is told to dial. Raises ExtensionError."""
        if self._by_name:
            return "localhost"
        try:
            given = ipaddress.ip_address(self._host)
        except ValueError:
            given = None
        if given is not None and not (given.is_unspecified or given.is_loopback):
            return self._host
        return host_address(self._client.config.server)

    async def register(self, *, timeout: float = 20.0) -> None:
        """Registers, and waits until the API server has reached the server. Raises ExtensionError; then nothing is left."""
        try:
            await self._refuse_foreign()
            await self._ensure_namespace()
            try:
                await self._publish()
            except ExtensionError as failure:
                if failure.reason != "NoHostAddress" or not is_local(self._client.config.server):
                    raise
                self._by_name = True
                await self._publish()
            await self._remove_outdated()
            await self._wait(timeout)
        except (StatusError, ClientError, TimeoutError) as failure:
            await self._give_up()
            raise _refused(failure) from failure
        except BaseException:
            await self._give_up()
            raise

    async def unregister(self) -> None:
        """Removes what `register` made, APIServices first; what another run has taken over stays."""
        for item in await self._registered(API_SERVICES, None):
            await self._delete(API_SERVICES, item)
        for gvr in (ENDPOINT_SLICES, SERVICES):
            for item in await self._registered(gvr, self._namespace):
                await self._delete(gvr, item)
        if self._own_namespace:
            await self._quietly(self._client.delete(NAMESPACES, self._namespace))

    # -- objects ---------------------------------------------------------------------------------------------------------

    def _mark(self, obj: Obj) -> Obj:
        meta = obj["metadata"]
        meta["labels"] = {**labels(obj), REGISTRATION: self._app.name, "app.kubernetes.io/managed-by": MANAGER}
        meta["annotations"] = {INSTANCE: self._instance}
        return obj

    def _service_object(self) -> Obj:
        spec: Obj = {"type": "ExternalName", "externalName": "localhost"} if self._by_name else {"type": "ClusterIP"}
        spec["ports"] = [{"name": "https", "port": _PORT, "protocol": "TCP", "targetPort": self._port}]
        meta = {"name": self._service, "namespace": self._namespace}
        return self._mark({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})

    def _slice_object(self) -> Obj:
        address = self.address
        return self._mark(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": self._service,
                    "namespace": self._namespace,
                    "labels": {
                        "kubernetes.io/service-name": self._service,
                        "endpointslice.kubernetes.io/managed-by": MANAGER,
                    },
                },
                "addressType": "IPv6" if ":" in address else "IPv4",
                "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
                "ports": [{"name": "https", "port": self._port, "protocol": "TCP"}],
            }
        )

    async def _publish(self) -> None:
        slice_object = None if self._by_name else self._slice_object()
        await self._replace_service()
        if slice_object is not None:
            await self._replace_slice(slice_object)
        for item in api_services(
            self._app,
            service=self._service,
            namespace=self._namespace,
            port=self._port if self._by_name else _PORT,
            ca_bundle=self._ca_bundle,
        ):
            await self._client.apply(API_SERVICES, self._mark(item), field_manager=MANAGER, force=True)

    async def _replace_service(self) -> None:
        wanted = self._service_object()
        try:
            found = await self._client.get(SERVICES, self._service, namespace=self._namespace)
        except NotFoundError:
            found = None
        if found is not None:
            if REGISTRATION not in labels(found):
                raise ExtensionError(
                    f"there is a Service {self._namespace}/{self._service} that no registration made",
                    reason="ServiceExists",
                    hint="give the app another name=, or use another --namespace",
                )
            if nested(found, "spec", "type") != wanted["spec"]["type"]:
                await self._client.delete(SERVICES, self._service, namespace=self._namespace)
        await self._client.apply(SERVICES, wanted, field_manager=MANAGER, force=True)

    async def _replace_slice(self, wanted: Obj) -> None:
        # The address type cannot be changed, so a slice of the other family goes first.
        try:
            found = await self._client.get(ENDPOINT_SLICES, self._service, namespace=self._namespace)
            if found["addressType"] != wanted["addressType"]:
                await self._client.delete(ENDPOINT_SLICES, self._service, namespace=self._namespace)
        except NotFoundError:
            pass
        await self._client.apply(ENDPOINT_SLICES, wanted, field_manager=MANAGER, force=True)

    async def _ensure_namespace(self) -> None:
        async with asyncio.timeout(_NAMESPACE_WAIT):
            while True:
                try:
                    found = await self._client.get(NAMESPACES, self._namespace)
                except NotFoundError:
                    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self._namespace}}
                    await self._client.apply(NAMESPACES, self._mark(made), field_manager=MANAGER)
                    self._own_namespace = True
                    return
                except ForbiddenError:
                    return  # it may still be allowed to write into it
                if not found["metadata"].get("deletionTimestamp"):
                    self._own_namespace = labels(found).get(REGISTRATION) == self._app.name
                    return
                await asyncio.sleep(_LOOK_EVERY * 5)

    async def _refuse_foreign(self) -> None:
        for gv in self._app.group_versions:
            try:
                found = await self._client.get(API_SERVICES, f"{gv.version}.{gv.group}")
            except NotFoundError:
                continue
            if labels(found).get(REGISTRATION) == self._app.name:
                log.info("taking over the registration of %s", name(found))
                continue
            told = "is served by a CustomResourceDefinition" if not nested(found, "spec", "service") else "is installed"
            service = nested(found, "spec", "service", default={})
            where = f" (Service {service.get('namespace')}/{service.get('name')})" if service else ""
            raise ExtensionError(
                f"{gv.group}/{gv.version} {told} in this cluster already{where}",
                reason="AlreadyServed",
                hint="remove it first (bowsprit extension uninstall, or kubectl delete), or develop on another cluster",
            )

    async def _remove_outdated(self) -> None:
        """APIServices of versions that the app no longer has."""
        wanted = {f"{gv.version}.{gv.group}" for gv in self._app.group_versions}
        listed = await self._client.list(API_SERVICES, label_selector=f"{REGISTRATION}={self._app.name}")
        for item in listed["items"]:
            if name(item) not in wanted:
                await self._delete(API_SERVICES, item)

    async def _registered(self, gvr: GroupVersionResource, namespace: str | None) -> list[Obj]:
        try:
            found = await self._client.list(gvr, namespace=namespace, label_selector=f"{REGISTRATION}={self._app.name}")
        except (StatusError, ClientError, TimeoutError) as failure:
            log.warning("%s of the registration are left behind: %s", gvr.resource, failure)
            return []
        return [item for item in found["items"] if objects.annotations(item).get(INSTANCE) == self._instance]

    async def _delete(self, gvr: GroupVersionResource, item: Obj) -> None:
        meta = item["metadata"]
        await self._quietly(
            self._client.delete(gvr, meta["name"], namespace=meta.get("namespace"), uid=meta.get("uid"))
        )

    @staticmethod
    async def _quietly(call: object) -> None:
        try:
            await call  # type: ignore[misc]
        except NotFoundError:
            pass
        except (StatusError, ClientError, TimeoutError) as failure:
            log.warning("the registration could not be removed completely: %s", failure)

    async def _give_up(self) -> None:
        await self.unregister()

    # -- waiting ---------------------------------------------------------------------------------------------------------

    async def _wait(self, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        first: ExtensionError | None = None
        while True:
            missing = await self._unavailable()
            if missing is None:
                return
            gv, reason, message = missing
            passed = loop.time() - began
            by_name = not self._by_name and is_local(self._client.config.server) and reason == "FailedDiscoveryCheck"
            if by_name and passed > min(_SWITCH_AFTER, timeout / 2):
                log.info("the API server does not reach %s; trying localhost by name", self.address)
                first = self._unreachable(gv, reason, message)  # what counts if that is of no use either
                self._by_name = True
                await self._publish()
            if passed > timeout:
                raise first or self._unreachable(gv, reason, message)
            await asyncio.sleep(_LOOK_EVERY)

    async def _unavailable(self) -> tuple[str, str, str] | None:
        for gv in self._app.group_versions:
            found = await self._client.get(API_SERVICES, f"{gv.version}.{gv.group}")
            status, reason, message = availability(found)
            if status != "True":
                return gv.api_version, reason, message
        return None

    def _unreachable(self, gv: str, reason: str, message: str) -> ExtensionError:
        hint = hint_for(reason, message)
        if reason == "FailedDiscoveryCheck" and not is_local(self._client.config.server):
            hint = (
                f"the API server at {self._client.config.server} must be able to open connections to this host at "
                f"{self.address}:{self._port} (firewall, NAT, VPN); if it cannot, develop on `bowsprit up`"
            )
        return ExtensionError(f"{gv} does not become available: {message}", reason=reason, hint=hint)


def _refused(failure: Exception) -> ExtensionError:
    if isinstance(failure, ForbiddenError):
        return ExtensionError(
            f"this user may not register an API: {failure.message}",
            reason="RegistrationForbidden",
            hint="registering needs write access to apiservices, services and endpointslices, as cluster-admin has",
        )
    text = "the API server did not answer in time" if isinstance(failure, TimeoutError) else str(failure)
    return ExtensionError(f"the registration failed: {text}", reason="RegistrationFailed")
