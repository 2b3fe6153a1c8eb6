"""EgressSelectorConfiguration, apiserver.k8s.io/v1alpha1 and v1beta1 (k8s.io/apiserver/pkg/server/egressselector/config.go)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bowsprit.machinery.codec import decode_json_strict
from bowsprit.machinery.decodeerror import DecodeError
from bowsprit.machinery.fielderrors import (
    FieldError,
    aggregate,
    duplicate,
    invalid,
    not_supported,
    path,
    required,
)
from bowsprit.machinery.fielderrors import (
    Path as FieldPath,
)
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.yamlcodec import decode_yaml_strict

GROUP = "apiserver.k8s.io"
KIND = "EgressSelectorConfiguration"
NAMES = ("cluster", "controlplane", "etcd")
PROTOCOLS = ("Direct", "HTTPConnect", "GRPC")
_MAX_BYTES = 3 * 1024 * 1024
# The shape: a dict names fields, a list holds items of one shape, a type is a scalar.
_TLS = {"caBundle": str, "clientKey": str, "clientCert": str, "tlsServerName": str}
_TRANSPORT = {"tcp": {"url": str, "tlsConfig": _TLS}, "uds": {"udsName": str}}
_SELECTION = {"name": str, "connection": {"proxyProtocol": str, "transport": _TRANSPORT}}
_SHAPE = {"apiVersion": str, "kind": str, "egressSelections": [_SELECTION]}


class EgressConfigError(Exception):
    """The configuration cannot be used; the message is upstream's, behind the file's name."""


@dataclass(frozen=True, slots=True)
class TLSConfig:
    """How to speak TLS to the proxy: file names."""

    ca_bundle: str
    client_cert: str
    client_key: str
    server_name: str


@dataclass(frozen=True, slots=True)
class Connection:
    """How traffic of one name leaves: ``protocol`` Direct, or through ``uds`` or ``url``."""

    protocol: str
    uds: str = ""
    url: str = ""
    tls: TLSConfig | None = None


def read(file: Path | str) -> dict[str, Connection]:
    """The connections by name (``cluster``, ``controlplane``, ``etcd``). Raises EgressConfigError."""
    try:
        with open(file, "rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except OSError as exc:
        reason = f"open {file}: {os.strerror(exc.errno or 0).lower()}"
        raise EgressConfigError(f'unable to read egress selector configuration from "{file}" [{reason}]') from exc
    if len(data) > _MAX_BYTES:
        raise EgressConfigError(f"egress selector configuration {file} is larger than {_MAX_BYTES} bytes")
    try:
        return parse(data)
    except EgressConfigError as exc:
        raise EgressConfigError(f"{file}: {exc}") from exc


def parse(data: bytes) -> dict[str, Connection]:
    """The same from bytes, YAML or JSON."""
    try:
        strict = decode_json_strict if data.lstrip()[:1] == b"{" else decode_yaml_strict
        document, problems = strict(data)
    except DecodeError as exc:
        raise EgressConfigError(str(exc)) from exc
    if not isinstance(document, dict):
        raise EgressConfigError(f"invalid service configuration object {quote('')}")
    kind, version = str(document.get("kind") or ""), str(document.get("apiVersion") or "")
    if kind != KIND:
        raise EgressConfigError(f"invalid service configuration object {quote(kind)}")
    if version not in (f"{GROUP}/v1alpha1", f"{GROUP}/v1beta1"):
        raise EgressConfigError(f"no kind {quote(KIND)} is registered for version {quote(version)}")
    problems = [*problems, *_unknown(document, _SHAPE, "")]
    if problems:
        raise EgressConfigError(f"strict decoding error: {', '.join(problems)}")
    selections: list[Obj] = document.get("egressSelections") or []
    errors = _validate(selections)
    if errors:
        raise EgressConfigError(f"failed to validate egress selector configuration: {aggregate(errors)}")
    return {_canonical(each): _connection(each.get("connection") or {}) for each in selections}


def _unknown(value: Any, shape: Any, where: str) -> list[str]:
    if value is None:
        return []
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            raise EgressConfigError(f"json: cannot unmarshal {_kind(value)} into Go struct field {where or KIND}")
        found = []
        for key, inner in value.items():
            inside = f"{where}.{key}" if where else key
            found += _unknown(inner, shape[key], inside) if key in shape else [f'unknown field "{inside}"']
        return found
    if isinstance(shape, list):
        if not isinstance(value, list):
            raise EgressConfigError(f"json: cannot unmarshal {_kind(value)} into Go struct field {where}")
        return [text for index, item in enumerate(value) for text in _unknown(item, shape[0], f"{where}[{index}]")]
    if not isinstance(value, shape):
        raise EgressConfigError(f"json: cannot unmarshal {_kind(value)} into Go struct field {where} of type string")
    return []


def _kind(value: Any) -> str:
    names = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _canonical(selection: Obj) -> str:
    name = str(selection.get("name") or "").lower()
    return "controlplane" if name == "master" else name


def _validate(selections: list[Obj]) -> list[FieldError]:
    """Upstream's rules, under the path that upstream reports: service.connection."""
    where = path("service").child("connection")
    errors: list[FieldError] = []
    for selection in selections:
        connection = selection.get("connection") or {}
        protocol, transport = connection.get("proxyProtocol") or "", connection.get("transport")
        if protocol == "Direct":
            if transport is not None:
                text = "Transport config should be absent for direct connect"
                errors.append(invalid(where.child("transport"), "direct", text))
        elif protocol in ("HTTPConnect", "GRPC"):
            errors += _validate_transport(protocol, transport, where)
        else:
            errors.append(not_supported(where.child("protocol"), protocol, PROTOCOLS))
    seen: set[str] = set()
    for index, selection in enumerate(selections):
        name = _canonical(selection)
        if name in seen:
            errors.append(duplicate(where.index(index), name))
        elif name not in NAMES:
            errors.append(not_supported(where, name, NAMES))
        seen.add(name)
    return errors


