"""``bowsprit controller-manager [run]``: the controllers as a process, with kube-controller-manager's flags."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click

from bowsprit.cli.errors import CommandError

Command = TypeVar("Command", bound=Callable[..., Any])


class Duration(click.ParamType[float]):
    """Go's duration syntax, as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        from bowsprit.machinery.time import parse_duration

        try:
            return parse_duration(str(value)) / 1e9
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


def switch(name: str, default: bool, text: str) -> Callable[[Command], Command]:
    """A flag as Go has them: ``--x``, ``--x=true``, ``--x=false``."""
    return click.option(
        name,
        type=bool,
        is_flag=False,
        flag_value="true",
        default=default,
        show_default=True,
        metavar="[BOOL]",
        help=text,
    )


@click.command("controller-manager")
@click.argument("action", required=False, type=click.Choice(["run"]), metavar="[run]")
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="Kubeconfig file; in a pod, its service account.")
@click.option("--master", default="", help="Address of the API server (overrides the kubeconfig's).")
@click.option("--controllers", default="*", metavar="LIST", help="'*', names to enable, '-name' to disable.")
@click.option(
    "--root-ca-file", type=click.Path(path_type=Path), help="CA bundle for kube-root-ca.crt in every namespace."
)
@switch("--use-service-account-credentials", False, "Each controller acts as its own ServiceAccount in kube-system.")
@click.option(
    "--service-account-private-key-file", type=click.Path(path_type=Path), help="Key that signs the tokens in secrets."
)
@click.option("--cluster-signing-cert-file", type=click.Path(path_type=Path), help="CA that signs certificates.")
@click.option("--cluster-signing-key-file", type=click.Path(path_type=Path), help="Its key.")
@switch("--leader-elect", True, "Elect a leader before acting.")
@click.option("--leader-elect-lease-duration", type=Duration(), default="15s", show_default=True)
@click.option("--leader-elect-renew-deadline", type=Duration(), default="10s", show_default=True)
@click.option("--leader-elect-retry-period", type=Duration(), default="2s", show_default=True)
@click.option("--leader-elect-resource-lock", type=click.Choice(["leases"]), default="leases", hidden=True)
@click.option("--leader-elect-resource-name", default="kube-controller-manager", show_default=True)
@click.option("--leader-elect-resource-namespace", default="kube-system", show_default=True)
@click.option("--bind-address", default="127.0.0.1", show_default=True, help="Address of the health endpoint.")
@click.option("--secure-port", type=int, default=10257, show_default=True, help="HTTPS port of /healthz; 0 = off.")
@click.option("--tls-cert-file", type=click.Path(path_type=Path), help="Serving certificate (self-made if not given).")
@click.option("--tls-private-key-file", type=click.Path(path_type=Path), help="Its key.")
@click.option("--kube-api-qps", type=float, default=0.0, help="Requests per second; 0 = unlimited.", show_default=True)
@click.option("--kube-api-burst", type=int, default=100, show_default=True)
def controller_manager(**flags: Any) -> None:
    """Run the controllers against an API server, until interrupted."""
    from bowsprit.client.errors import ConfigError
    from bowsprit.client.leaderelection import LeadershipLost

    try:
        run_loop(_serve(flags))
    except ConfigError as exc:
        raise CommandError(str(exc), reason="InvalidConfiguration", hint=exc.hint) from exc
    except LeadershipLost as exc:
        raise CommandError(
            str(exc), reason="LeaderElectionLost", hint="another instance leads; restart to stand by"
        ) from exc


