"""The flags of ``bowsprit scheduler``: kube-scheduler's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from bowsprit.cli.goflags import DURATION, FLOAT, INT, IP, LEVELS, PAIRS, SECONDS, UINT, switch

Command = TypeVar("Command", bound=Callable[..., Any])
FILE = click.Path(path_type=Path)

_OPTIONS = [
    click.option("--config", type=FILE, help="KubeSchedulerConfiguration file."),
    click.option("--write-config-to", type=FILE, help="Write the configuration with its defaults here, and exit."),
    click.option("--kubeconfig", type=FILE, help="Kubeconfig file; in a pod, its service account."),
    click.option("--master", default="", help="Address of the API server (overrides the kubeconfig's)."),
    click.option("--bind-address", type=IP, default="0.0.0.0", show_default=True, help="Address of the HTTPS port."),
    click.option("--secure-port", type=INT, default=10259, show_default=True, help="HTTPS port; 0 serves none."),
    click.option("--tls-cert-file", type=FILE, help="Serving certificate (self-signed if not given)."),
    click.option("--tls-private-key-file", type=FILE, help="Its key."),
    click.option("--cert-dir", type=FILE, help="Where a self-signed certificate is kept."),
    click.option("--tls-min-version", default="", metavar="VersionTLS12|VersionTLS13"),
    click.option("--tls-cipher-suites", default="", metavar="NAME,…", help="For TLS 1.2."),
    click.option("--client-ca-file", type=FILE, help="CA of client certificates."),
    click.option("--authentication-kubeconfig", type=FILE, help="Kubeconfig for TokenReviews (default: the client's)."),
    switch("--authentication-skip-lookup", False, hidden=True),
    switch("--authentication-tolerate-lookup-failure", True, "Serve although the cluster's client CAs cannot be read."),
    click.option("--authentication-token-webhook-cache-ttl", type=SECONDS, default="10s", hidden=True),
    click.option("--requestheader-client-ca-file", type=FILE, help="CA of front proxies (default: the cluster's)."),
    click.option("--requestheader-allowed-names", default="", metavar="NAME,…"),
    click.option("--requestheader-username-headers", default="x-remote-user", show_default=True),
    click.option("--requestheader-uid-headers", default=""),
    click.option("--requestheader-group-headers", default="x-remote-group", show_default=True),
    click.option("--requestheader-extra-headers-prefix", default="x-remote-extra-", show_default=True),
    click.option(
        "--authorization-kubeconfig", type=FILE, help="Kubeconfig for SubjectAccessReviews (default: the client's)."
    ),
    click.option(
        "--authorization-always-allow-paths",
        default="/healthz,/readyz,/livez",
        show_default=True,
        help="Paths that are served to everyone.",
    ),
    click.option("--authorization-webhook-cache-authorized-ttl", type=SECONDS, default="10s", hidden=True),
    click.option("--authorization-webhook-cache-unauthorized-ttl", type=SECONDS, default="10s", hidden=True),
    switch("--leader-elect", None, "Elect a leader before scheduling."),
    click.option("--leader-elect-lease-duration", type=DURATION, default=None, metavar="DURATION"),
    click.option("--leader-elect-renew-deadline", type=DURATION, default=None, metavar="DURATION"),
    click.option("--leader-elect-retry-period", type=DURATION, default=None, metavar="DURATION"),
    click.option("--leader-elect-resource-lock", default=None, hidden=True),
    click.option("--leader-elect-resource-name", default=None, metavar="NAME"),
    click.option("--leader-elect-resource-namespace", default=None, metavar="NAMESPACE"),
    click.option("--kube-api-qps", type=FLOAT, default=50.0, show_default=True, help="Ignored with --config."),
    click.option("--kube-api-burst", type=INT, default=100, show_default=True, help="Ignored with --config."),
    click.option("--kube-api-content-type", default="", hidden=True),
    switch("--profiling", None, hidden=True),
    switch("--contention-profiling", None, hidden=True),
    click.option("--pod-max-in-unschedulable-pods-duration", type=SECONDS, default="5m", show_default=True),
    click.option(
        "--plugin-timeout",
        type=SECONDS,
        default="10s",
        show_default=True,
        help="How long a plugin of yours may take at one point of a cycle.",
    ),
    click.option("--feature-gates", multiple=True, metavar="A=true,B=false"),
    click.option("--emulated-version", default="", hidden=True),
    click.option("--show-hidden-metrics-for-version", default="", hidden=True),
    click.option("--disabled-metrics", default="", hidden=True),
    click.option("--allow-metric-labels", type=PAIRS, default="", hidden=True),
    *(
        click.option(f"--{name}", default="", hidden=True)  # nothing here that they could set
        for name in (
            "allow-metric-labels-manifest",
            "log-text-info-buffer-size",
            "log-text-split-stream",
            "min-compatibility-version",
        )
    ),
    click.option("--http2-max-streams-per-connection", type=INT, default=0, hidden=True),
    switch("--disable-http2-serving", False, hidden=True),
    switch("--permit-address-sharing", False, hidden=True),
    switch("--permit-port-sharing", False, hidden=True),
    click.option(
        "--version", "show_version", is_flag=False, flag_value="true", default="", help="Print the version and exit."
    ),
    click.option("--logging-format", default="text", hidden=True),
    click.option("--log-flush-frequency", type=SECONDS, default="5s", hidden=True),
    click.option("--vmodule", type=LEVELS, default="", hidden=True),
    click.option("-v", "--v", "verbosity", type=UINT, default=0, metavar="LEVEL", help="Log level."),
]


def run_options(command: Command) -> Command:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def check_flags(flags: dict[str, Any]) -> None:
    """What is wrong with values beyond their form. Raises CommandError with kube-scheduler's messages."""
    import re

    from bowsprit.cli.errors import CommandError

    port, emulated, hidden = flags["secure_port"], flags["emulated_version"], flags["show_hidden_metrics_for_version"]
    problem = ""
    if port > 65535:
        problem = f"--secure-port {port} must be between 1 and 65535, inclusive. It cannot be turned off with 0"
    elif port < 0:
        problem = f"--secure-port {port} must be between 0 and 65535, inclusive. 0 for turning off secure port"
    elif emulated:
        found = re.fullmatch(r"(?:kube[:=])?v?(\d+)\.(\d+)(?:\.\d+)?", emulated)
        if found is None:
            problem = f'could not parse "{emulated}" as version'
        elif not (1, 33) <= (int(found[1]), int(found[2])) <= (1, 36):
            problem = f"emulation version {emulated} is not between [1.33, 1.36.0]"
    elif hidden not in ("", "1.35"):
        problem = (
            f'metrics.showHiddenMetricsForVersion: Invalid value: "{hidden}": must be omitted or have the value '
            "'1.35'; only the previous minor version is allowed"
        )
    elif flags["logging_format"] != "text":
        problem = f'format: Invalid value: "{flags["logging_format"]}": Unsupported log format'
    elif flags["log_flush_frequency"] <= 0:
        problem = f'flushFrequency: Invalid value: "{flags["log_flush_frequency"]:g}s": Must be greater than zero'
    if problem:
        raise CommandError(problem, reason="InvalidFlag", hint="see bowsprit scheduler --help")
