"""``bowsprit scheduler``: run a scheduler (kube-scheduler's flags), replay scenarios, explain, print manifests."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import Any

import click

from bowsprit.cli.controller_manager import until_signalled
from bowsprit.cli.errors import CommandError
from bowsprit.cli.goflags import GoFlags
from bowsprit.cli.scheduler_flags import FILE, check_flags, run_options


class SchedulerGroup(GoFlags, click.Group):
    """Flags as kube-scheduler reads them, and commands beside it."""


@click.group("scheduler", cls=SchedulerGroup, invoke_without_command=True)
@run_options
@click.pass_context
def scheduler(ctx: click.Context, /, **flags: Any) -> None:
    """Run a scheduler with kube-scheduler's flags, or use one of the commands."""
    if ctx.invoked_subcommand is None:
        run_scheduler(flags)


@scheduler.command(cls=GoFlags)
@run_options
def run(**flags: Any) -> None:
    """Run a scheduler until interrupted."""
    run_scheduler(flags)


def run_scheduler(flags: dict[str, Any]) -> None:
    if flags["show_version"]:
        from importlib.metadata import version

        click.echo(f"bowsprit {version('bowsprit')} (kube-scheduler 1.36)")
        return
    if flags["verbosity"]:
        level = logging.DEBUG if flags["verbosity"] >= 4 else logging.INFO if flags["verbosity"] >= 2 else None
        logging.getLogger().setLevel(level or logging.WARNING)
    code = asyncio.run(_serve(flags))
    if code:
        raise CommandError("leaderelection lost", reason="LeaderElectionLost", hint="another instance leads")


def read_gates(texts: tuple[str, ...]) -> dict[str, bool]:
    """``A=true,B=false``, several times. Raises CommandError."""
    from bowsprit.scheduler.featuregates import DEFAULTS, parse_gates

    try:
        gates = parse_gates(texts)
    except ValueError as exc:
        raise CommandError(str(exc), reason="InvalidFlag", hint="write --feature-gates=Name=true") from exc
    for name in gates:
        if name not in DEFAULTS:
            click.echo(f"Warning: feature gate {name} changes nothing here", err=True)
    return gates


def load_config(path: Path | None, gates: dict[str, bool], flags: dict[str, Any]) -> Any:
    """The configuration with the flags that override it. Raises CommandError."""
    from bowsprit.scheduler.config import ConfigError, check, read
    from bowsprit.scheduler.config.defaults import set_defaults

    warnings: list[str] = []
    try:
        if path is None:
            config = set_defaults({}, gates)
        else:
            config, warnings = read(path.read_text(), gates)
        election = config["leaderElection"]
        for flag, key in (
            ("leader_elect_lease_duration", "leaseDuration"),
            ("leader_elect_renew_deadline", "renewDeadline"),
            ("leader_elect_retry_period", "retryPeriod"),
            ("leader_elect_resource_lock", "resourceLock"),
            ("leader_elect_resource_name", "resourceName"),
            ("leader_elect_resource_namespace", "resourceNamespace"),
        ):
            if flags.get(flag) is not None:
                election[key] = flags[flag]
        if flags.get("leader_elect") is not None:
            election["leaderElect"] = flags["leader_elect"]
        check(config, gates)
    except OSError as exc:
        raise CommandError(f"open {path}: {(exc.strerror or '').lower()}", reason="InvalidConfiguration") from exc
    except ConfigError as exc:
        raise CommandError(
            str(exc),
            reason="InvalidConfiguration",
            hint=f"see KubeSchedulerConfiguration v1; the file is {path}",
        ) from exc
    for warning in warnings:
        click.echo(f"Warning: {warning}", err=True)
    return config


