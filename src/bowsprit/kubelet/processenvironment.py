"""The environment and command line of a container that runs as a process: env, envFrom, fieldRef, $(VAR)."""

from __future__ import annotations

import os
import re
import sys
from base64 import b64decode
from pathlib import Path
from urllib.parse import urlsplit

from bowsprit.client.resources import CONFIG_MAPS, SECRETS
from bowsprit.client.rest import RestClient
from bowsprit.machinery.errors import NotFoundError
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.machinery.objects import Obj, nested

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")
_KEYED = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


class ProcessProblem(Exception):
    """Why a pod cannot run as a process (yet); the text is for an event."""


def search_path() -> str:
    """Where commands are looked for: beside this interpreter first, so that `bowsprit` is this one."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def field_value(pod: Obj, path: str, address: str) -> str:
    """A fieldRef of the downward API. Raises ProcessProblem."""
    if path in ("status.podIP", "status.hostIP", "status.podIPs", "status.hostIPs"):
        return address
    if match := _KEYED.fullmatch(path):
        return str((pod["metadata"].get(match[1]) or {}).get(match[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        pairs = (pod["metadata"].get(path.partition(".")[2]) or {}).items()
        return "\n".join(f'{key}="{value}"' for key, value in sorted(pairs))
    found = nested(pod, *path.split("."))
    if not isinstance(found, str):
        raise ProcessProblem(f"fieldRef {path} is not supported")
    return found


async def environment(client: RestClient, pod: Obj, container: Obj, address: str) -> dict[str, str]:
    """All variables of a container. Raises ProcessProblem, StatusError, ClientError."""
    server = urlsplit(client.config.server)
    made = {
        "PATH": search_path(),
        "HOME": os.environ.get("HOME", "/"),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "HOSTNAME": pod["metadata"]["name"],
        # No service address can be dialled from this host, so pods get the API server's own.
        "KUBERNETES_SERVICE_HOST": server.hostname or "",
        "KUBERNETES_SERVICE_PORT": str(server.port or 443),
    }
    namespace = pod["metadata"]["namespace"]
    for source in container.get("envFrom") or ():
        for kind, gvr in (("configMapRef", CONFIG_MAPS), ("secretRef", SECRETS)):
            if reference := source.get(kind):
                data = await _data(client, gvr, namespace, reference)
                made |= {f"{source.get('prefix') or ''}{key}": value for key, value in data.items()}
    for entry in container.get("env") or ():
        value = await _value(client, pod, container, entry, address)
        if value is not None:
            made[entry["name"]] = expanded(value, made)
    return made


async def _value(client: RestClient, pod: Obj, container: Obj, entry: Obj, address: str) -> str | None:
    source = entry.get("valueFrom")
    if not source:
        return str(entry.get("value") or "")
    if reference := source.get("fieldRef"):
        return field_value(pod, reference["fieldPath"], address)
    if reference := source.get("resourceFieldRef"):
        group, _, resource = reference["resource"].partition(".")
        return str(nested(container, "resources", group, resource, default="0"))
    for kind, gvr in (("configMapKeyRef", CONFIG_MAPS), ("secretKeyRef", SECRETS)):
        if reference := source.get(kind):
            data = await _data(client, gvr, pod["metadata"]["namespace"], reference)
            if reference["key"] in data:
                return data[reference["key"]]
            if reference.get("optional"):
                return None
            raise ProcessProblem(f"couldn't find key {reference['key']} in {gvr.resource} {reference['name']}")
    raise ProcessProblem(f"env {entry['name']}: valueFrom {', '.join(source)} is not supported")


async def _data(client: RestClient, gvr: GroupVersionResource, namespace: str, reference: Obj) -> dict[str, str]:
    try:
        found = await client.get(gvr, reference["name"], namespace=namespace)
    except NotFoundError as failure:
        if reference.get("optional"):
            return {}
        raise ProcessProblem(failure.message) from failure
    data: dict[str, str] = found.get("data") or {}
    if gvr == SECRETS:
        return {key: b64decode(value).decode("utf-8", "replace") for key, value in data.items()}
    return data


def expanded(text: str, variables: dict[str, str]) -> str:
    """``$(NAME)`` replaced where NAME is known, ``$$`` for one dollar (upstream third_party/forked/golang/expansion)."""

    def replaced(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else variables.get(match[1], match[0])

    return _REFERENCE.sub(replaced, text)
