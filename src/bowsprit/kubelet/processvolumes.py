"""The volumes of a pod that runs as processes, as folders: Secrets, ConfigMaps, projected tokens, the downward API, emptyDir.

Files are replaced atomically and follow their objects; tokens are renewed when a fifth of their life is left, as the kubelet
does it. Other kinds of volumes are refused.
"""

from __future__ import annotations

import os
import time
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path

from bowsprit.client.resources import CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS
from bowsprit.client.rest import RestClient
from bowsprit.kubelet.processenvironment import ProcessProblem, field_value
from bowsprit.machinery.errors import NotFoundError
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.time import parse_time

_RENEW_AT = 0.8  # of a token's life
_TOKEN_SECONDS = 3600


class ProcessVolumes:
    """The volumes of one pod below a folder."""

    def __init__(
        self, client: RestClient, pod: Obj, folder: Path, address: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._client = client
        self._pod = pod
        self._folder = folder
        self._address = address
        self._clock = clock
        self._tokens: dict[tuple[str, str], tuple[float, bytes]] = {}

    def path(self, volume: str) -> Path:
        """The folder of a volume."""
        return self._folder / volume

    async def write(self) -> None:
        """Makes all volumes, or brings them up to date. Raises ProcessProblem, StatusError, ClientError."""
        for volume in self._pod["spec"].get("volumes") or ():
            path = self.path(volume["name"])
            if "emptyDir" in volume:
                path.mkdir(parents=True, exist_ok=True, mode=0o700)
                continue
            _write_all(path, await self._content(volume))

    async def _content(self, volume: Obj) -> dict[str, bytes]:
        if secret := volume.get("secret"):
            return await self._secret({**secret, "name": secret["secretName"]})
        if config := volume.get("configMap"):
            return await self._config_map(config)
        if downward := volume.get("downwardAPI"):
            return self._downward(downward)
        if projected := volume.get("projected"):
            found: dict[str, bytes] = {}
            for source in projected.get("sources") or ():
                if secret := source.get("secret"):
                    found |= await self._secret(secret)
                elif config := source.get("configMap"):
                    found |= await self._config_map(config)
                elif downward := source.get("downwardAPI"):
                    found |= self._downward(downward)
                elif token := source.get("serviceAccountToken"):
                    found[token["path"]] = await self._token(token)
            return found
        kind = next((key for key in volume if key != "name"), "unknown")
        raise ProcessProblem(
            f'volume "{volume["name"]}" is of kind {kind}, which pods that run as processes cannot have'
        )

    async def _secret(self, source: Obj) -> dict[str, bytes]:
        found = await self._object(SECRETS, source)
        return _chosen({key: b64decode(value) for key, value in (found.get("data") or {}).items()}, source)

    async def _config_map(self, source: Obj) -> dict[str, bytes]:
        found = await self._object(CONFIG_MAPS, source)
        data = {key: value.encode() for key, value in (found.get("data") or {}).items()}
        data |= {key: b64decode(value) for key, value in (found.get("binaryData") or {}).items()}
        return _chosen(data, source)

    async def _object(self, gvr: GroupVersionResource, source: Obj) -> Obj:
        try:
            return await self._client.get(gvr, source["name"], namespace=self._pod["metadata"]["namespace"])
        except NotFoundError as failure:
            if source.get("optional"):
                return {}
            raise ProcessProblem(f"{failure.message}") from failure

    def _downward(self, source: Obj) -> dict[str, bytes]:
        found = {}
        for item in source.get("items") or ():
            if reference := item.get("fieldRef"):
                found[item["path"]] = field_value(self._pod, reference["fieldPath"], self._address).encode()
        return found

    async def _token(self, source: Obj) -> bytes:
        key = (source.get("audience") or "", source["path"])
        renew, token = self._tokens.get(key, (0.0, b""))
        if self._clock() < renew:
            return token
        meta = self._pod["metadata"]
        wanted = int(source.get("expirationSeconds") or _TOKEN_SECONDS)
        bound = {"kind": "Pod", "apiVersion": "v1", "name": meta["name"], "uid": meta["uid"]}
        spec: Obj = {"expirationSeconds": wanted, "boundObjectRef": bound}
        if key[0]:
            spec["audiences"] = [key[0]]
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        made = await self._client.create(
            SERVICE_ACCOUNTS,
            request,
            namespace=meta["namespace"],
            name=self._pod["spec"].get("serviceAccountName") or "default",
            subresource="token",
        )
        now = self._clock()
        life = parse_time(made["status"]["expirationTimestamp"]).timestamp() - now
        token = str(made["status"]["token"]).encode()
        self._tokens[key] = (now + min(life, wanted) * _RENEW_AT, token)
        return token


def _chosen(data: dict[str, bytes], source: Obj) -> dict[str, bytes]:
    """All keys, or those that `items` names, under other names."""
    items = source.get("items")
    if not items:
        return data
    found = {}
    for item in items:
        if item["key"] in data:
            found[item["path"]] = data[item["key"]]
        elif not source.get("optional"):
            raise ProcessProblem(f"references non-existent secret or config key: {item['key']}")
    return found


def _write_all(folder: Path, content: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, data in content.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ProcessProblem(f"path {name!r} leads out of its volume")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.exists() and path.read_bytes() == data:
            continue
        temporary = path.with_name(f".{path.name}.new")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
        temporary.replace(path)