def _check_profiles(config: Any, gates: dict[str, bool]) -> None:
    """Build what the configuration asks for once, so that its errors come before any network. Raises CommandError."""
    from bowsprit.scheduler.core import SchedulerCore
    from bowsprit.scheduler.driver.extenders import check_files
    from bowsprit.scheduler.profile import ProfileError
    from bowsprit.scheduler.registry import registry

    try:
        check_files(config)
        SchedulerCore(config, registry(), lambda: 0.0, gates=gates)
    except OSError as exc:
        text = f"couldn't build extenders: open {exc.filename}: {(exc.strerror or '').lower()}"
        raise CommandError(text, reason="InvalidConfiguration") from exc
    except ProfileError as exc:
        raise CommandError(str(exc), reason="InvalidConfiguration") from exc


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _shown(value: Any) -> str:
    """A flag's value as /flagz has it."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _access_options(flags: dict[str, Any]) -> Any:
    """Who may read the secure port, from the flags. Raises CommandError."""
    from bowsprit.apiserver.authentication.front_proxy import FrontProxyHeaders
    from bowsprit.client.errors import ConfigError as ClientConfigError
    from bowsprit.client.kubeconfig import Kubeconfig
    from bowsprit.client.rest import RestClient
    from bowsprit.scheduler.driver.access import AccessOptions

    def client(path: Path | None) -> Any:
        if path is None:
            return None
        try:
            rest = Kubeconfig.load(path).rest_config()
        except ClientConfigError as exc:
            raise CommandError(str(exc), reason="InvalidConfiguration", hint=exc.hint) from exc
        return lambda: RestClient(rest)

    kinds = ("username_headers", "uid_headers", "group_headers", "extra_headers_prefix", "allowed_names")
    return AccessOptions(
        flags["client_ca_file"],
        flags["requestheader_client_ca_file"],
        FrontProxyHeaders(*(_listed(flags[f"requestheader_{kind}"]) for kind in kinds)),
        flags["authentication_skip_lookup"],
        flags["authentication_tolerate_lookup_failure"],
        flags["authentication_token_webhook_cache_ttl"],
        flags["authorization_webhook_cache_authorized_ttl"],
        flags["authorization_webhook_cache_unauthorized_ttl"],
        client(flags["authentication_kubeconfig"]),
        client(flags["authorization_kubeconfig"]),
    )


async def _serve(flags: dict[str, Any]) -> int:
    from dataclasses import replace

    from bowsprit.cli.controller_manager import client_config
    from bowsprit.client.errors import ConfigError as ClientConfigError
    from bowsprit.client.rest import RestClient
    from bowsprit.client.transport import with_component
    from bowsprit.machinery.yamlcodec import encode_yaml
    from bowsprit.scheduler.driver.server import ServingOptions
    from bowsprit.scheduler.process import Scheduler, SchedulerOptions

    check_flags(flags)
    gates = read_gates(flags["feature_gates"])
    config = load_config(flags["config"], gates, flags)
    _check_profiles(config, gates)
    if flags["write_config_to"]:
        try:
            flags["write_config_to"].write_text(encode_yaml(config))
        except OSError as exc:
            raise CommandError(
                f"open {flags['write_config_to']}: {(exc.strerror or '').lower()}", reason="InvalidFlag"
            ) from exc
        return 0
    connection = config["clientConnection"]
    if flags["config"] is not None:
        flags = {**flags, "kube_api_qps": float(connection["qps"]), "kube_api_burst": int(connection["burst"])}
        if connection["kubeconfig"] and flags["kubeconfig"] is None:
            flags["kubeconfig"] = Path(connection["kubeconfig"])
    try:
        rest = client_config(flags, "kube-scheduler")
        await RestClient(rest).close()  # an address or a certificate that is none is told here
    except ClientConfigError as exc:
        raise CommandError(str(exc), reason="InvalidConfiguration", hint=exc.hint) from exc
    options = SchedulerOptions(
        config=config,
        gates=gates,
        secure_port=flags["secure_port"] or None,
        bind_address=flags["bind_address"],
        max_unschedulable=flags["pod_max_in_unschedulable_pods_duration"],
        serving=ServingOptions(
            flags["tls_cert_file"],
            flags["tls_private_key_file"],
            flags["cert_dir"],
            flags["tls_min_version"],
            _listed(flags["tls_cipher_suites"]),
            _listed(flags["authorization_always_allow_paths"]),
            _access_options(flags),
            {name.replace("_", "-"): _shown(value) for name, value in flags.items()},
        ),
        plugin_timeout=flags["plugin_timeout"],
    )
    process = Scheduler(lambda agent: RestClient(replace(with_component(rest, agent))), options)
    try:
        await _start(process)
        print(f"scheduler running against {rest.server}", file=sys.stderr)
        await until_signalled(process.wait())
    except OSError as exc:
        raise CommandError(
            f"cannot listen on {flags['bind_address']}:{flags['secure_port']}: {exc.strerror or exc}",
            reason="AddressInUse",
            hint="choose another --secure-port, or 0 for none",
        ) from exc
    except TimeoutError as exc:
        raise CommandError(
            f"the caches did not sync: {exc}", reason="Timeout", hint=f"is {rest.server} reachable?"
        ) from exc
    finally:
        await process.stop()
    return process.exit_code or 0


async def _start(process: Any) -> None:
    from bowsprit.pki.errors import PKIError
    from bowsprit.scheduler.driver.access import LookupFailed

    try:
        await process.start()
    except (LookupFailed, PKIError, ValueError) as exc:
        raise CommandError(
            str(exc),
            reason="InvalidConfiguration",
            hint="see --client-ca-file, --requestheader-client-ca-file, --authentication-tolerate-lookup-failure",
        ) from exc


# simulate


@scheduler.command()
@click.option(
    "-f",
    "--filename",
    "file",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Scenarios, one JSON a line; - is stdin.",
)
@click.option("--config", type=FILE, help="Replace the scenarios' configuration by this file's.")
@click.option("--compare", type=FILE, help="Show what changes between this configuration and --config.")
@click.option(
    "--from-context",
    default=None,
    metavar="NAME",
    help="Take a snapshot of this kubectl context (- is the current one).",
)
@click.option("-o", "--output", type=click.Choice(["table", "json", "jsonl"]), default="table", show_default=True)
@click.option("--scores", is_flag=True, help="Print the scores of every plugin.")
def simulate(
    file: Path | None, config: Path | None, compare: Path | None, from_context: str | None, output: str, scores: bool
) -> None:
    """Run the real scheduling code on scenarios, without a cluster."""
    from bowsprit.scheduler.profile import ProfileError
    from bowsprit.scheduler.simulation import replay

    if (file is None) == (from_context is None):
        raise CommandError("give either -f FILE or --from-context", reason="InvalidFlag", exit_code=2)
    if compare is not None and config is None:
        raise CommandError("--compare A.yaml needs --config B.yaml", reason="InvalidFlag", exit_code=2)
    chosen = load_config(config, {}, {}) if config else None
    other = load_config(compare, {}, {}) if compare else None
    for scenario in _scenarios(file) if file is not None else [asyncio.run(_snapshot(str(from_context)))]:
        try:
            result = replay(scenario, scores=scores, config=chosen)
            before = replay(scenario, scores=scores, config=other) if other is not None else None
        except ProfileError as exc:
            raise CommandError(str(exc), reason="InvalidConfiguration") from exc
        except (KeyError, TypeError, AttributeError, ValueError) as exc:
            raise CommandError(
                f"scenario {scenario.get('id')}: {type(exc).__name__}: {exc}",
                reason="InvalidScenario",
                hint="a scenario has nodes, existing_pods, objects and pods as the API stores them",
            ) from exc
        _print_result(scenario, before, result, output)


def _scenarios(file: Path) -> Any:
    import orjson

    try:
        stream = sys.stdin.buffer if str(file) == "-" else file.open("rb")
    except OSError as exc:
        raise CommandError(f"{file}: {exc.strerror}", reason="InvalidFile") from exc
    with stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                scenario = orjson.loads(line)
            except orjson.JSONDecodeError as exc:
                raise CommandError(
                    f"{file}, line {number}: {exc}", reason="InvalidScenario", hint="one JSON object a line"
                ) from exc
            if not isinstance(scenario, dict):
                raise CommandError(f"{file}, line {number}: not an object", reason="InvalidScenario")
            yield scenario


async def _snapshot(context: str, kubeconfig: Path | None = None) -> dict[str, Any]:
    """A scenario from a live cluster: its pending pods are what is scheduled."""
    from bowsprit.client.errors import ClientError, ConfigError
    from bowsprit.client.kubeconfig import Kubeconfig
    from bowsprit.client.resources import NODES, PODS
    from bowsprit.client.rest import RestClient
    from bowsprit.machinery.errors import StatusError
    from bowsprit.machinery.names import GroupVersionResource
    from bowsprit.scheduler.objects import KINDS

    try:
        rest = Kubeconfig.load(kubeconfig).rest_config(None if context == "-" else context)
    except ConfigError as exc:
        raise CommandError(str(exc), reason="InvalidConfiguration", hint=exc.hint) from exc
    async with RestClient(rest) as client:
        try:
            nodes = (await client.list(NODES))["items"]
            pods = (await client.list(PODS))["items"]
            objects = []
            for kind, gvr in KINDS.items():
                found = (await client.list(GroupVersionResource(*gvr)))["items"]
                objects += [{**item, "kind": kind} for item in found]
        except (StatusError, ClientError) as exc:
            raise CommandError(str(exc), reason="Unreachable", hint=f"is {rest.server} up?") from exc
    nodes.sort(key=lambda node: (node["metadata"].get("creationTimestamp") or "", node["metadata"]["name"]))
    finished = ("Succeeded", "Failed")
    live = [pod for pod in pods if (pod.get("status") or {}).get("phase") not in finished]
    return {
        "id": f"context {context}",
        "config": {},
        "nodes": nodes,
        "objects": objects,
        "existing_pods": [pod for pod in live if pod["spec"].get("nodeName")],
        "pods": [pod for pod in live if not pod["spec"].get("nodeName")],
    }


def _print_result(scenario: Any, before: Any, result: Any, output: str) -> None:
    import orjson

    if output != "table":
        answer = {"id": scenario.get("id"), "result": result}
        if before is not None:
            answer["before"] = before
        click.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2 if output == "json" else 0))
        return
    click.echo(f"{scenario.get('id')}: {scenario.get('about', '')}".rstrip(": "))
    rows = []
    for position, item in enumerate(result):
        row = [item["pod"], _where(item), _why(item)]
        if before is not None:
            old = before[position]
            if (_where(old), _why(old)) == (row[1], row[2]):
                continue
            row = [item["pod"], _where(old), row[1], _why(item) or _why(old)]
        rows.append(row)
    head = ["POD", "NODE", "MESSAGE"] if before is None else ["POD", "BEFORE", "AFTER", "MESSAGE"]
    if before is not None and not rows:
        click.echo("  nothing differs")
        return
    click.echo(table([head, *rows]))


def _where(item: Any) -> str:
    if item.get("node"):
        return str(item["node"])
    return f"({item['nominatedNodeName']})" if item.get("nominatedNodeName") else "<none>"


def _why(item: Any) -> str:
    victims = f" victims: {', '.join(item['victims'])}" if item.get("victims") else ""
    return str((item.get("condition") or {}).get("message", "")) + victims


def table(rows: list[list[str]]) -> str:
    """Columns as kubectl prints them."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


