"""What the checks look at: one APIService with its Service, endpoints and pods, read once; and the server behind it."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from bowsprit.client.config import RestConfig
from bowsprit.client.errors import ClientError
from bowsprit.client.resources import CONFIG_MAPS, ENDPOINT_SLICES, PODS, SERVICES
from bowsprit.client.rest import RestClient
from bowsprit.client.transport import RawResponse
from bowsprit.extension.apiservices import API_SERVICES, availability
from bowsprit.extension.trust import NAME as CONFIG_NAME
from bowsprit.extension.trust import NAMESPACE as CONFIG_NAMESPACE
from bowsprit.machinery.codec import DecodeError, decode_json
from bowsprit.machinery.errors import NotFoundError
from bowsprit.machinery.objects import Obj, name, nested
from bowsprit.pki.trusting import trusting

DIAL_SECONDS = 2.0
_MOST_ADDRESSES = 4
_MOST_BODY = 4 * 1024 * 1024


@dataclass(slots=True, kw_only=True)
class Subject:
    """One APIService and all that belongs to it.

    Args:
        client: of the core API server.
        proxy_certificate: PEM of the API server's front-proxy client certificate, where it is at hand.
    """

    client: RestClient
    api_service: Obj
    now: Callable[[], datetime.datetime]
    service: Obj | None = None
    slices: list[Obj] = field(default_factory=list)
    pods: list[Obj] = field(default_factory=list)
    config: Obj | None = None  # the authentication ConfigMap
    resources: list[Obj] = field(default_factory=list)  # of the APIResourceList
    discovery: RawResponse | None = None
    discovery_failure: str = ""
    proxy_certificate: bytes = b""

    @classmethod
    async def read(
        cls,
        client: RestClient,
        api_service: Obj,
        now: Callable[[], datetime.datetime],
        proxy_certificate: bytes = b"",
    ) -> Subject:
        """Reads everything. Raises StatusError and ClientError for what the user may not see or reach."""
        made = cls(client=client, api_service=api_service, now=now, proxy_certificate=proxy_certificate)
        namespace, service = made.service_key
        try:
            made.service = await client.get(SERVICES, service, namespace=namespace)
        except NotFoundError:
            made.service = None
        selector = f"kubernetes.io/service-name={service}"
        made.slices = (await client.list(ENDPOINT_SLICES, namespace=namespace, label_selector=selector))["items"]
        wanted = nested(made.service, "spec", "selector") or {}
        if wanted:
            text = ",".join(f"{key}={value}" for key, value in wanted.items())
            made.pods = (await client.list(PODS, namespace=namespace, label_selector=text))["items"]
        try:
            made.config = await client.get(CONFIG_MAPS, CONFIG_NAME, namespace=CONFIG_NAMESPACE)
        except NotFoundError:
            made.config = None
        await made._discover()
        return made

    async def _discover(self) -> None:
        try:
            self.discovery = await self.client.raw("GET", f"/apis/{self.group}/{self.version}", timeout=10.0)
            listed = decode_json(self.discovery.body) if self.discovery.status == 200 else {}
        except (ClientError, TimeoutError) as failure:
            self.discovery_failure = str(failure) or "no answer in 10 s"
        except DecodeError as failure:
            self.discovery_failure = f"the answer is not JSON: {failure}"
        else:
            self.resources = [item for item in listed.get("resources") or () if "/" not in item["name"]]

    # -- parts of the APIService -----------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The APIService's name."""
        return name(self.api_service)

    @property
    def group(self) -> str:
        """spec.group."""
        return str(self.api_service["spec"]["group"])

    @property
    def version(self) -> str:
        """spec.version."""
        return str(self.api_service["spec"]["version"])

    @property
    def service_key(self) -> tuple[str, str]:
        """Namespace and name of the Service."""
        reference = self.api_service["spec"]["service"]
        return str(reference.get("namespace", "")), str(reference.get("name", ""))

    @property
    def service_port(self) -> int:
        """The port of the Service."""
        return int(self.api_service["spec"]["service"].get("port") or 443)

    @property
    def server_name(self) -> str:
        """What the API server checks in the serving certificate."""
        namespace, service = self.service_key
        return f"{service}.{namespace}.svc"

    @property
    def ca_bundle(self) -> bytes:
        """PEM of spec.caBundle."""
        return b64decode(self.api_service["spec"].get("caBundle") or "")

    @property
    def availability(self) -> tuple[str, str, str]:
        """Status, reason and message of the Available condition."""
        return availability(self.api_service)

    @property
    def is_available(self) -> bool:
        """Whether the API server sends requests to the server."""
        return self.availability[0] == "True"

    def port_name(self) -> str | None:
        """The name of the Service's port that the APIService means; None when there is no such port."""
        for port in nested(self.service, "spec", "ports", default=[]):
            if port.get("port") == self.service_port:
                return str(port.get("name") or "")
        return None

    def addresses(self) -> list[tuple[str, int]]:
        """Where the server's ready endpoints listen, as far as the cluster's objects tell."""
        if self.service is None:
            return []
        if nested(self.service, "spec", "type") == "ExternalName":
            return [(str(nested(self.service, "spec", "externalName")), self.service_port)]
        found = []
        for item in self.slices:
            for port in item.get("ports") or ():
                if (port.get("name") or "") == self.port_name() and port.get("port"):
                    for endpoint in item.get("endpoints") or ():
                        if nested(endpoint, "conditions", "ready", default=True):
                            found += [(address, int(port["port"])) for address in endpoint["addresses"]]
        return found[:_MOST_ADDRESSES]

    def accounts(self) -> list[tuple[str, str]]:
        """(namespace, name) of the ServiceAccounts of the pods."""
        pods = [pod for pod in self.pods if not pod["metadata"].get("deletionTimestamp")]
        found = [(pod["metadata"]["namespace"], pod["spec"].get("serviceAccountName") or "default") for pod in pods]
        return list(dict.fromkeys(found))

    # -- the server itself -----------------------------------------------------------------------------------------------

    async def served_certificate(self) -> tuple[bytes, str] | None:
        """The leaf certificate that an endpoint serves (PEM), and why a client that trusts caBundle refuses it ("" if not).

        None when no endpoint can be reached from here, as is usual outside the cluster's network.
        """
        for host, port in self.addresses():
            leaf = await _handshake(host, port, None, "")
            if isinstance(leaf, bytes):
                verdict = await _handshake(host, port, self.ca_bundle, self.server_name)
                return leaf, verdict if isinstance(verdict, str) else ""
        return None

    async def ask(self, path: str) -> tuple[int, str] | None:
        """Status and body of a GET to the server without anybody's credentials, directly or through the Service's proxy."""
        for host, port in self.addresses():
            where = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
            config = RestConfig(server=where, insecure_skip_tls_verify=True, max_response_bytes=_MOST_BODY)
            try:
                async with RestClient(replace(config, timeout=DIAL_SECONDS * 2)) as client:
                    answer = await client.raw("GET", path)
                    return answer.status, answer.body.decode("utf-8", "replace")
            except (ClientError, TimeoutError, OSError):
                continue
        return await self._ask_through_proxy(path)

    async def _ask_through_proxy(self, path: str) -> tuple[int, str] | None:
        namespace, service = self.service_key
        plain, _, query = path.partition("?")
        proxy = f"/api/v1/namespaces/{namespace}/services/https:{service}:{self.service_port}/proxy{plain}"
        try:
            params = {query.partition("=")[0]: query.partition("=")[2]} if query else None
            answer = await self.client.raw("GET", proxy, params=params, timeout=10.0)
        except (ClientError, TimeoutError):
            return None
        body = answer.body.decode("utf-8", "replace")
        # The proxy's own failures are Status objects; the server's health pages are text.
        return None if answer.status in (403, 404, 502, 503) and '"kind"' in body else (answer.status, body)


async def _handshake(host: str, port: int, roots: bytes | None, server_name: str) -> bytes | str | None:
    """The leaf (PEM); a text when the handshake is refused; None when nobody is reached. `roots` None verifies nothing."""
    try:
        context = trusting(roots or b"")
    except (ssl.SSLError, ValueError):
        return "spec.caBundle holds no usable PEM certificate"
    if roots is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=server_name or "unknown")
    except ssl.SSLCertVerificationError as failure:
        return str(failure.verify_message)
    except ssl.SSLError as failure:
        return f"TLS: {failure.reason or failure}"
    except (OSError, TimeoutError):
        return None
    leaf = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return ssl.DER_cert_to_PEM_cert(leaf).encode()


async def remote_api_services(client: RestClient, wanted: str = "") -> list[Obj]:
    """The APIServices that are served by a Service; of them those of a name or a group, if one is given."""
    listed = await client.list(API_SERVICES)
    remote = [item for item in listed["items"] if nested(item, "spec", "service")]
    return [item for item in remote if wanted in ("", name(item), item["spec"]["group"])]
