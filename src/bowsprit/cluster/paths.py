"""Where a cluster keeps its files (XDG base directories; ``BOWSPRIT_HOME`` overrides them all)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from bowsprit.cluster.errors import ClusterError

_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


def state_home(environ: dict[str, str] | None = None) -> Path:
    """The folder that holds one folder per cluster.

    ``$BOWSPRIT_HOME/clusters``, else ``$XDG_STATE_HOME/bowsprit/clusters``, else ``~/.local/state/bowsprit/clusters``.
    """
    env = os.environ if environ is None else environ
    if home := env.get("BOWSPRIT_HOME"):
        return Path(home).expanduser() / "clusters"
    base = env.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "bowsprit" / "clusters"


def check_name(name: str) -> str:
    """Return a cluster's name if it can name a folder and a kubeconfig context.

    Raises:
        ClusterError: the name is not a DNS-1123 label.
    """
    if not name or len(name) > 40 or not set(name) <= _NAME_CHARACTERS or name[0] == "-" or name[-1] == "-":
        raise ClusterError(
            f"{name!r} is not a cluster name",
            reason="InvalidName",
            hint="use lower-case letters, digits and '-', at most 40 characters, for example 'dev'",
        )
    return name


@dataclass(frozen=True, slots=True)
class ClusterPaths:
    """The files of one cluster, below ``root``."""

    root: Path

    @classmethod
    def of(cls, name: str) -> ClusterPaths:
        return cls(state_home() / check_name(name))

    @property
    def config(self) -> Path:
        """The configuration that the cluster runs with, written by ``up``."""
        return self.root / "cluster.json"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def database(self) -> Path:
        return self.root / "state.db"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def pods(self) -> Path:
        """The volumes of pods that run as processes."""
        return self.root / "pods"

    @property
    def kubeconfigs(self) -> Path:
        """One kubeconfig per component, and ``admin.conf``."""
        return self.root / "kubeconfigs"

    @property
    def egress(self) -> Path:
        """The API server's EgressSelectorConfiguration, if its traffic does not go directly."""
        return self.root / "egress.json"

    @property
    def konnectivity_socket(self) -> Path:
        return self.root / "konnectivity.sock"

    @property
    def admin_kubeconfig(self) -> Path:
        return self.kubeconfigs / "admin.conf"

    @property
    def lock(self) -> Path:
        """Locked by the supervisor for as long as it lives; holds its process id."""
        return self.root / "supervisor.lock"

    @property
    def status(self) -> Path:
        """What the supervisor last knew of its components."""
        return self.root / "status.json"

    @property
    def merged(self) -> Path:
        """The user's kubeconfig file that ``up`` merged the context into, so that ``delete`` finds it again."""
        return self.root / "merged-kubeconfig"

    def make(self) -> None:
        """Create the folders, readable by the owner alone."""
        for folder in (self.root, self.pki, self.logs, self.kubeconfigs):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
