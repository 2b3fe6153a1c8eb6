"""``bowsprit extension``: the fifteen steps of the set-up, done (manifests, install) and checked (doctor)."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bowsprit.cli.errors import CommandError
from bowsprit.cli.extension import core_config, failure
from bowsprit.cli.output import Progress

if TYPE_CHECKING:
    from bowsprit.extension.app import App
    from bowsprit.extension.install import Installation
    from bowsprit.extension.manifests import ManifestOptions, Manifests
    from bowsprit.machinery.objects import Obj

Command = TypeVar("Command", bound=Callable[..., Any])
T = TypeVar("T")


class Seconds(click.ParamType[float]):
    """Seconds, or a duration as kubectl's flags have it: 90, 90s, 2m."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from bowsprit.machinery.time import parse_duration

        text = str(value)
        try:
            seconds = float(text) if text.replace(".", "", 1).isdigit() else parse_duration(text) / 1e9
        except ValueError:
            self.fail(f"{text!r} is neither seconds nor a duration such as 90s or 2m", param, ctx)
        if seconds < 1:
            self.fail("it must be a second or more", param, ctx)
        return seconds


_APP = click.argument("spec", metavar="MODULE:APP")
_NAMESPACE = click.option(
    "-n", "--namespace", default="", metavar="NAME", help="[default: the app's name with -system]"
)
_KUBECONFIG = click.option(
    "--kubeconfig", type=click.Path(path_type=Path), metavar="FILE", help="The cluster  [default: kubectl's]"
)
_CERT_MANAGER = click.option("--cert-manager", is_flag=True, help="Let cert-manager make and renew the certificates.")
_DRY_RUN = click.option("--dry-run", is_flag=True, help="Say what would be done; change nothing.")
_TIMEOUT = click.option(
    "--timeout", type=Seconds(), default=120.0, show_default="2m", metavar="DURATION", help="For each wait."
)
_OUTPUT = click.option(
    "-o", "--output", "form", type=click.Choice(["json"]), help="One JSON object per step on stdout."
)


def _workload_options(command: Command) -> Command:
    for option in (
        _CERT_MANAGER,
        click.option(
            "--process",
            is_flag=True,
            help="No image: run this folder's code as a process of the cluster's node (bowsprit up --pods process).",
        ),
        click.option("--replicas", type=click.IntRange(1), default=1, show_default=True, metavar="N"),
        click.option(
            "--port", type=click.IntRange(1024, 65535), default=8443, show_default=True, help="The container's."
        ),
        click.option("--image", default="", metavar="IMAGE", help="[default: the app's name with :latest]"),
        _NAMESPACE,
    ):
        command = option(command)
    return command


def _load(spec: str, *, process: bool = False, **options: Any) -> tuple[App, ManifestOptions]:
    """The app and what is asked for it. Raises ExtensionError."""
    from bowsprit.extension.loading import load_app, source_of
    from bowsprit.extension.manifests import ManifestOptions

    app = load_app(spec)
    if process:
        source = source_of(spec)
        options["workdir"] = str(source.parent if source is not None else Path.cwd())
    return app, ManifestOptions(spec=spec, **options).checked(app)


def _run(work: Callable[[], Awaitable[T]]) -> T:
    from bowsprit.extension.errors import ExtensionError

    async def body() -> T:
        return await work()

    try:
        return asyncio.run(body())
    except ExtensionError as problem:
        raise failure(problem) from problem


def _progress(ctx: click.Context, form: str | None) -> Progress:
    root = ctx.find_root().obj or {}
    return Progress(quiet=bool(root.get("quiet")), colour=root.get("color", "auto"), form=form or "")


# -- manifests -----------------------------------------------------------------------------------------------------------


@click.command()
@_APP
@_workload_options
@click.option(
    "--out-dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="One file per object, readable by you alone; certificates that are there already stay.",
)
def manifests(spec: str, out_dir: Path | None, **options: Any) -> None:
    """Print all objects that the server needs in a cluster, as YAML, in the order of application."""
    from bowsprit.extension.errors import ExtensionError
    from bowsprit.extension.manifests import Manifests

    try:
        app, checked = _load(spec, **options)
    except ExtensionError as problem:
        raise failure(problem) from problem
    certificates = None if checked.cert_manager else _certificates(app, checked, out_dir)
    made = Manifests(app, checked, certificates)
    _warn_of_memory(app)
    if out_dir is None:
        if certificates is not None:
            click.echo(
                "warning: the output holds private keys (two Secrets); --out-dir writes protected files", err=True
            )
        click.echo(_yaml(made.objects()), nl=False)
        return
    for path in _write(out_dir, made):
        click.echo(str(path))


