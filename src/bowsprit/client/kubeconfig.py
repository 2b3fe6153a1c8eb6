"""Reading kubeconfig files as kubectl does (client-go tools/clientcmd).

``--kubeconfig`` names the only file; otherwise ``$KUBECONFIG`` is a list whose files are merged, the first to set a value
or an entry winning; otherwise ``~/.kube/config``. Relative paths in a file are relative to that file.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from bowsprit.client.config import RestConfig
from bowsprit.client.errors import ConfigError
from bowsprit.machinery.objects import Obj

SECTIONS = {"clusters": "cluster", "contexts": "context", "users": "user"}
_PATH_FIELDS = {
    "clusters": ("certificate-authority",),
    "users": ("client-certificate", "client-key", "tokenFile"),
    "contexts": (),
}
_MAX_FILE = 16 * 1024 * 1024


class KubeconfigError(ConfigError):
    """A kubeconfig that cannot be read, or lacks what was asked for."""


@dataclass(slots=True)
class Kubeconfig:
    """The merged configuration: entries by name, without their wrappers."""

    clusters: dict[str, Obj] = field(default_factory=dict)
    contexts: dict[str, Obj] = field(default_factory=dict)
    users: dict[str, Obj] = field(default_factory=dict)
    current_context: str = ""

    @classmethod
    def load(cls, explicit: Path | str | None = None, environ: Mapping[str, str] = os.environ) -> Kubeconfig:
        """Read and merge the files. A missing file counts as empty unless it was named explicitly."""
        if explicit is not None and not Path(explicit).exists():
            raise KubeconfigError(f"kubeconfig {explicit} does not exist", hint="check --kubeconfig")
        merged = cls()
        for path in kubeconfig_paths(explicit, environ):
            document = read_document(path)
            merged.current_context = merged.current_context or str(document.get("current-context") or "")
            for section in SECTIONS:
                target: dict[str, Obj] = getattr(merged, section)
                for name, entry in entries(document, section, path).items():
                    target.setdefault(name, _resolved(section, entry, path.parent))
        return merged

    def rest_config(self, context: str | None = None) -> RestConfig:
        """The settings of a context (the current one by default). Raises KubeconfigError."""
        name = context or self.current_context
        if not name:
            raise KubeconfigError(
                "no context is selected: invalid configuration: no configuration has been provided",
                hint="kubectl config use-context NAME, or start a cluster with: bowsprit up",
            )
        if name not in self.contexts:
            known = ", ".join(sorted(self.contexts)) or "none"
            raise KubeconfigError(f'context "{name}" does not exist', hint=f"known contexts: {known}")
        chosen = self.contexts[name]
        cluster_name, user_name = str(chosen.get("cluster") or ""), str(chosen.get("user") or "")
        if cluster_name not in self.clusters:
            raise KubeconfigError(f'context "{name}": cluster "{cluster_name}" does not exist')
        if user_name and user_name not in self.users:
            raise KubeconfigError(f'context "{name}": auth info "{user_name}" does not exist')
        return _rest_config(self.clusters[cluster_name], self.users.get(user_name, {}))

    def namespace(self, context: str | None = None) -> str:
        """The context's namespace, ``default`` where it has none."""
        return str(self.contexts.get(context or self.current_context, {}).get("namespace") or "default")


def kubeconfig_paths(explicit: Path | str | None = None, environ: Mapping[str, str] = os.environ) -> list[Path]:
    """The files that count, in order of precedence, each once."""
    if explicit is not None:
        return [Path(explicit)]
    listed = [Path(part) for part in environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    if listed:
        return list(dict.fromkeys(listed))
    home = environ.get("HOME") or os.path.expanduser("~")
    return [Path(home) / ".kube" / "config"]


def read_document(path: Path) -> Obj:
    """One file's content; {} for a missing or empty file."""
    try:
        if path.stat().st_size > _MAX_FILE:
            raise KubeconfigError(f"{path}: larger than {_MAX_FILE} bytes, not a kubeconfig")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as exc:
        raise KubeconfigError(f"{path}: {exc}") from exc
    try:
        document = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except yaml.YAMLError as exc:
        raise KubeconfigError(f"{path}: not valid YAML: {exc}") from exc
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise KubeconfigError(f"{path}: a kubeconfig is a mapping, this is a {type(document).__name__}")
    return document


def entries(document: Obj, section: str, path: Path) -> dict[str, Obj]:
    """``[{name, cluster: {...}}]`` as a dict by name; the first of equal names counts."""
    found: dict[str, Obj] = {}
    listed = document.get(section) or []
    if not isinstance(listed, list):
        raise KubeconfigError(f"{path}: {section} must be a list")
    for item in listed:
        body = item.get(SECTIONS[section]) or {} if isinstance(item, dict) else None
        if not isinstance(body, dict) or not item.get("name"):
            raise KubeconfigError(f"{path}: each of {section} needs a name and a {SECTIONS[section]} mapping")
        found.setdefault(str(item["name"]), body)
    return found


def render(
    name: str,
    *,
    server: str,
    ca_pem: bytes = b"",
    cert_pem: bytes = b"",
    key_pem: bytes = b"",
    token: str = "",
) -> Obj:
    """A stand-alone kubeconfig document whose context, cluster and user are all called ``name``."""
    cluster: Obj = {"server": server}
    if ca_pem:
        cluster["certificate-authority-data"] = base64.b64encode(ca_pem).decode()
    user: Obj = {}
    if cert_pem:
        user["client-certificate-data"] = base64.b64encode(cert_pem).decode()
        user["client-key-data"] = base64.b64encode(key_pem).decode()
    if token:
        user["token"] = token
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
        "users": [{"name": name, "user": user}],
    }