def _validate_transport(protocol: str, transport: Obj | None, where: FieldPath) -> list[FieldError]:
    if transport is None:
        return [required(where.child("transport"), f"transport must be set for {protocol}")]
    tcp, uds = transport.get("tcp"), transport.get("uds")
    if protocol == "GRPC":
        return (
            _validate_uds(uds, where)
            if uds is not None
            else [required(where.child("uds"), "UDS must be set with GRPC")]
        )
    if tcp is not None and uds is not None:
        return [invalid(where.child("tcp"), tcp, "TCP and UDS cannot both be set")]
    if uds is not None:
        return _validate_uds(uds, where)
    if tcp is None:
        return [required(where.child("tcp"), "One of TCP or UDS must be set")]
    return _validate_tcp(tcp, where)


def _validate_uds(uds: Obj, where: FieldPath) -> list[FieldError]:
    name = str(uds.get("udsName") or "")
    if not name:
        return [invalid(where.child("udsName"), "nil", "UDSName should be present for UDS connections")]
    if name.startswith("unix://"):
        return [invalid(where.child("udsName"), name, "UDSName should be a path, without unix://")]
    return []


def _validate_tcp(tcp: Obj, where: FieldPath) -> list[FieldError]:
    url, tls = str(tcp.get("url") or ""), tcp.get("tlsConfig")
    if url.startswith("http://"):
        text = "TLSConfig config should not be present when using HTTP"
        return [invalid(where.child("tlsConfig"), "nil", text)] if tls is not None else []
    if not url.startswith("https://"):
        return [invalid(where.child("url"), url, "supported connection protocols are http:// and https://")]
    if tls is None:
        return [required(where.child("tlsConfig"), "TLSConfig must be present when using HTTPS")]
    errors = []
    bundle = str(tls.get("caBundle") or "")
    if bundle and not os.path.exists(bundle):
        errors.append(invalid(where.child("tlsConfig", "caBundle"), bundle, "TLS config ca bundle does not exist"))
    # The doubled word is upstream's.
    for field, what, missing in (
        ("clientCert", "cert", "Using TLS requires clientCert"),
        ("clientKey", "key", "Using TLS requires requires clientKey"),
    ):
        value = str(tls.get(field) or "")
        if not value:
            errors.append(invalid(where.child("tlsConfig", field), "nil", missing))
        elif not os.path.exists(value):
            errors.append(invalid(where.child("tlsConfig", field), value, f"TLS client {what} does not exist"))
    return errors


def _connection(connection: Obj) -> Connection:
    transport = connection.get("transport") or {}
    tcp = transport.get("tcp") or {}
    tls = tcp.get("tlsConfig")
    return Connection(
        str(connection.get("proxyProtocol")),
        str((transport.get("uds") or {}).get("udsName") or ""),
        str(tcp.get("url") or ""),
        None
        if tls is None
        else TLSConfig(*(str(tls.get(key) or "") for key in ("caBundle", "clientCert", "clientKey", "tlsServerName"))),
    )
