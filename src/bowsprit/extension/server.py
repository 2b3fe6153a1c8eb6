"""ExtensionServer: an App served by the generic library, with the core API server as the judge of its clients.

Everything here is put together, nothing is decided: see the modules named in the imports. Upstream: k8s.io/apiserver's
RecommendedOptions and genericapiserver.Config.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from bowsprit import __version__
from bowsprit.apiserver.access import AllowAlways, Authenticator, Authorizer, FixedUser, forbidden_error
from bowsprit.apiserver.admission.chain import AdmissionChain
from bowsprit.apiserver.admit import Admission
from bowsprit.apiserver.authentication.bearer import BearerAuthenticator
from bowsprit.apiserver.authorization.impersonation import HeaderImpersonator
from bowsprit.apiserver.collection import World
from bowsprit.apiserver.server import Server, ServerOptions
from bowsprit.apiserver.tls import ask_for_client_certificates
from bowsprit.apiserver.user import LOOPBACK_USER
from bowsprit.client.config import RestConfig, in_cluster_config
from bowsprit.client.errors import ConfigError
from bowsprit.client.kubeconfig import Kubeconfig
from bowsprit.client.rest import RestClient
from bowsprit.extension.app import App
from bowsprit.extension.apphooks import AppAdmission, AppMutation
from bowsprit.extension.backed import Backed, Mirror, first_revision
from bowsprit.extension.definition import resource_of
from bowsprit.extension.errors import ExtensionError
from bowsprit.extension.hooks import Hooks
from bowsprit.extension.migration import migrate
from bowsprit.extension.openapi import Publication
from bowsprit.extension.options import ExtensionOptions
from bowsprit.extension.reader import Reader
from bowsprit.extension.serving import ServingFiles, made_serving_files
from bowsprit.extension.storage import StoreSpec, memory
from bowsprit.machinery.names import GroupResource
from bowsprit.pki.errors import PKIError
from bowsprit.pki.files import read_file
from bowsprit.pki.serving import ServingContext
from bowsprit.store.memory import MemoryStore
from bowsprit.store.protocol import Store, StoreError
from bowsprit.store.spec import open_store

logger = logging.getLogger("bowsprit.extension")

QPS, BURST = 200.0, 400  # upstream's delegated clients
_BACKGROUND_PAUSE = (1.0, 60.0)


class _Delegate(Protocol):
    """Whoever asks the core server; `problem` says why that failed, "" if it did not."""

    problem: str


class ExtensionServer:
    """One app, served.

    Args:
        app: what is served.
        options: how.
        world: time and chance.
    """

    def __init__(self, app: App, options: ExtensionOptions | None = None, *, world: World | None = None) -> None:
        self.app = app
        self.options = options or ExtensionOptions()
        self._world = world or World()
        self._server: Server | None = None
        self._stores: dict[str, Store] = {}
        self._mirrors: list[Mirror] = []
        self._hooks: dict[GroupResource, Hooks] = {}
        self._delegates: dict[str, _Delegate] = {}
        self._readiness: dict[str, Callable[[], Awaitable[None]]] = {}
        self._core: RestClient | None = None
        self._files: ServingFiles | None = None
        self._serving: ServingContext | None = None
        self._ending: list[Callable[[], Awaitable[Any]]] = []
        self._address = ("", 0)
        self._backgrounds: list[asyncio.Task[None]] = []

    # -- what others need to know --------------------------------------------------------------------------------------

    @property
    def server(self) -> Server:
        """The generic server inside; only after `start`."""
        if self._server is None:
            raise RuntimeError("the server has not been started")
        return self._server

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens on."""
        return self._address

    @property
    def ca_bundle(self) -> bytes:
        """PEM that clients must trust: the authority of a made certificate, else the given one's chain."""
        assert self._files is not None
        return self._files.ca_pem

    # -- life ----------------------------------------------------------------------------------------------------------

    async def start(self) -> tuple[str, int]:
        """Serve; gives host and port.

        Raises:
            ExtensionError: the app, the options, the store or the core API server do not allow it.
            OSError: the address cannot be listened on.
        """
        try:
            return await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> tuple[str, int]:
        self.options.check()
        self.app.check()
        self._files = self._serving_files()
        store = await self._open(self.app.store)
        authenticator, authorizer = await self._judges()
        server = self._server = Server(
            store,
            authenticator=authenticator,
            authorizer=authorizer,
            impersonator=HeaderImpersonator(authorizer, forbidden_error),
            options=self._server_options(),
            world=self._world,
        )
        self.app.bind(self._core, Reader(self.app.declaration, server.registry))
        await self._add_kinds(server)
        self._add_checks(server)
        server.admission = await self._admission(server)
        Publication(server.registry, server.openapi).publish()
        for place, gv in enumerate(self.app.group_versions):
            server.discovery.set_version_priority(gv, 1000 - place)
        self._backgrounds = [
            asyncio.create_task(_keep_running(function), name=f"background {getattr(function, '__name__', '')}")
            for function in self.app.backgrounds
        ]
        try:
            self._serving = ServingContext(self._files.cert, self._files.key, configure=_ask_for_certificates)
        except PKIError as failure:
            raise ExtensionError(failure.message, reason="InvalidCertificate", hint=failure.hint) from failure
        self._address = await server.start(self.options.bind_address, self.options.secure_port, self._serving.context)
        logger.debug("serving %s on %s:%d", ", ".join(map(str, self.app.group_versions)), *self._address)
        return self._address

    async def stop(self) -> None:
        """Drain and end everything; may be called at any time."""
        if self._server is not None:
            await self._server.stop()
        for task in self._backgrounds:
            task.cancel()
        await asyncio.gather(*self._backgrounds, return_exceptions=True)
        self._backgrounds.clear()
        for mirror in self._mirrors:
            await mirror.stop()
        while self._ending:
            await self._ending.pop()()
        self.app.bind(None, None)
        if self._core is not None:
            await self._core.close()
            self._core = None
        for store in self._stores.values():
            await store.close()
        self._stores.clear()
        if self._files is not None:
            self._files.discard()

    # -- putting together ----------------------------------------------------------------------------------------------

    def _serving_files(self) -> ServingFiles:
        options = self.options
        if options.tls_cert_file is not None and options.tls_private_key_file is not None:
            try:
                return ServingFiles(
                    options.tls_cert_file, options.tls_private_key_file, read_file(options.tls_cert_file)
                )
            except PKIError as failure:
                raise ExtensionError(failure.message, reason="InvalidCertificate", hint=failure.hint) from failure
        service, namespace = options.service or self.app.name, options.namespace or self.app.name
        try:
            return made_serving_files(service, namespace, self._world.now(), options.cert_dir)
        except OSError as failure:
            raise ExtensionError(f"the certificate cannot be kept: {failure}", reason="InvalidCertificate") from failure

    def _server_options(self) -> ServerOptions:
        options = self.options
        return ServerOptions(
            max_requests_in_flight=options.max_requests_inflight,
            max_mutating_requests_in_flight=options.max_mutating_requests_inflight,
            request_timeout=options.request_timeout,
            shutdown_delay=options.shutdown_delay,
            shutdown_timeout=options.shutdown_timeout,
            version={
                "major": "1",
                "minor": "36",
                "gitVersion": f"v1.36.0+bowsprit-{__version__}",
                "platform": "python",
            },
        )

    async def _open(self, spec: StoreSpec) -> Store:
        store = self._stores.get(spec.text)
        if store is None and spec == memory():
            store = self._stores[spec.text] = MemoryStore(first_revision=first_revision(self._world.now()))
        if store is None:
            try:
                store = self._stores[spec.text] = await open_store(spec.text)
            except StoreError as failure:
                raise ExtensionError(str(failure), reason="StoreFailed", hint=f"the store is {spec.text}") from failure
        return store

    async def _judges(self) -> tuple[Authenticator, Authorizer]:
        """Who authenticates and authorizes."""
        options = self.options
        if options.standalone:
            return FixedUser(LOOPBACK_USER), AllowAlways()
        from bowsprit.extension.reviews import AccessReviewAuthorizer, TokenReviewAuthenticator
        from bowsprit.extension.trust import ConfigFollower, DelegatedAuthenticator

        core = self._core = RestClient(self._core_config())
        clock = self._world.monotonic
        tokens = TokenReviewAuthenticator(core, secrets.token_bytes(32), clock)
        authenticator = DelegatedAuthenticator(
            self._world.now,
            BearerAuthenticator(tokens),
            client_ca=_pem(options.client_ca_file),
            proxy_ca=_pem(options.requestheader_client_ca_file),
            allowed_names=options.requestheader_allowed_names,
        )
        if not options.authentication_skip_lookup:
            follower = ConfigFollower(core, authenticator)
            self._ending.append(follower.stop)
            await follower.start(tolerate=options.authentication_tolerate_lookup_failure)
        authorizer = AccessReviewAuthorizer(core, clock)
        if not options.authentication_skip_lookup:
            self._delegates["authentication-config"] = authenticator
            self._readiness["authentication-config-sync"] = authenticator.check_read
        self._delegates |= {"token-reviews": tokens, "access-reviews": authorizer}
        return authenticator, authorizer

    def _core_config(self) -> RestConfig:
        from dataclasses import replace

        options = self.options
        try:
            if options.core is not None:
                config = options.core
            elif options.kubeconfig is not None:
                config = Kubeconfig.load(options.kubeconfig).rest_config()
            else:
                config = in_cluster_config()
        except ConfigError as failure:
            raise ExtensionError(
                str(failure), reason="NoCore", hint=getattr(failure, "hint", "") or "give --kubeconfig"
            ) from failure
        return replace(config, qps=QPS, burst=BURST, max_in_flight=64)

    def _add_checks(self, server: Server) -> None:
        """What the core server refuses shows in /healthz, and does not make the server unready.

        An unready server gets no requests, so it could not find out that it may ask again; and upstream's is ready too.
        """
        for name, judge in self._delegates.items():

            async def check(judge: _Delegate = judge) -> None:
                if judge.problem:
                    raise RuntimeError(judge.problem)

            server.health.add(name, check, livez=False, readyz=False)
        for name, read in self._readiness.items():
            server.health.add(name, read, livez=False, healthz=False)

    async def _add_kinds(self, server: Server) -> None:
        long_running = server.in_flight.long_running_subresources
        for declaration in self.app.declarations:
            resource, hooks = resource_of(declaration)
            hooks.registry = server.registry
            self._hooks[resource.gr] = hooks
            long_running.update(declaration.connections)
            mirror: Mirror | None = None
            if not declaration.is_stored:
                storage: Any = declaration.storage
                storage = storage() if isinstance(storage, type) else storage
                if "watch" in declaration.verbs:
                    mirror = Mirror(hooks, storage, declaration.poll, self._world.now())
                    resource.store, resource.open = mirror.store, mirror.open
                else:
                    resource.open = Backed(hooks, storage).open
            elif isinstance(declaration.storage, StoreSpec):
                resource.store = await self._open(declaration.storage)
            collection = await server.registry.add(resource)
            if declaration.is_stored:
                await migrate(collection)
            if mirror is not None:
                self._mirrors.append(mirror)
                mirror.start(collection)
                server.health.add(f"storage-{resource.gr}", mirror.check, livez=False, readyz=False)
                server.health.add(f"storage-sync-{resource.gr}", mirror.check_synced, livez=False, healthz=False)

    async def _admission(self, server: Server) -> Admission:
        own = ([AppMutation(self._hooks, self._world.now)], [AppAdmission(self._hooks, self._world.now)])
        if self._core is None or not self.options.admission:
            if self._core is not None:
                logger.warning("the core's webhooks, policies and namespace lifecycle are off: so was asked")
                server.health.add("admission-off-all", _nothing, livez=False, healthz=False)
            return AdmissionChain([*own[0], *own[1]])
        from bowsprit.extension.coreadmission import CoreAdmission
        from bowsprit.extension.corelisters import CoreListers

        listers = CoreListers(self._core, server.registry)

        def show() -> None:
            for state in admission.states.values():
                server.health.remove(f"admission-off-{state.name}")
                if state.state == "off":
                    server.health.add(f"admission-off-{state.name}", _nothing, livez=False, healthz=False)

        admission = CoreAdmission(self._core, listers, own, self._world.uid, show)
        self._ending += [listers.stop, admission.stop]
        server.health.add("core-admission", admission.check, livez=False, healthz=False)
        await admission.start()
        self.core_admission = admission
        return admission


async def _keep_running(function: Callable[[], Awaitable[None]]) -> None:
    """Runs an author's background function, again when it fails, ever more slowly."""
    pause, longest = _BACKGROUND_PAUSE
    while True:
        try:
            await function()
        except Exception:
            logger.exception(
                "the background function %s failed; again in %g s", getattr(function, "__name__", "?"), pause
            )
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)
        else:
            return


async def _nothing() -> None:
    return None


def _pem(path: Any) -> bytes:
    if path is None:
        return b""
    try:
        return read_file(path)
    except PKIError as failure:
        raise ExtensionError(failure.message, reason="InvalidCertificate", hint=failure.hint) from failure


def _ask_for_certificates(context: ssl.SSLContext) -> None:
    context.set_alpn_protocols(["http/1.1"])
    ask_for_client_certificates(context)
