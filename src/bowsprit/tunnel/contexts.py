"""The kubeconfig context of a tunnel: made, or changed in place, and undone exactly once.

What is needed for undoing is known before anything is changed, so that it can be written down first and whoever finds the
note of a process that was killed can undo its change. Undoing touches only what still carries this tunnel's address.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bowsprit.client.kubeconfig import Kubeconfig, KubeconfigError, kubeconfig_paths
from bowsprit.client.kubeconfig_edit import KubeconfigFile


@dataclass(frozen=True, slots=True)
class ContextChange:
    """One change. ``previous`` is the proxy-url that was there before, None for none and for a copied context."""

    context: str
    source: str
    proxy_url: str
    files: tuple[str, ...]
    previous: str | None = None

    @classmethod
    def plan(cls, source: str, proxy_url: str, *, in_place: bool, kubeconfig: Path | None) -> ContextChange:
        """Look at what will be changed; changes nothing.

        Raises:
            KubeconfigError: there is no such context.
        """
        files = tuple(str(path.absolute()) for path in kubeconfig_paths(kubeconfig))
        loaded = Kubeconfig.load(kubeconfig)
        loaded.rest_config(source)
        if not in_place:
            return cls(f"{source}-tunnel", source, proxy_url, files)
        cluster = loaded.clusters[str(loaded.contexts[source]["cluster"])]
        return cls(source, source, proxy_url, files, cluster.get("proxy-url"))

    @property
    def in_place(self) -> bool:
        """Whether the context itself is changed."""
        return self.context == self.source

    def apply(self) -> Path:
        """Change the kubeconfig; answers the file that was changed."""
        change = {"proxy-url": self.proxy_url}
        if self.in_place:
            self._file().change_cluster(self.context, change)
            return Path(self.files[0])
        return self._file().copy_context(self.source, self.context, change)

    def undo(self) -> bool:
        """Put back what was there; False when somebody else has changed or removed it since."""
        if not self.in_place:
            return self._file().remove_copy(self.context, {"proxy-url": self.proxy_url})
        try:
            return self._file().restore_cluster(
                self.context, {"proxy-url": self.proxy_url}, {"proxy-url": self.previous}
            )
        except KubeconfigError:
            return False

    def to_facts(self) -> dict[str, Any]:
        """For the record; see `from_facts`."""
        return {
            "context": self.context,
            "source": self.source,
            "proxyURL": self.proxy_url,
            "files": list(self.files),
            "previous": self.previous,
        }

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> ContextChange:
        """Read what `to_facts` wrote."""
        return cls(facts["context"], facts["source"], facts["proxyURL"], tuple(facts["files"]), facts["previous"])

    def _file(self) -> KubeconfigFile:
        return KubeconfigFile(environ={"KUBECONFIG": os.pathsep.join(self.files)})