async def _serve(flags: dict[str, Any]) -> None:
    from bowsprit.client.rest import RestClient
    from bowsprit.controllers.manager import ControllerManager, ControllerManagerOptions

    options = ControllerManagerOptions(
        controllers=tuple(part.strip() for part in flags["controllers"].split(",") if part.strip()),
        root_ca=_read(flags["root_ca_file"], "--root-ca-file"),
        service_account_private_key=_read(
            flags["service_account_private_key_file"], "--service-account-private-key-file"
        ),
        cluster_signing_cert_file=flags["cluster_signing_cert_file"],
        cluster_signing_key_file=flags["cluster_signing_key_file"],
        use_service_account_credentials=flags["use_service_account_credentials"],
        leader_elect=flags["leader_elect"],
        leader_elect_lease_duration=flags["leader_elect_lease_duration"],
        leader_elect_renew_deadline=flags["leader_elect_renew_deadline"],
        leader_elect_retry_period=flags["leader_elect_retry_period"],
        leader_elect_resource_name=flags["leader_elect_resource_name"],
        leader_elect_resource_namespace=flags["leader_elect_resource_namespace"],
        identity=f"{socket.gethostname()}_{os.urandom(8).hex()}",
        bind_address=flags["bind_address"],
        secure_port=flags["secure_port"],
        tls=serving_context(flags["tls_cert_file"], flags["tls_private_key_file"]) if flags["secure_port"] else None,
    )
    client = RestClient(client_config(flags, "kube-controller-manager"))
    try:
        manager = ControllerManager(client, options)
    except ValueError as exc:
        raise CommandError(str(exc), reason="InvalidFlag", exit_code=2) from exc
    try:
        await manager.start()
        print(f"controller manager running against {client.config.server}", file=sys.stderr)
        await until_signalled(manager.wait())
    except OSError as exc:
        raise CommandError(
            f"cannot listen on {options.bind_address}:{options.secure_port}: {exc.strerror}",
            reason="AddressInUse",
            hint="choose another --secure-port, or 0 for none",
        ) from exc
    finally:
        await manager.stop()


def client_config(flags: dict[str, Any], component: str) -> Any:
    """The RestConfig that --kubeconfig and --master name; --master alone needs no kubeconfig."""
    from dataclasses import replace

    from bowsprit.client.config import RestConfig, in_cluster_config
    from bowsprit.client.kubeconfig import Kubeconfig
    from bowsprit.client.transport import with_component

    master = (flags.get("master") or "").rstrip("/")
    if flags["kubeconfig"] is None and master:
        config = RestConfig(server=master)
    elif flags["kubeconfig"] is None and "KUBERNETES_SERVICE_HOST" in os.environ:
        config = in_cluster_config()
    else:
        config = Kubeconfig.load(flags["kubeconfig"]).rest_config()
    if master:
        config = replace(config, server=master)
    return replace(with_component(config, component), qps=flags["kube_api_qps"], burst=flags["kube_api_burst"])


def serving_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    """The TLS settings of a health endpoint: the given certificate, or one made for this process."""
    import tempfile

    from bowsprit.pki.authority import Authority

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if certificate is not None or key is not None:
        if certificate is None or key is None:
            raise CommandError(
                "--tls-cert-file and --tls-private-key-file go together", reason="InvalidFlag", exit_code=2
            )
        try:
            context.load_cert_chain(certificate, key)
        except OSError as exc:
            raise CommandError(f"serving certificate: {exc}", reason="InvalidCertificate") from exc
        return context
    pair = Authority.create("bowsprit-self-signed").issue_server("localhost", ["localhost"], ["127.0.0.1"])
    with tempfile.TemporaryDirectory() as folder:
        pair.save(Path(folder) / "tls.crt", Path(folder) / "tls.key")
        context.load_cert_chain(Path(folder) / "tls.crt", Path(folder) / "tls.key")
    return context


def run_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


async def until_signalled(work: Any) -> None:
    """Wait for SIGTERM or SIGINT, or for ``work`` to end (with its exception)."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    waiting = asyncio.ensure_future(stop.wait())
    working = asyncio.ensure_future(work)
    await asyncio.wait({waiting, working}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if working.done():
        working.result()
    working.cancel()


def _read(path: Path | None, flag: str) -> bytes:
    if path is None:
        return b""
    try:
        return path.read_bytes()
    except OSError as exc:
        raise CommandError(f"{flag}: {path}: {exc.strerror}", reason="InvalidFlag") from exc
