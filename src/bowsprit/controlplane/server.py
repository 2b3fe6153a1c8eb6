"""kube-apiserver as one object: store, built-in kinds, identity, admission, and what is done after the start.

Everything here is put together, nothing is decided: see the modules named in the imports. Upstream: cmd/kube-apiserver/app.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import logging
import random
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from bowsprit.aggregator.controller import Aggregator
from bowsprit.aggregator.trust import ClientCertificate
from bowsprit.apiserver.admission.chain import Plugin
from bowsprit.apiserver.admission.hookclient import HookClient
from bowsprit.apiserver.admission.mutation_policy import MutatingAdmissionPolicy
from bowsprit.apiserver.admission.policy import ValidatingAdmissionPolicy
from bowsprit.apiserver.admission.webhooks import MutatingAdmissionWebhook, ValidatingAdmissionWebhook
from bowsprit.apiserver.answer import Answer
from bowsprit.apiserver.authentication.serviceaccount import TokenIssuer
from bowsprit.apiserver.collection import World
from bowsprit.apiserver.localclient import LocalClient
from bowsprit.apiserver.lookup import Lister, Listers
from bowsprit.apiserver.resource import Subresource
from bowsprit.apiserver.server import Server, ServerOptions
from bowsprit.controlplane.admission.plugins import Surroundings, build_chain
from bowsprit.controlplane.apiextensions.controller import DefinitionController
from bowsprit.controlplane.apiregistration.authenticationconfig import AuthenticationConfig
from bowsprit.controlplane.apiregistration.upkeep import APIServiceUpkeep
from bowsprit.controlplane.authentication.reviews import IdentityReviews
from bowsprit.controlplane.authentication.tokens import (
    CONFIGURATION_PATH,
    KEYS_PATH,
    discovery_document,
    key_set,
    token_subresource,
)
from bowsprit.controlplane.authorization.reviews import AccessReviews
from bowsprit.controlplane.bootstrap import Bootstrap, BootstrapOptions
from bowsprit.controlplane.core.binding import PODS
from bowsprit.controlplane.core.nodeproxy import NodeProxy
from bowsprit.controlplane.core.serviceallocation import AllocatingServiceStrategy, ServiceAllocation
from bowsprit.controlplane.endpoints import COMPONENT_STATUSES, AddressRecords, PodEndpoints, component_statuses
from bowsprit.controlplane.hooks import PostStartHooks
from bowsprit.controlplane.identity import Identity, build_identity
from bowsprit.controlplane.kinds import built_in_resources
from bowsprit.controlplane.openapi import OpenAPIPublication
from bowsprit.controlplane.options import APIServerOptions
from bowsprit.controlplane.serviceresolver import ServiceResolver
from bowsprit.controlplane.serving import kubelet_context, service_address, serving_files, token_settings
from bowsprit.controlplane.version import VERSION
from bowsprit.machinery.names import GroupResource, GroupVersionKind
from bowsprit.machinery.objects import Obj, labels
from bowsprit.machinery.time import format_time
from bowsprit.net.dial import Dialer, DirectDialer
from bowsprit.pki.files import read_file
from bowsprit.pki.serving import ServingContext
from bowsprit.store.protocol import Store
from bowsprit.store.spec import open_store

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest

    from bowsprit.apiserver.request import RequestContext

logger = logging.getLogger(__name__)

_NAMESPACES_EVERY = 60.0
_LEASE_EVERY = 10.0
_QUOTAS = GroupResource("", "resourcequotas")
_NAMESPACES = GroupResource("", "namespaces")
_ACCOUNTS = GroupResource("", "serviceaccounts")
_SERVICES = GroupResource("", "services")
_FLOW_SCHEMAS = GroupResource("flowcontrol.apiserver.k8s.io", "flowschemas")
_PRIORITY_LEVELS = GroupResource("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations")


class APIServer:
    """A control plane's API server.

    Args:
        options: the flags; call `options.check()` first.
        store: where objects live, instead of what `options.store` names; not closed at the end.
        world: time and chance.
        cluster_dialer: the way to the cluster's network, instead of what the egress selection says.
    """

    def __init__(
        self,
        options: APIServerOptions,
        *,
        store: Store | None = None,
        world: World | None = None,
        cluster_dialer: Dialer | None = None,
    ) -> None:
        self.options = options
        self._cluster_dialer = cluster_dialer
        self._world = world or World()
        self._given_store = store
        self._store: Store | None = store
        self._server: Server | None = None
        self._address = ("", 0)
        self._duties: list[asyncio.Task[None]] = []
        self._serving: ServingContext | None = None
        self._hooks: HookClient | None = None
        self._upkeep: APIServiceUpkeep | None = None
        self._trust: AuthenticationConfig | None = None
        self._aggregator: Aggregator | None = None
        self._definitions: DefinitionController | None = None

    # -- what others need to know --------------------------------------------------------------------------------------

    @property
    def server(self) -> Server:
        """The generic server inside; only after `start`."""
        if self._server is None:
            raise RuntimeError("the server has not been started")
        return self._server

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._address[1]

    @property
    def url(self) -> str:
        """The address for clients on this machine."""
        address = ipaddress.ip_address(self.options.bind_address)
        host = str(address)
        if address.is_unspecified:
            host = "::1" if address.version == 6 else "127.0.0.1"
        return f"https://[{host}]:{self.port}" if ":" in host else f"https://{host}:{self.port}"

    @property
    def serving_ca(self) -> bytes:
        """PEM that clients may trust: the serving certificate's chain, which holds the authority of a self-made one."""
        return read_file(serving_files(self.options, self._now()).cert)

    def _now(self) -> datetime.datetime:
        return self._world.now()

    # -- life ----------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the store, serve, and make the bootstrap objects; returns when /readyz is good.

        Raises:
            StoreError, PKIError, OSError: the store, a certificate or the address cannot be used.
            ValueError: flags that cannot be used.
        """
        options = self.options
        options.check()
        files = serving_files(options, self._now())
        settings = token_settings(options)

        def listers(resource: GroupResource) -> Lister:
            return self.server.registry.lister(resource)

        identity = build_identity(options, settings, listers, self._world.monotonic)
        if self._store is None:
            self._store = await open_store(options.store, options.folder / "state.db")
        server = self._server = Server(
            self._store,
            authenticator=identity.authenticator,
            authorizer=identity.authorizer,
            impersonator=identity.impersonator,
            options=self._server_options(),
            world=self._world,
        )
        client = server.registry.client()
        resolver = ServiceResolver(
            listers,
            endpoints=options.enable_aggregator_routing,
            choose=random.randrange,
            own=lambda: (options.advertised, self.port),
        )
        to_cluster = self._cluster_dialer or _egress(options, "cluster")
        hooks = self._hooks = HookClient(resolver.resolve, to_cluster, _egress(options, "controlplane"))
        server.admission = build_chain(
            Surroundings(
                listers,
                identity.authorizer,
                lambda: "".join(self._world.choose("bcdfghjklmnpqrstvwxz2456789", 5)),
                _quota_writer(client),
                _namespace_maker(client),
                self._calling_plugins(listers, hooks),
            ),
            options.enable_admission_plugins,
            options.disable_admission_plugins,
        )
        server.admission.observer = server.metrics.admitted
        proxy = NodeProxy(listers, to_cluster or DirectDialer(), kubelet_context(options))
        await self._add_kinds(server, identity, listers, client, proxy)
        self._serving = ServingContext(files.cert, files.key, configure=_ask_for_certificates)
        self._address = await server.start(options.bind_address, options.secure_port, self._serving.context)
        server.discovery.server_address = f"{options.external_hostname or options.advertised}:{self.port}"
        self._mount_token_documents(server, identity)
        bootstrap = Bootstrap(client, listers, self._bootstrap_options(identity))
        self._upkeep = APIServiceUpkeep(server, client, listers)
        self._aggregator = Aggregator(
            server,
            client,
            listers,
            resolver.resolve,
            to_cluster or DirectDialer(),
            ClientCertificate(*options.proxy_client_pair) if options.proxy_client_pair else None,
            self._now,
        )
        self._definitions = DefinitionController(server.registry, hooks)
        server.metrics.extra.append(self._definitions.metrics.text)
        OpenAPIPublication(server.registry, server.openapi).start()
        self._trust = AuthenticationConfig(
            client, server.registry.lister, lambda: _published_trust(identity), identity.front_proxy, self._now
        )
        steps = self._steps(bootstrap, self._upkeep, self._definitions, self._trust)
        steps["apiservice-status-remote-available-controller"] = self._aggregator.start
        await PostStartHooks(steps, server.health).run()
        self._watch_over(bootstrap)

    async def stop(self) -> None:
        """Drain and end everything, within the server's limits; may be called at any time after `start` has begun."""
        for duty in self._duties:
            duty.cancel()
        await asyncio.gather(*self._duties, return_exceptions=True)
        self._duties.clear()
        if self._trust is not None:
            await self._trust.stop()
        if self._upkeep is not None:
            await self._upkeep.stop()
        if self._aggregator is not None:
            await self._aggregator.stop()
        if self._definitions is not None:
            await self._definitions.stop()
        if self._server is not None:
            await self._server.stop()
        if self._hooks is not None:
            await self._hooks.close()
        if self._store is not None and self._given_store is None:
            await self._store.close()
            self._store = None

    # -- putting together ----------------------------------------------------------------------------------------------

    def _server_options(self) -> ServerOptions:
        options = self.options
        return ServerOptions(
            max_requests_in_flight=options.max_requests_inflight,
            max_mutating_requests_in_flight=options.max_mutating_requests_inflight,
            request_timeout=options.request_timeout,
            shutdown_delay=options.shutdown_delay_duration,
            version=VERSION,
            flags=options.shown(),
        )

    async def _add_kinds(
        self, server: Server, identity: Identity, listers: Listers, client: LocalClient, proxy: NodeProxy
    ) -> None:
        options = self.options
        pods = PodEndpoints(server.registry, listers, client)
        every = "AlwaysAllow" in options.authorization_mode
        virtual = [
            *AccessReviews(identity.authorizer, identity.resolver, allow_all=every).resources(),
            *IdentityReviews(identity.tokens, options.audiences).resources(),
            pods.bindings(),
        ]
        issuer = TokenIssuer(identity.token_settings, listers, lambda: self._now().timestamp(), self._world.uid)
        further: dict[GroupResource, dict[str, Subresource]] = {
            resource: dict(found) for resource, found in proxy.subresources().items()
        }
        further.setdefault(_ACCOUNTS, {})["token"] = token_subresource(issuer)
        further.setdefault(PODS, {}).update(pods.subresources())
        allocation = ServiceAllocation(self._service_cidrs(), AddressRecords(server.registry.client).write)
        stored = built_in_resources(
            lambda: identity.escalation,
            further,
            AllocatingServiceStrategy(lambda: allocation),
            frozenset(resource.gr for resource in virtual),
            lambda namespace: labels(listers(_NAMESPACES).get("", namespace) or {}),
        )
        for resource in [*stored, *virtual]:
            if resource.gr == COMPONENT_STATUSES:
                resource.virtual = component_statuses(lambda: server.store.get("/registry/health"))
                for version in resource.versions:
                    version.deprecation_warning = "v1 ComponentStatus is deprecated in v1.19+"
            await server.registry.add(resource)
        allocation.load(listers(_SERVICES).list())

    def _service_cidrs(self) -> list[str]:
        return [text.strip() for text in self.options.service_cluster_ip_range.split(",")]

    def _calling_plugins(self, listers: Listers, hooks: HookClient) -> dict[str, Plugin]:
        return {
            "MutatingAdmissionWebhook": MutatingAdmissionWebhook(listers, hooks, self._world.uid),
            "ValidatingAdmissionWebhook": ValidatingAdmissionWebhook(listers, hooks, self._world.uid),
            "MutatingAdmissionPolicy": MutatingAdmissionPolicy(listers, self._find_kind),
            "ValidatingAdmissionPolicy": ValidatingAdmissionPolicy(listers, self._find_kind),
        }

    def _find_kind(self, gvk: GroupVersionKind) -> tuple[GroupResource, bool] | None:
        for endpoint in self.server.registry.endpoints(gvk.group, gvk.version):
            if endpoint.version.gvk == gvk and endpoint.resource.virtual is None:
                return endpoint.resource.gr, endpoint.resource.namespaced
        return None

    def _bootstrap_options(self, identity: Identity) -> BootstrapOptions:
        options = self.options
        return BootstrapOptions(
            advertise_address=options.advertised,
            port=self.port,
            service_cidrs=self._service_cidrs(),
            service_ip=service_address(options),
            hostname=socket.gethostname(),
            rbac=identity.resolver is not None,
        )

    def _steps(
        self,
        bootstrap: Bootstrap,
        upkeep: APIServiceUpkeep,
        definitions: DefinitionController,
        trust: AuthenticationConfig,
    ) -> dict[str, Callable[[], Awaitable[None]]]:
        def stamp() -> str:
            return format_time(self._now())

        async def register() -> None:
            await definitions.synced.wait()  # else the APIServices of custom resources would go, and come again
            await upkeep.start()

        return {
            "start-system-namespaces-controller": bootstrap.namespaces,
            "start-cluster-authentication-info-controller": trust.start,
            "start-kube-apiserver-identity-lease-controller": lambda: self._renew_lease(bootstrap),
            "start-legacy-token-tracking-controller": lambda: bootstrap.token_tracking(stamp()[:10]),
            "start-apiextensions-controllers": definitions.start,
            "rbac/bootstrap-roles": bootstrap.rbac,
            "scheduling/bootstrap-system-priority-classes": bootstrap.plain,
            "priority-and-fairness-config-producer": lambda: bootstrap.flow_schema_status(stamp()),
            "bootstrap-controller": bootstrap.kubernetes_service,
            "kube-apiserver-autoregistration": register,
            "start-kubernetes-service-cidr-controller": lambda: bootstrap.service_cidr(stamp()),
        }

    async def _renew_lease(self, bootstrap: Bootstrap) -> None:
        await bootstrap.identity_lease(f"{socket.gethostname()}_{self._world.uid()}", self._now())

    def _mount_token_documents(self, server: Server, identity: Identity) -> None:
        options, settings = self.options, identity.token_settings
        host = options.external_hostname or options.advertised
        keys_uri = options.service_account_jwks_uri or f"https://{host}:{self.port}{KEYS_PATH}"
        caching = (("Cache-Control", "public, max-age=3600"),)

        async def configuration(_: RequestContext, __: BaseRequest) -> Answer:
            return Answer(200, discovery_document(settings, keys_uri), "application/json", caching)

        async def keys(_: RequestContext, __: BaseRequest) -> Answer:
            return Answer(200, key_set(settings), "application/jwk-set+json", caching)

        server.mount(CONFIGURATION_PATH, configuration)
        server.mount(KEYS_PATH, keys)

    # -- duties that go on ---------------------------------------------------------------------------------------------

    def _watch_over(self, bootstrap: Bootstrap) -> None:
        self._duties = [
            asyncio.create_task(_every(_NAMESPACES_EVERY, bootstrap.namespaces), name="system-namespaces"),
            asyncio.create_task(_every(_LEASE_EVERY, lambda: self._renew_lease(bootstrap)), name="identity-lease"),
            asyncio.create_task(self._judge_flow_schemas(bootstrap), name="flow-schema-status"),
        ]

    async def _judge_flow_schemas(self, bootstrap: Bootstrap) -> None:
        """Each FlowSchema says whether its priority level exists, whenever one of the two changes."""
        changed = asyncio.Event()
        for resource in (_FLOW_SCHEMAS, _PRIORITY_LEVELS):
            self.server.registry.lister(resource).subscribe(lambda *_: changed.set())
        changed.set()  # what was made at start may have arrived before the subscription
        while True:
            await changed.wait()
            changed.clear()
            try:
                await bootstrap.flow_schema_status(format_time(self._now()))
            except Exception:
                logger.exception("the status of the FlowSchemas was not written; the next change tries again")


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except Exception:
            logger.exception("a periodic duty failed; it is tried again in %d s", seconds)


