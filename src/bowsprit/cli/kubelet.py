"""``bowsprit kubelet [run]``: simulated nodes as a process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from bowsprit.cli.controller_manager import client_config, run_loop, until_signalled
from bowsprit.cli.errors import CommandError


@click.command("kubelet")
@click.argument("action", required=False, type=click.Choice(["run"]), metavar="[run]")
@click.option(
    "--kubeconfig", type=click.Path(path_type=Path), help="Kubeconfig of an identity that may act as all nodes."
)
@click.option(
    "--kubeconfig-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder with NODE.kubeconfig per node: every node speaks with its own identity (system:node:NODE).",
)
@click.option("--node-name", "names", multiple=True, metavar="NAME", help="A node; may be repeated.")
@click.option("--nodes", "count", type=click.IntRange(1, 5000), default=None, help="So many nodes: node-0, node-1, …")
@click.option("--node-labels", default="", metavar="K=V,…", help="Labels of every node.")
@click.option("--zones", default="", metavar="A,B,…", help="Zones that the nodes are spread over.")
@click.option("--cpu", default="8", show_default=True, help="CPU capacity of a node.")
@click.option("--memory", default="16Gi", show_default=True, help="Memory capacity of a node.")
@click.option("--max-pods", type=int, default=110, show_default=True, help="Pod capacity of a node.")
@click.option("--address", default="127.0.0.1", show_default=True, help="Address of the endpoint for logs and exec.")
@click.option("--port", type=int, default=0, help="Its HTTPS port; 0 takes any free one.", show_default=True)
@click.option(
    "--tls-cert-file", type=click.Path(path_type=Path), help="Its certificate; without one there is no endpoint."
)
@click.option("--tls-private-key-file", type=click.Path(path_type=Path), help="Its key.")
@click.option("--client-ca-file", type=click.Path(path_type=Path), help="CA of those who may ask for logs and exec.")
@click.option("--kube-api-qps", type=float, default=0.0, help="Requests per second; 0 = unlimited.", show_default=True)
@click.option("--kube-api-burst", type=int, default=100, show_default=True)
def kubelet(**flags: Any) -> None:
    """Run simulated nodes, until interrupted."""
    from bowsprit.client.errors import ConfigError

    if flags["names"] and flags["count"]:
        raise CommandError("--node-name and --nodes exclude each other", reason="InvalidFlag", exit_code=2)
    if flags["kubeconfig"] and flags["kubeconfig_dir"]:
        raise CommandError("--kubeconfig and --kubeconfig-dir exclude each other", reason="InvalidFlag", exit_code=2)
    try:
        run_loop(_serve(flags))
    except ConfigError as exc:
        raise CommandError(str(exc), reason="InvalidConfiguration", hint=exc.hint) from exc


async def _serve(flags: dict[str, Any]) -> None:
    from bowsprit.client.rest import RestClient
    from bowsprit.kubelet.kubelet import Kubelet, KubeletOptions
    from bowsprit.kubelet.node import DEFAULT_CAPACITY

    names = tuple(flags["names"]) or tuple(f"node-{number}" for number in range(flags["count"] or 1))
    capacity = {**DEFAULT_CAPACITY, "cpu": flags["cpu"], "memory": flags["memory"], "pods": str(flags["max_pods"])}
    options = KubeletOptions(
        nodes=names,
        capacity=capacity,
        labels=_labels(flags["node_labels"]),
        zones=tuple(part for part in flags["zones"].split(",") if part),
        bind_address=flags["address"],
        port=flags["port"],
        serving_cert=flags["tls_cert_file"],
        serving_key=flags["tls_private_key_file"],
        client_ca=flags["client_ca_file"],
    )
    given = [flags[name] for name in ("tls_cert_file", "tls_private_key_file", "client_ca_file")]
    if any(given) and not all(given):
        raise CommandError(
            "--tls-cert-file, --tls-private-key-file and --client-ca-file go together",
            reason="InvalidFlag",
            exit_code=2,
        )
    shared = None if flags["kubeconfig_dir"] else RestClient(client_config(flags, "kubelet"))

    def client_of(node: str) -> RestClient:
        if shared is not None:
            return shared
        path = flags["kubeconfig_dir"] / f"{node}.kubeconfig"
        return RestClient(client_config({**flags, "kubeconfig": path}, "kubelet"))

    kubelets = Kubelet(client_of, options)
    await kubelets.start()
    try:
        print(
            f"simulating {len(names)} node(s): {', '.join(names[:5])}{' …' if len(names) > 5 else ''}", file=sys.stderr
        )
        await until_signalled(kubelets.wait())
    finally:
        await kubelets.stop()


def _labels(text: str) -> dict[str, str]:
    result = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not key or not equals:
            raise CommandError(f"--node-labels: {part!r} is not key=value", reason="InvalidFlag", exit_code=2)
        result[key] = value
    return result