def _warn_of_memory(app: App) -> None:
    from bowsprit.extension.manifests import stores

    if "memory" in stores(app):
        click.echo(f"warning: {app.name} keeps objects in memory: they are lost with the pod", err=True)


def _certificates(app: App, options: ManifestOptions, out_dir: Path | None) -> Any:
    """Those of an earlier run when they are of use, else new ones."""
    from datetime import UTC, datetime

    from bowsprit.extension.certificates import Certificates, serving_names

    now = datetime.now(UTC)
    if out_dir is not None:
        found = _stored(out_dir, app)
        if found is not None and not found.problem(serving_names(app.name, options.namespace), now):
            return found
    return Certificates.make(app.name, options.namespace, now=now)


def _stored(folder: Path, app: App) -> Any:
    from base64 import b64decode

    from bowsprit.extension.certificates import Certificates
    from bowsprit.machinery.yamlcodec import decode_yaml
    from bowsprit.pki.errors import PKIError

    secrets: dict[str, dict[str, bytes]] = {}
    for path in folder.glob("*-secret-*.yaml"):
        try:
            document = decode_yaml(path.read_bytes())
            data = {key: b64decode(value) for key, value in document["data"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        secrets[document["metadata"]["name"]] = data
    try:
        return Certificates.from_secrets(secrets.get(f"{app.name}-serving", {}), secrets.get(f"{app.name}-ca", {}))
    except PKIError:
        return None


def _write(folder: Path, made: Manifests) -> Iterable[Path]:
    from bowsprit.pki.files import write_private

    objects = made.objects()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for number, obj in enumerate(objects, 1):
            name = obj["metadata"]["name"].replace(":", "-")
            path = folder / f"{number:02d}-{obj['kind'].lower()}-{name}.yaml"
            for old in folder.glob(f"[0-9][0-9]-{obj['kind'].lower()}-{name}.yaml"):
                if old != path:
                    old.unlink()
            write_private(path, _yaml([obj]).encode())
            yield path
    except OSError as problem:
        raise CommandError(f"cannot write to {folder}: {problem.strerror}", reason="WriteFailed") from problem


def _yaml(objects: list[Obj]) -> str:
    from bowsprit.machinery.yamlcodec import encode_yaml

    return "---\n".join(encode_yaml(obj) for obj in objects)


# -- install -------------------------------------------------------------------------------------------------------------


def _with_installation(
    ctx: click.Context,
    spec: str,
    kubeconfig: Path | None,
    form: str | None,
    options: dict[str, Any],
    work: Callable[[Installation], Awaitable[None]],
    timeout: float = 120.0,
    installing: bool = False,
) -> None:
    progress = _progress(ctx, form)

    async def body() -> None:
        from datetime import UTC, datetime

        from bowsprit.client.rest import RestClient
        from bowsprit.extension.install import Installation

        app, checked = _load(spec, **options)
        if installing:
            _warn_of_memory(app)
        async with RestClient(core_config(kubeconfig)) as client:
            await work(
                Installation(client, app, checked, now=lambda: datetime.now(UTC), say=progress.step, timeout=timeout)
            )

    _run(body)


@click.command()
@_APP
@_workload_options
@_KUBECONFIG
@_TIMEOUT
@_DRY_RUN
@_OUTPUT
@click.pass_context
def install(
    ctx: click.Context,
    /,
    spec: str,
    kubeconfig: Path | None,
    timeout: float,
    dry_run: bool,
    form: str | None,
    **options: Any,
) -> None:
    """Install the server in a cluster, wait for it, and check that it serves. May be repeated."""
    _with_installation(
        ctx, spec, kubeconfig, form, options, lambda installation: installation.install(dry_run=dry_run), timeout, True
    )


@click.command()
@_APP
@_NAMESPACE
@_CERT_MANAGER
@_KUBECONFIG
@click.option("--keep-data", is_flag=True, help="Leave the claims with the objects, and their namespace.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@_DRY_RUN
@_OUTPUT
@click.pass_context
def uninstall(
    ctx: click.Context,
    /,
    spec: str,
    kubeconfig: Path | None,
    keep_data: bool,
    yes: bool,
    dry_run: bool,
    form: str | None,
    **options: Any,
) -> None:
    """Remove what install made, the APIServices first."""
    if not (yes or dry_run) and sys.stdin.isatty():
        click.confirm(f"Remove {spec} and what it stores from the cluster?", abort=True, err=True)
    _with_installation(
        ctx,
        spec,
        kubeconfig,
        form,
        options,
        lambda installation: installation.uninstall(keep_data=keep_data, dry_run=dry_run),
    )


@click.command("rotate-certs")
@_APP
@_NAMESPACE
@click.option("--ca", "authority", is_flag=True, help="A new authority too; the old one stays trusted meanwhile.")
@click.option("--drop-old", is_flag=True, help="End the trust in all but the present authority.")
@_KUBECONFIG
@_TIMEOUT
@_OUTPUT
@click.pass_context
def rotate_certs(
    ctx: click.Context,
    /,
    spec: str,
    kubeconfig: Path | None,
    authority: bool,
    drop_old: bool,
    timeout: float,
    form: str | None,
    **options: Any,
) -> None:
    """Replace the serving certificate, or its authority, while requests go on."""
    if authority and drop_old:
        raise click.UsageError("--ca and --drop-old are two steps: servers must take up the new certificate in between")
    _with_installation(
        ctx,
        spec,
        kubeconfig,
        form,
        options,
        lambda installation: installation.rotate(authority=authority, drop_old=drop_old),
        timeout,
    )


# -- doctor --------------------------------------------------------------------------------------------------------------

_MARKS = {"ok": "✓", "warn": "!", "fail": "✗", "skip": "-"}


@click.command()
@click.argument("name", metavar="[APISERVICE]", default="")
@_KUBECONFIG
@click.option(
    "--proxy-client-cert",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The API server's --proxy-client-cert-file, to check it against what servers are told to trust.",
)
@click.option("-o", "--output", "form", type=click.Choice(["json"]), help="Findings for scripts.")
@click.pass_context
def doctor(
    ctx: click.Context, /, name: str, kubeconfig: Path | None, proxy_client_cert: Path | None, form: str | None
) -> None:
    """Check extension API servers from end to end; exit code 1 when something fails.

    APISERVICE is a name (v1.hello.example.com) or a group (hello.example.com); without it all are checked that a Service serves.
    `bowsprit --quiet extension doctor` prints only what is not well.
    """
    from bowsprit.cli.output import print_structured
    from bowsprit.extension.doctor.examination import healthy

    certificate = proxy_client_cert.read_bytes() if proxy_client_cert is not None else b""
    found = _run(lambda: _examine(name, kubeconfig, certificate))
    if form:
        print_structured(
            {
                "ok": all(healthy(findings) for findings in found.values()),
                "apiServices": [
                    {"name": each, "ok": healthy(findings), "findings": [f.to_json(c) for c, f in findings.items()]}
                    for each, findings in found.items()
                ],
            },
            form,
        )
    elif not found:
        click.echo("no APIService is served by an extension server: nothing to check", err=True)
    else:
        quiet = bool((ctx.find_root().obj or {}).get("quiet"))
        for each, findings in found.items():
            _print_findings(each, findings, quiet)
    if not all(healthy(findings) for findings in found.values()):
        ctx.exit(1)


def _print_findings(name: str, findings: Any, quiet: bool) -> None:
    shown = {check: finding for check, finding in findings.items() if not quiet or finding.level in ("warn", "fail")}
    if shown:
        click.echo(name)
    for check, finding in shown.items():
        click.echo(f" {_MARKS[finding.level]} {check:<22}{finding.message}")
        if finding.hint:
            click.echo(f"   {'':<22}hint: {finding.hint}")


async def _examine(name: str, kubeconfig: Path | None, certificate: bytes) -> dict[str, Any]:
    from datetime import UTC, datetime

    from bowsprit.client.errors import ClientError
    from bowsprit.client.rest import RestClient
    from bowsprit.extension.doctor.examination import examine
    from bowsprit.extension.doctor.subject import Subject, remote_api_services
    from bowsprit.extension.errors import ExtensionError
    from bowsprit.extension.install import explained
    from bowsprit.machinery.errors import StatusError

    found = {}
    async with RestClient(core_config(kubeconfig)) as client:
        try:
            services = await remote_api_services(client, name)
            if name and not services:
                raise ExtensionError(
                    f"no APIService {name} is served by an extension server",
                    reason="APIServiceNotFound",
                    hint="kubectl get apiservices",
                )
            for item in services:
                subject = await Subject.read(client, item, lambda: datetime.now(UTC), certificate)
                found[item["metadata"]["name"]] = await examine(subject)
        except (StatusError, ClientError, TimeoutError) as problem:
            raise explained(problem) from problem
    return found