def _published_trust(identity: Identity) -> dict[str, str]:
    """The bundles that extension servers are told of, as they are now."""
    named = (("client-ca-file", identity.client_trust), ("requestheader-client-ca-file", identity.front_proxy_trust))
    return {key: trust.pem.decode() for key, trust in named if trust is not None}


def _egress(options: APIServerOptions, name: str) -> Dialer | None:
    """How traffic of a kind leaves (``cluster``, ``controlplane``), None for directly. Raises EgressConfigError."""
    if options.egress_selector_config_file is None:
        return None
    from bowsprit.net.egress.selector import EgressSelector

    return EgressSelector.from_file(options.egress_selector_config_file).dialer(name)


def _ask_for_certificates(context: ssl.SSLContext) -> None:
    """Every context that is made anew asks for client certificates (apiserver.tls)."""
    from bowsprit.apiserver.tls import ask_for_client_certificates

    context.set_alpn_protocols(["http/1.1"])
    ask_for_client_certificates(context)


def _quota_writer(client: LocalClient) -> Callable[[Obj], Awaitable[None]]:
    async def write(quota: Obj) -> None:
        await client.update(_QUOTAS, quota, subresource="status")

    return write


def _namespace_maker(client: LocalClient) -> Callable[[str], Awaitable[None]]:
    async def make(name: str) -> None:
        await client.create(_NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    return make