# explain


@scheduler.command()
@click.argument("pod")
@click.option("-n", "--namespace", default=None, help="Namespace of the pod.")
@click.option("--kubeconfig", type=FILE, help="Kubeconfig file.")
@click.option("--context", default=None, help="Context of the kubeconfig.")
@click.option("--config", type=FILE, help="Configuration of the scheduler to explain (default: kube-scheduler's).")
@click.option("-o", "--output", type=click.Choice(["text", "wide", "json"]), default="text", show_default=True)
def explain(
    pod: str, namespace: str | None, kubeconfig: Path | None, context: str | None, config: Path | None, output: str
) -> None:
    """Say, node by node and plugin by plugin, why a pod is (not) placed there."""
    import orjson

    from bowsprit.scheduler.explain import explain_pod, render

    chosen = load_config(config, {}, {})
    snapshot = asyncio.run(_cluster(kubeconfig, context, namespace))
    found = explain_pod(snapshot, snapshot["namespace"], pod, chosen)
    if found is None:
        raise CommandError(
            f'pods "{pod}" not found', reason="NotFound", hint=f"looked in namespace {snapshot['namespace']}; see -n"
        )
    click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2) if output == "json" else render(found, output == "wide"))


async def _cluster(kubeconfig: Path | None, context: str | None, namespace: str | None) -> dict[str, Any]:
    from bowsprit.client.errors import ConfigError
    from bowsprit.client.kubeconfig import Kubeconfig

    try:
        loaded = Kubeconfig.load(kubeconfig)
        name = context or loaded.current_context
        snapshot = await _snapshot(name or "-", kubeconfig)
    except ConfigError as exc:
        raise CommandError(str(exc), reason="InvalidConfiguration", hint=exc.hint) from exc
    stanza = loaded.contexts.get(name or "", {})
    return {**snapshot, "namespace": namespace or stanza.get("namespace") or "default"}


# manifests


@scheduler.command()
@click.option("--name", default="my-scheduler", show_default=True, help="Name of the scheduler and of its objects.")
@click.option("--namespace", "-n", default="kube-system", show_default=True)
@click.option("--image", default="bowsprit:latest", show_default=True, help="Image with bowsprit in it.")
@click.option(
    "--replicas", type=click.IntRange(1), default=1, show_default=True, help="More than one: with leader election."
)
def manifests(name: str, namespace: str, image: str, replicas: int) -> None:
    """Print the manifests of a second scheduler."""
    from bowsprit.machinery.validation import is_dns1123_label
    from bowsprit.machinery.yamlcodec import encode_yaml
    from bowsprit.scheduler.manifests import second_scheduler

    problems = is_dns1123_label(name)
    if problems:
        raise CommandError(f"--name {name}: {problems[0]}", reason="InvalidFlag", exit_code=2)
    documents = second_scheduler(name, namespace, image, replicas)
    click.echo("---\n".join(encode_yaml(document) for document in documents), nl=False)
