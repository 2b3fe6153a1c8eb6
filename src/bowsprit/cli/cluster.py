"""``up``, ``down``, ``delete``, ``status``, ``get``, ``logs``: the embedded cluster."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from bowsprit.cli.errors import CommandError
from bowsprit.cli.output import Progress, print_structured, print_table
from bowsprit.cluster.errors import ClusterError

if TYPE_CHECKING:
    from bowsprit.cluster.config import ClusterConfig
    from bowsprit.cluster.lifecycle import ClusterState

_P = ParamSpec("_P")
_R = TypeVar("_R")

NAME = click.option(
    "--name", envvar="BOWSPRIT_CLUSTER", default="dev", show_default=True, help="The cluster; $BOWSPRIT_CLUSTER."
)
KUBECONFIG = click.option(
    "--kubeconfig", type=click.Path(path_type=Path, dir_okay=False), help="File to use instead of kubectl's rules."
)


def _explained(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """Turn the library's errors into the command line's."""

    @wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        from bowsprit.client.errors import ConfigError

        try:
            return command(*args, **kwargs)
        except ClusterError as exc:
            raise CommandError(exc.message, reason=exc.reason, hint=exc.hint) from exc
        except ConfigError as exc:
            raise CommandError(str(exc), reason="InvalidKubeconfig", hint=exc.hint) from exc

    return run


def _duration(_ctx: click.Context, _param: click.Parameter, value: str) -> float:
    for suffix, factor in (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("", 1.0)):
        number = value.removesuffix(suffix)
        if value.endswith(suffix) and number.replace(".", "", 1).isdigit():
            return float(number) * factor
    raise click.BadParameter(f"{value!r} is not a duration like 30s or 2m")


@click.command()
@click.option("--name", envvar="BOWSPRIT_CLUSTER", help="The cluster's name, dev by default; $BOWSPRIT_CLUSTER.")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port of the API server; 0 = any free one, kept afterwards."
)
@click.option("--nodes", type=click.IntRange(0, 10_000), help="Number of simulated nodes; 3 by default.")
@click.option("--store", metavar="memory|sqlite|sqlite:PATH", help="Where objects live; sqlite by default.")
@click.option("-f", "--file", "config_file", metavar="FILE", help="Cluster file; - for standard input.")
@click.option(
    "--konnectivity", is_flag=True, help="Run a konnectivity server and agents, and route node traffic through them."
)
@click.option(
    "--pods",
    type=click.Choice(["simulated", "process"]),
    help="process: run pods whose commands are on this host there, as you; simulated by default.",
)
@KUBECONFIG
@click.option("--no-switch", is_flag=True, help="Do not make the cluster's context the current one.")
@click.option(
    "--wait", callback=_duration, default="30s", show_default=True, help="How long to wait for readiness; 0 = not."
)
@click.option("-o", "--output", type=click.Choice(["json"]), help="One JSON object per step on stdout.")
@click.pass_context
@_explained
def up(ctx: click.Context, /, name: str | None, config_file: str | None, **settings: Any) -> None:
    """Start a cluster, or find it running; merge its context into your kubeconfig."""
    from bowsprit.cluster.lifecycle import find_cluster, start_cluster, stop_cluster, wait_ready

    progress = Progress(quiet=ctx.obj["quiet"], colour=ctx.obj["color"], form=settings["output"] or "")
    config = _configuration(name, config_file, settings)
    before = find_cluster(config.name)
    running = before is not None and before.supervisor_pid != 0
    if running and before is not None:
        _check_unchanged(before, config, settings)
    state = start_cluster(config)
    verb = "is already running" if running else "started"
    if settings["wait"]:
        try:
            state = wait_ready(config.name, settings["wait"], on_ready=_announcer(progress, state.config))
        except ClusterError as exc:
            if exc.reason == "ComponentFailed" and not running:
                stop_cluster(state)
            raise
    path = _merge(state, settings)
    switched = "" if settings["no_switch"] else " and switched to it"
    progress.step("kubeconfig", f"Merged context bowsprit-{state.name} into {path}{switched}", file=str(path))
    if settings["output"] != "json":
        click.echo(f"cluster/{state.name} {verb}: {state.server}")
    _suggest(progress, state)


def _configuration(name: str | None, config_file: str | None, settings: dict[str, Any]) -> ClusterConfig:
    """Flags win over the file, that over what the cluster ran with before, that over the defaults."""
    from bowsprit.cluster.config import ClusterConfig, NodeGroup, load_config, parse_config
    from bowsprit.cluster.lifecycle import find_cluster

    if config_file == "-":
        config = parse_config(sys.stdin.buffer.read(1 << 20), origin="standard input")
    elif config_file:
        config = load_config(Path(config_file))
    else:
        stored = find_cluster(name or "dev")
        config = stored.config if stored is not None else ClusterConfig(name=_checked(name or "dev"))
    changes: dict[str, Any] = {}
    if name:
        changes["name"] = _checked(name)
    if settings["port"] is not None:
        changes["port"] = settings["port"]
    if settings["nodes"] is not None:
        changes["nodes"] = [NodeGroup(count=settings["nodes"])]
    if settings["store"]:
        changes["store"] = _checked_store(settings["store"])
    if settings["konnectivity"]:
        changes["konnectivity"] = config.konnectivity.model_copy(update={"enabled": True})
    if settings["pods"]:
        changes["kubelet"] = config.kubelet.model_copy(update={"processes": settings["pods"] == "process"})
    return config.model_copy(update=changes)


def _checked(name: str) -> str:
    from bowsprit.cluster.paths import check_name

    return check_name(name)


def _checked_store(store: str) -> str:
    if store in ("memory", "sqlite"):
        return store
    if store.startswith("sqlite:") and store != "sqlite:":
        return f"sqlite:{Path(store.removeprefix('sqlite:')).expanduser().absolute()}"
    raise click.UsageError(f"--store {store!r} is not memory, sqlite or sqlite:PATH")


def _check_unchanged(running: ClusterState, wanted: ClusterConfig, settings: dict[str, Any]) -> None:
    same = wanted.with_ports(lambda port: port, running.config)
    if same != running.config:
        raise ClusterError(
            f"cluster {running.name!r} already runs with other settings",
            reason="AlreadyRunning",
            hint=f"bowsprit down --name {running.name}, then start it again; its state is kept",
        )


def _announcer(progress: Progress, config: ClusterConfig) -> Callable[[str, float], None]:
    texts = {
        "apiserver": f"API server ready at https://127.0.0.1:{config.port} (store: {config.store})",
        "controller-manager": "Controllers running",
        "scheduler": "Scheduler running",
        "kubelet": f"{len(config.node_names())} simulated nodes Ready",
        "konnectivity-server": "Konnectivity server running",
        "konnectivity-agent": "Konnectivity agents connected",
    }

    def announce(component: str, seconds: float) -> None:
        progress.step(component, texts.get(component, f"{component} ready"), seconds=round(seconds, 3))

    return announce


def _merge(state: ClusterState, settings: dict[str, Any]) -> Path:
    from bowsprit.client.kubeconfig import Kubeconfig
    from bowsprit.client.kubeconfig_edit import KubeconfigFile
    from bowsprit.cluster.supervisor import write_atomically

    own = Kubeconfig.load(state.paths.admin_kubeconfig)
    context = f"bowsprit-{state.name}"
    file = KubeconfigFile(settings["kubeconfig"])
    path = file.set_context(context, own.clusters[context], own.users[context], switch=not settings["no_switch"])
    known = set(_merged_files(state)) | {path.absolute()}
    write_atomically(state.paths.merged, json.dumps(sorted(map(str, known))).encode())
    return path


def _merged_files(state: ClusterState) -> list[Path]:
    try:
        return [Path(path) for path in json.loads(state.paths.merged.read_bytes())]
    except (OSError, ValueError):
        return []


def _suggest(progress: Progress, state: ClusterState) -> None:
    if shutil.which("kubectl") is None:
        progress.say("There is no kubectl on this machine; on Debian: apt-get install kubernetes-client")
    progress.say("Try:  kubectl get nodes")
    progress.say("      kubectl create deployment web --image=nginx --replicas=3 && kubectl get pods -o wide")
    progress.say("      kubectl explain deployment.spec.strategy")
    progress.say(
        f"Undo: bowsprit delete --name {state.name}   (bowsprit down --name {state.name} stops it and keeps its state)"
    )


@click.command()
@NAME
@_explained
def down(name: str) -> None:
    """Stop a cluster; its state is kept for the next `up`."""
    from bowsprit.cluster.lifecycle import get_cluster, stop_cluster

    state = get_cluster(name)
    stopped = stop_cluster(state)
    kept = "nothing is kept (store: memory)" if state.config.store == "memory" else "state kept"
    click.echo(f"cluster/{name} {'stopped' if stopped else 'was not running'}; {kept}")


@click.command()
@NAME
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@_explained
def delete(name: str, yes: bool) -> None:
    """Stop a cluster and forget it, its context included."""
    from bowsprit.client.kubeconfig_edit import KubeconfigFile
    from bowsprit.cluster.lifecycle import delete_cluster, get_cluster

    state = get_cluster(name)
    if not yes and sys.stdin.isatty() and not click.confirm(f"Delete cluster {name!r} and everything in it?", err=True):
        raise click.Abort
    files = _merged_files(state)
    delete_cluster(state)
    for file in files:
        if file.is_file():
            KubeconfigFile(file).remove_context(f"bowsprit-{name}")
    click.echo(f"cluster/{name} deleted")


@click.command()
@click.option("--name", envvar="BOWSPRIT_CLUSTER", help="One cluster; all by default.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]))
@_explained
def status(name: str | None, output: str | None) -> None:
    """Show clusters and their components."""
    from bowsprit.cluster.lifecycle import get_cluster, list_clusters

    states = [get_cluster(name)] if name else list_clusters()
    if output:
        print_structured([_facts(state) for state in states], output)
        return
    if not states:
        click.echo("No clusters. Start one with: bowsprit up", err=True)
        return
    for state in states:
        click.echo(f"cluster/{state.name}  {state.phase}  {state.server}  store: {state.config.store}")
        if state.components:
            print_table(
                ("  COMPONENT", "STATUS", "PID", "RESTARTS", "LAST EXIT"), list(_component_rows(state, indent="  "))
            )


def _facts(state: ClusterState) -> dict[str, Any]:
    return {
        "name": state.name,
        "phase": state.phase,
        "server": state.server,
        "store": state.config.store,
        "nodes": len(state.config.node_names()),
        "supervisorPID": state.supervisor_pid,
        "components": state.components,
        "folder": str(state.paths.root),
    }


def _component_rows(state: ClusterState, indent: str = "") -> Iterator[tuple[object, ...]]:
    for component in state.components:
        text = "Ready" if component["ready"] else "Starting" if component["pid"] else "Restarting"
        pid = component["pid"] or ""
        yield (indent + component["name"], text, pid, component["restarts"], component["lastExit"])


@click.group()
def get() -> None:
    """List clusters or components, or print a kubeconfig."""


@get.command("clusters")
@click.option("-o", "--output", type=click.Choice(["json", "yaml", "name"]))
@_explained
def get_clusters(output: str | None) -> None:
    """List the clusters."""
    from bowsprit.cluster.lifecycle import list_clusters

    states = list_clusters()
    if output == "name":
        for state in states:
            click.echo(f"cluster/{state.name}")
    elif output:
        print_structured([_facts(state) for state in states], output)
    elif not states:
        click.echo("No clusters found.", err=True)
    else:
        rows = [
            (state.name, state.phase, len(state.config.node_names()), state.server, state.config.store, _age(state))
            for state in states
        ]
        print_table(("NAME", "STATUS", "NODES", "SERVER", "STORE", "AGE"), rows)


def _age(state: ClusterState) -> str:
    seconds = int(time.time() - state.paths.pki.stat().st_ctime) if state.paths.pki.exists() else 0
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


@get.command("components")
@NAME
@click.option("-o", "--output", type=click.Choice(["json", "yaml", "name"]))
@_explained
def get_components(name: str, output: str | None) -> None:
    """List a cluster's components."""
    from bowsprit.cluster.lifecycle import get_cluster

    state = get_cluster(name)
    if output == "name":
        for component in state.components:
            click.echo(f"component/{component['name']}")
    elif output:
        print_structured(state.components, output)
    elif not state.components:
        click.echo(f"cluster/{name} is not running.", err=True)
    else:
        print_table(("NAME", "STATUS", "PID", "RESTARTS", "LAST-EXIT"), list(_component_rows(state)))


