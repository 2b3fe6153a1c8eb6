"""The settings of `bowsprit apiserver`, named as kube-apiserver's flags.

Each field is a flag: `client_ca_file` is `--client-ca-file`. The command line and the cluster file are both read through
`from_flags`, so that they know the same flags and refuse the same values.
"""

# ruff: noqa: RUF009  (`_flag` only makes a dataclass field)

from __future__ import annotations

import dataclasses
import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from bowsprit.apiserver.authorization.modes import MODES
from bowsprit.controlplane.admission.plugins import check_names
from bowsprit.machinery.time import parse_duration

_FEWEST_SERVICE_ADDRESSES = 8


class OptionsError(ValueError):
    """Flags that cannot be used; `problems` has one text each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]")
        self.problems = problems


def _flag(default: Any, text: str, *, kind: str = "text") -> Any:
    return field(default=default, metadata={"help": text, "kind": kind})


def default_cert_dir() -> Path:
    """Where self-made certificates go: `$XDG_STATE_HOME/bowsprit/apiserver`."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "bowsprit" / "apiserver"


@dataclass(frozen=True, slots=True, kw_only=True)
class APIServerOptions:
    """See the module's docstring. Files are paths, lists are tuples, durations are seconds."""

    secure_port: int = _flag(6443, "Port of HTTPS; 0 takes any free one.", kind="int")
    bind_address: str = _flag("127.0.0.1", "Address to listen on; 0.0.0.0 is every address.")
    advertise_address: str = _flag("", "Address in the kubernetes Service's endpoints; default: the bind address.")
    external_hostname: str = _flag("", "Host name in addresses given to clients.")
    store: str = _flag("memory", "Where objects live: memory, sqlite or sqlite:PATH.")

    cert_dir: Path | None = _flag(
        None, "Folder of self-made certificates, keys and the default SQLite file.", kind="path"
    )
    tls_cert_file: Path | None = _flag(
        None, "Serving certificate (with its chain); self-made when not given.", kind="path"
    )
    tls_private_key_file: Path | None = _flag(None, "Key of --tls-cert-file.", kind="path")
    client_ca_file: Path | None = _flag(None, "Authorities whose certificates authenticate clients.", kind="path")
    token_auth_file: Path | None = _flag(
        None, 'CSV file of static tokens: token,user,uid,"group1,group2".', kind="path"
    )
    anonymous_auth: bool = _flag(True, "Serve requests without credentials as system:anonymous.", kind="bool")

    service_account_issuer: tuple[str, ...] = _flag(
        ("https://kubernetes.default.svc",),
        "Issuer of ServiceAccount tokens; further ones are only believed.",
        kind="list",
    )
    service_account_key_file: tuple[Path, ...] = _flag(
        (), "Keys that verify ServiceAccount tokens; default: that of the signing key.", kind="paths"
    )
    service_account_signing_key_file: Path | None = _flag(
        None, "Key that signs ServiceAccount tokens; self-made when not given.", kind="path"
    )
    service_account_jwks_uri: str = _flag("", "Address of the key set in the discovery document.")
    service_account_extend_token_expiration: bool = _flag(
        True, "Tokens of pods live a year instead of an hour.", kind="bool"
    )
    api_audiences: tuple[str, ...] = _flag((), "Audiences of this server; default: the issuers.", kind="list")

    requestheader_client_ca_file: Path | None = _flag(None, "Authority of front proxies' certificates.", kind="path")
    requestheader_allowed_names: tuple[str, ...] = _flag(
        (), "Common names of front proxies; none allows all.", kind="list"
    )
    requestheader_username_headers: tuple[str, ...] = _flag(
        ("X-Remote-User",), "Headers of the user name.", kind="list"
    )
    requestheader_uid_headers: tuple[str, ...] = _flag((), "Headers of the user's uid.", kind="list")
    requestheader_group_headers: tuple[str, ...] = _flag(("X-Remote-Group",), "Headers of the groups.", kind="list")
    requestheader_extra_headers_prefix: tuple[str, ...] = _flag(
        ("X-Remote-Extra-",), "Beginnings of the headers of extra values.", kind="list"
    )

    authorization_mode: tuple[str, ...] = _flag(
        ("Node", "RBAC"), f"Authorizers in order: {', '.join(MODES)}.", kind="list"
    )
    enable_admission_plugins: tuple[str, ...] = _flag((), "Admission plugins to add to the default ones.", kind="list")
    disable_admission_plugins: tuple[str, ...] = _flag((), "Default admission plugins to leave out.", kind="list")

    service_cluster_ip_range: str = _flag("10.96.0.0/16", "Range of ClusterIPs; a second one after a comma.")
    service_node_port_range: str = _flag("30000-32767", "Range of node ports.")
    allow_privileged: bool = _flag(True, "Allow privileged containers.", kind="bool")
    event_ttl: float = _flag(3600.0, "How long Events are kept.", kind="duration")

    kubelet_client_certificate: Path | None = _flag(None, "Certificate that is shown to kubelets.", kind="path")
    kubelet_client_key: Path | None = _flag(None, "Key of --kubelet-client-certificate.", kind="path")
    kubelet_certificate_authority: Path | None = _flag(
        None, "Authority of kubelets' certificates; not verified when not given.", kind="path"
    )
    proxy_client_cert_file: Path | None = _flag(None, "Certificate that the aggregator shows to others.", kind="path")
    proxy_client_key_file: Path | None = _flag(None, "Key of --proxy-client-cert-file.", kind="path")
    enable_aggregator_routing: bool = _flag(False, "Aggregator calls endpoint addresses, not ClusterIPs.", kind="bool")
    egress_selector_config_file: Path | None = _flag(
        None, "EgressSelectorConfiguration: ways to the cluster.", kind="path"
    )

    max_requests_inflight: int = _flag(400, "Most reading requests at a time.", kind="int")
    max_mutating_requests_inflight: int = _flag(200, "Most writing requests at a time.", kind="int")
    request_timeout: float = _flag(60.0, "Most time for a request that is no watch.", kind="duration")
    shutdown_delay_duration: float = _flag(
        0.0, "Time between failing /readyz and the end of listening.", kind="duration"
    )

    @classmethod
    def from_flags(cls, flags: Mapping[str, Any]) -> APIServerOptions:
        """Options from flag names (without dashes in front) and values; a None value is the default.

        Raises:
            OptionsError: a flag is unknown, or its value is not of its kind.
        """
        known = {item.name: item for item in dataclasses.fields(cls)}
        given: dict[str, Any] = {}
        problems: list[str] = []
        for flag, value in flags.items():
            name = flag.replace("-", "_")
            if name not in known:
                problems.append(f"unknown flag: --{flag}")
            elif value is not None:
                try:
                    given[name] = _read(known[name].metadata["kind"], value)
                except ValueError as exc:
                    problems.append(f'invalid argument "{value}" for "--{flag.replace("_", "-")}" flag: {exc}')
        if problems:
            raise OptionsError(problems)
        return cls(**given)

    def shown(self) -> dict[str, str]:
        """The flags as /flagz shows them, by name."""
        shown = {}
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if isinstance(value, tuple | list):
                text = f"[{','.join(map(str, value))}]"
            elif isinstance(value, bool):
                text = str(value).lower()
            elif item.metadata["kind"] == "duration":
                text = f"{value:g}s"
            else:
                text = "" if value is None else str(value)
            shown[item.name.replace("_", "-")] = text
        return shown

    def check(self) -> None:
        """Raise OptionsError for values that do not fit together (upstream ServerRunOptions.Validate)."""
        problems = [*self._check_numbers(), *self._check_pairs(), *self._check_ranges()]
        unknown = [mode for mode in self.authorization_mode if mode not in MODES]
        problems += [f'authorization-mode "{mode}" is not a valid mode' for mode in unknown]
        if not self.authorization_mode:
            problems.append("at least one authorization-mode must be passed")
        for mode in dict.fromkeys(self.authorization_mode):
            if (count := self.authorization_mode.count(mode)) > 1:
                problems.append(f'authorization-mode "{mode}" has mode specified {count} times')
        problems += check_names(self.enable_admission_plugins, self.disable_admission_plugins)
        for issuer in self.service_account_issuer:
            if not issuer:
                problems.append("service-account-issuer must not be an empty string")
            elif ":" in issuer and not issuer.partition(":")[0].isalpha():
                problems.append("service-account-issuer contained a ':' but was not a valid URL")
        if problems:
            raise OptionsError(problems)

    def _check_numbers(self) -> list[str]:
        problems = []
        if not 0 <= self.secure_port <= 65535:
            problems.append(
                f"--secure-port {self.secure_port} must be between 0 and 65535, inclusive; 0 takes a free port"
            )
        for name in ("max_requests_inflight", "max_mutating_requests_inflight"):
            if getattr(self, name) < 0:
                problems.append(f"--{name.replace('_', '-')} can not be negative value")
        for name in ("request_timeout", "shutdown_delay_duration"):
            if getattr(self, name) < 0:
                problems.append(f"--{name.replace('_', '-')} can not be negative value")
        for name in ("bind_address", "advertise_address"):
            value = getattr(self, name)
            if value and not _is_address(value):
                problems.append(f'invalid argument "{value}" for "--{name.replace("_", "-")}" flag: not an IP address')
        return problems

    def _check_pairs(self) -> list[str]:
        problems = []
        if (self.tls_cert_file is None) != (self.tls_private_key_file is None):
            problems.append("--tls-cert-file and --tls-private-key-file must be given together")
        if (self.proxy_client_cert_file is None) != (self.proxy_client_key_file is None):
            problems.append("--proxy-client-cert-file and --proxy-client-key-file must be specified together")
        if (self.kubelet_client_certificate is None) != (self.kubelet_client_key is None):
            problems.append("--kubelet-client-certificate and --kubelet-client-key must be specified together")
        if self.requestheader_client_ca_file is not None and not self.requestheader_username_headers:
            problems.append("requestheader-username-headers must be set with requestheader-client-ca-file")
        files = [
            item.name
            for item in dataclasses.fields(self)
            if item.metadata["kind"] == "path" and item.name != "cert_dir"
        ]
        for name in files:
            path: Path | None = getattr(self, name)
            if path is not None and not path.is_file():
                problems.append(f"open {path}: no such file or directory (--{name.replace('_', '-')})")
        for path in self.service_account_key_file:
            if not path.is_file():
                problems.append(f"open {path}: no such file or directory (--service-account-key-file)")
        return problems

    def _check_ranges(self) -> list[str]:
        problems = []
        texts = [text.strip() for text in self.service_cluster_ip_range.split(",")]
        if len(texts) > 2:
            problems.append("--service-cluster-ip-range must not contain more than two entries")
        for text in texts:
            try:
                network = ipaddress.ip_network(text)
            except ValueError:
                problems.append(f'service-cluster-ip-range "{text}" is not a valid cidr')
                continue
            if network.num_addresses < _FEWEST_SERVICE_ADDRESSES:
                problems.append(
                    f"the service cluster IP range must be at least {_FEWEST_SERVICE_ADDRESSES} IP addresses: {text}"
                )
        try:
            first, last = self.node_ports
        except ValueError as exc:
            problems.append(
                f'invalid argument "{self.service_node_port_range}" for "--service-node-port-range" flag: {exc}'
            )
        else:
            if not 0 < first <= last <= 65535:
                problems.append(f"invalid service node port range: {self.service_node_port_range}")
        return problems

    # -- what follows from the flags -----------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """The folder of self-made files."""
        return self.cert_dir or default_cert_dir()

    @property
    def node_ports(self) -> tuple[int, int]:
        """First and last node port. Raises ValueError."""
        first, dash, last = self.service_node_port_range.partition("-")
        if not dash:
            raise ValueError("expected hyphen in port range")
        return int(first), int(last)

    @property
    def audiences(self) -> tuple[str, ...]:
        """The server's own audiences."""
        return self.api_audiences or self.service_account_issuer

    @property
    def proxy_client_pair(self) -> tuple[Path, Path] | None:
        """Certificate and key of the aggregator, None without."""
        if self.proxy_client_cert_file is None or self.proxy_client_key_file is None:
            return None
        return self.proxy_client_cert_file, self.proxy_client_key_file

    @property
    def anonymous(self) -> bool:
        """Whether anonymous requests are served: never together with AlwaysAllow (upstream resets the flag)."""
        return self.anonymous_auth and "AlwaysAllow" not in self.authorization_mode

    @property
    def advertised(self) -> str:
        """The address for clients: a server that listens on no address of its own names the host's (as upstream does)."""
        if self.advertise_address:
            return self.advertise_address
        address = ipaddress.ip_address(self.bind_address)
        if address.is_unspecified or address.is_loopback:
            return _host_address() or "127.0.0.1"
        return self.bind_address


@cache
def _host_address() -> str:
    """The address from which the host reaches others; "" when it has no route. No packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737): only the route counts
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _read(kind: str, value: Any) -> Any:
    """A flag's value from text, or from what a cluster file may hold. Raises ValueError."""
    match kind:
        case "bool":
            if isinstance(value, bool):
                return value
            text = str(value).lower()
            if text not in ("true", "false", "1", "0", "t", "f"):
                raise ValueError(f'strconv.ParseBool: parsing "{value}": invalid syntax')
            return text in ("true", "1", "t")
        case "int":
            return int(value)
        case "duration":
            return float(value) if isinstance(value, int | float) else parse_duration(str(value)) / 1e9
        case "path":
            return Path(str(value)).expanduser()
        case "list" | "paths":
            items = value if isinstance(value, list | tuple) else [value]
            texts = tuple(part.strip() for item in items for part in str(item).split(",") if part.strip())
            return tuple(Path(text).expanduser() for text in texts) if kind == "paths" else texts
        case _:
            return str(value)