def _resolved(section: str, entry: Obj, folder: Path) -> Obj:
    entry = dict(entry)
    for name in _PATH_FIELDS[section]:
        if entry.get(name):
            entry[name] = str(folder / str(entry[name]))  # an absolute right side wins
    command = (entry.get("exec") or {}).get("command") if section == "users" else None
    if command and os.sep in command:  # as upstream: a bare name is looked up in PATH
        entry["exec"] = {**entry["exec"], "command": str(folder / command)}
    return entry


def _pem(entry: Obj, name: str) -> bytes:
    """``<name>-data`` (base64), which wins as in client-go, else the file ``<name>``."""
    data = entry.get(f"{name}-data")
    if data:
        try:
            return base64.b64decode(str(data), validate=True)
        except binascii.Error as exc:
            raise KubeconfigError(f"{name}-data: not base64 ({exc})") from exc
    path = entry.get(name)
    if not path:
        return b""
    try:
        return Path(str(path)).read_bytes()
    except OSError as exc:
        raise KubeconfigError(f"unable to read {name} {path}: {exc.strerror}") from exc


def _rest_config(cluster: Obj, user: Obj) -> RestConfig:
    server = str(cluster.get("server") or "")
    if not server:
        raise KubeconfigError("the cluster entry has no server")
    if "://" not in server:
        server = f"https://{server}"
    insecure = bool(cluster.get("insecure-skip-tls-verify"))
    ca_data = _pem(cluster, "certificate-authority")
    if insecure and ca_data:
        raise KubeconfigError("specifying a root certificates file with the insecure flag is not allowed")
    certificate, key = _pem(user, "client-certificate"), _pem(user, "client-key")
    if bool(certificate) != bool(key):
        raise KubeconfigError("a client certificate needs its key, and a key its certificate")
    token_file = user.get("tokenFile")
    return RestConfig(
        server=server.rstrip("/"),
        ca_data=ca_data,
        insecure_skip_tls_verify=insecure,
        tls_server_name=str(cluster.get("tls-server-name") or ""),
        client_certificate_data=certificate,
        client_key_data=key,
        token=str(user.get("token") or ""),
        token_file=Path(token_file) if token_file else None,
        username=str(user.get("username") or ""),
        password=str(user.get("password") or ""),
        exec_config=_with_cluster_info(user["exec"], cluster) if user.get("exec") else None,
        proxy_url=str(cluster.get("proxy-url") or ""),
        disable_compression=bool(cluster.get("disable-compression")),
    )


def _with_cluster_info(exec_config: Obj, cluster: Obj) -> Obj:
    """What an exec plugin with ``provideClusterInfo`` is told about the cluster (client.authentication.k8s.io Cluster)."""
    if not exec_config.get("provideClusterInfo"):
        return exec_config
    names = ("server", "tls-server-name", "insecure-skip-tls-verify", "proxy-url", "disable-compression")
    info = {name: cluster[name] for name in names if cluster.get(name)}
    ca_data = _pem(cluster, "certificate-authority")
    if ca_data:
        info["certificate-authority-data"] = base64.b64encode(ca_data).decode()
    for extension in cluster.get("extensions") or []:
        if extension.get("name") == "client.authentication.k8s.io/exec":
            info["config"] = extension.get("extension")
    return {**exec_config, "_cluster": info}