@get.command("kubeconfig")
@NAME
@_explained
def get_kubeconfig(name: str) -> None:
    """Print a cluster's admin kubeconfig. It holds a private key."""
    from bowsprit.cluster.lifecycle import get_cluster

    path = get_cluster(name).paths.admin_kubeconfig
    if not path.is_file():
        raise CommandError(
            f"cluster {name!r} has not been started yet", reason="NoKubeconfig", hint=f"bowsprit up --name {name}"
        )
    click.echo(path.read_text(), nl=False)


@click.command()
@click.argument("component", required=False, default="")
@NAME
@click.option("-F", "--follow", is_flag=True, help="Go on printing what is added.")
@click.option("--tail", type=click.IntRange(0), help="Only the last lines.")
@_explained
def logs(component: str, name: str, follow: bool, tail: int | None) -> None:
    """Print a component's log."""
    from bowsprit.cluster.lifecycle import get_cluster, log_file

    path = log_file(get_cluster(name), component)
    file = path.open(errors="replace")
    lines = file.readlines()
    for line in lines if tail is None else lines[max(0, len(lines) - tail) :]:
        click.echo(line, nl=False)
    while follow:
        while line := file.readline():
            click.echo(line, nl=False)
        sys.stdout.flush()
        if path.exists() and path.stat().st_ino != os.fstat(file.fileno()).st_ino:  # rotated
            file.close()
            file = path.open(errors="replace")
        time.sleep(0.2)
    file.close()
