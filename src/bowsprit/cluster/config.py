"""The versioned cluster file: ``apiVersion: bowsprit.dev/v1alpha1``, ``kind: Cluster``.

Unknown fields are errors, so that a misspelt setting never passes silently.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from bowsprit.cluster.errors import ClusterError
from bowsprit.cluster.paths import check_name

API_VERSION: Literal["bowsprit.dev/v1alpha1"] = "bowsprit.dev/v1alpha1"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Taint(_Section):
    """A node taint, as in ``v1.Taint``."""

    key: str = Field(min_length=1)
    value: str = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class NodeGroup(_Section):
    """Simulated nodes that look alike.

    ``cpu``, ``memory`` and ``pods`` are Kubernetes quantities.
    """

    count: Annotated[int, Field(ge=0, le=10_000)] = 1
    prefix: str = Field(default="node", pattern=r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$")
    cpu: str = "8"
    memory: str = "32Gi"
    pods: str = "110"
    labels: dict[str, str] = {}
    taints: list[Taint] = []

    @field_validator("cpu", "memory", "pods", mode="before")
    @classmethod
    def _number_as_text(cls, value: object) -> object:
        return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


class ComponentSettings(_Section):
    """Settings of one component: command-line flags without the dashes, and a configuration object where it has one."""

    flags: dict[str, str | int | bool | list[str]] = {}
    config: dict[str, Any] | None = None


class Components(_Section):
    """Per-component settings, keyed by the upstream component's name in camel case."""

    apiserver: ComponentSettings = ComponentSettings()
    controller_manager: ComponentSettings = Field(default=ComponentSettings(), alias="controllerManager")
    scheduler: ComponentSettings = ComponentSettings()


class Konnectivity(_Section):
    """Whether control-plane traffic to nodes goes through konnectivity agents.

    ``port`` is where agents reach the server, ``admin_port`` serves its metrics and status; 0 takes any free one, kept
    for later starts.
    """

    enabled: bool = False
    agents: Annotated[int, Field(ge=1, le=50)] = 1
    mode: Literal["grpc", "http-connect"] = "grpc"
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    admin_port: Annotated[int, Field(ge=0, le=65535)] = Field(default=0, alias="adminPort")


class Kubelet(_Section):
    """How pods run: ``processes`` runs those whose commands are on this host there, as the user who runs the cluster."""

    processes: bool = False


class Networking(_Section):
    """Address ranges. Nothing is routed there: the nodes are simulated."""

    service_cidr: str = Field(default="10.96.0.0/16", alias="serviceCIDR")
    pod_cidr: str = Field(default="10.244.0.0/16", alias="podCIDR")


class ClusterConfig(_Section):
    """One embedded cluster."""

    api_version: Literal["bowsprit.dev/v1alpha1"] = Field(default=API_VERSION, alias="apiVersion")
    kind: Literal["Cluster"] = "Cluster"
    name: str = "dev"
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    store: str = "sqlite"
    nodes: list[NodeGroup] = [NodeGroup(count=3)]
    networking: Networking = Networking()
    components: Components = Components()
    egress_selector: dict[str, Any] | None = Field(default=None, alias="egressSelector")
    konnectivity: Konnectivity = Konnectivity()
    kubelet: Kubelet = Kubelet()

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        try:
            return check_name(value)
        except ClusterError as exc:
            raise ValueError(exc.message) from exc

    @field_validator("egress_selector")
    @classmethod
    def _egress_selector(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is None:
            return None
        from bowsprit.net.egress.configuration import EgressConfigError, parse

        complete = {"apiVersion": "apiserver.k8s.io/v1beta1", "kind": "EgressSelectorConfiguration", **value}
        try:
            parse(json.dumps(complete).encode())
        except (EgressConfigError, TypeError) as exc:
            raise ValueError(str(exc)) from exc
        return complete

    @model_validator(mode="after")
    def _one_way_out(self) -> Self:
        if self.konnectivity.enabled and self.egress_selector is not None:
            raise ValueError("egressSelector and konnectivity.enabled exclude each other: both say where traffic goes")
        return self

    @field_validator("store")
    @classmethod
    def _store(cls, value: str) -> str:
        if value in ("memory", "sqlite") or (value.startswith("sqlite:") and len(value) > len("sqlite:")):
            return value
        raise ValueError("must be memory, sqlite or sqlite:PATH")

    def node_names(self) -> list[str]:
        """The names of all simulated nodes; numbering goes on across groups with the same prefix."""
        counters: dict[str, int] = {}
        names: list[str] = []
        for group in self.nodes:
            for _ in range(group.count):
                counters[group.prefix] = counters.get(group.prefix, 0) + 1
                names.append(f"{group.prefix}-{counters[group.prefix]}")
        return names

    def with_ports(self, claim: Callable[[int], int], known: ClusterConfig | None) -> ClusterConfig:
        """The same with every port given: 0 becomes the one of ``known``, or what ``claim`` answers for 0."""
        konnectivity = self.konnectivity
        if konnectivity.enabled:
            before = known.konnectivity if known is not None else konnectivity
            ports = {name: getattr(konnectivity, name) or getattr(before, name) for name in ("port", "admin_port")}
            konnectivity = konnectivity.model_copy(update={name: claim(port) for name, port in ports.items()})
        port = claim(self.port or (known.port if known is not None else 0))
        return self.model_copy(update={"port": port, "konnectivity": konnectivity})

    def dump(self) -> bytes:
        """The configuration as JSON with the field names of the file."""
        return self.model_dump_json(by_alias=True, indent=2, exclude_defaults=False).encode()


def parse_config(data: bytes | str, *, origin: str) -> ClusterConfig:
    """Read a cluster file (YAML or JSON).

    Args:
        data: the text.
        origin: where it came from, for messages.

    Raises:
        ClusterError: the text is no YAML, or not a valid cluster file.
    """
    try:
        document = yaml.load(data, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as exc:
        raise ClusterError(f"{origin} is not YAML: {' '.join(str(exc).split())}", reason="InvalidConfig") from exc
    if not isinstance(document, dict):
        raise ClusterError(
            f"{origin} is not a cluster file",
            reason="InvalidConfig",
            hint=f"it must start with 'apiVersion: {API_VERSION}' and 'kind: Cluster'",
        )
    for field, expected in (("apiVersion", API_VERSION), ("kind", "Cluster")):
        if document.get(field) != expected:
            raise ClusterError(
                f"{origin}: {field} is {document.get(field)!r}, not {expected!r}",
                reason="InvalidConfig",
                hint=f"start the file with 'apiVersion: {API_VERSION}' and 'kind: Cluster'",
            )
    try:
        return ClusterConfig.model_validate(document)
    except ValidationError as exc:
        raise ClusterError(f"{origin}: {_describe(exc)}", reason="InvalidConfig", hint="see docs/cluster.md") from exc


def load_config(path: Path) -> ClusterConfig:
    """Read a cluster file from disk.

    Raises:
        ClusterError: the file cannot be read, or is not valid.
    """
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise ClusterError(f"cannot read {path}: {exc.strerror}", reason="ConfigUnreadable") from exc
    return parse_config(data, origin=str(path))


def _describe(error: ValidationError) -> str:
    problems = []
    for item in error.errors(include_url=False):
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in item["loc"]).lstrip(".")
        what = "unknown field" if item["type"] == "extra_forbidden" else item["msg"].removeprefix("Value error, ")
        problems.append(f"{where or 'file'}: {what}")
    return "; ".join(problems)
