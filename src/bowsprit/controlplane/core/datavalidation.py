"""Rules for ConfigMaps and Secrets (upstream ValidateConfigMap, ValidateSecret)."""

from __future__ import annotations

import base64

from bowsprit.machinery import fielderrors, objects
from bowsprit.machinery.codec import DecodeError, decode_object
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_config_map_key

_MOST_BYTES = 1024 * 1024
_ACCOUNT = "kubernetes.io/service-account.name"
# What a Secret of a type must hold.
_REQUIRED = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
}
_JSON = {"kubernetes.io/dockercfg": ".dockercfg", "kubernetes.io/dockerconfigjson": ".dockerconfigjson"}


def config_map_errors(obj: Obj) -> list[FieldError]:
    """Keys, no key twice, at most a mebibyte."""
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    errors: list[FieldError] = []
    for key in data:
        place = path("data").key(key)
        errors += [fielderrors.invalid(place, key, text) for text in is_config_map_key(key)]
        if key in binary:
            errors.append(fielderrors.invalid(place, key, "duplicate of key present in binaryData"))
    for key in binary:
        place = path("binaryData").key(key)
        errors += [fielderrors.invalid(place, key, text) for text in is_config_map_key(key)]
    size = sum(len(text.encode()) for text in data.values()) + sum(
        len(base64.b64decode(text or "")) for text in binary.values()
    )
    if size > _MOST_BYTES:
        errors.append(fielderrors.too_long("", _MOST_BYTES))
    return errors


def secret_errors(obj: Obj) -> list[FieldError]:
    """Keys, at most a mebibyte, and what the type demands."""
    data, where = obj.get("data") or {}, path("data")
    errors: list[FieldError] = []
    for key in data:
        errors += [fielderrors.invalid(where.key(key), key, text) for text in is_config_map_key(key)]
    if sum(len(base64.b64decode(text or "")) for text in data.values()) > _MOST_BYTES:
        errors.append(fielderrors.too_long(where, _MOST_BYTES))
    kind = obj.get("type", "")
    if kind == "kubernetes.io/service-account-token" and not objects.annotations(obj).get(_ACCOUNT):
        errors.append(fielderrors.required(path("metadata", "annotations").key(_ACCOUNT)))
    if kind == "kubernetes.io/basic-auth" and "username" not in data and "password" not in data:
        errors += [fielderrors.required(where.key(key)) for key in ("username", "password")]
    for key in _REQUIRED.get(kind, ()):
        present = key in data and (kind != "kubernetes.io/ssh-auth" or data[key])
        if not present:
            errors.append(fielderrors.required(where.key(key)))
        elif kind in _JSON:
            errors += _json_errors(data[key], key)
    return errors


def _json_errors(text: str, key: str) -> list[FieldError]:
    try:
        decode_object(base64.b64decode(text or ""))
    except DecodeError as problem:
        return [fielderrors.invalid(path("data").key(key), "<secret contents redacted>", str(problem))]
    return []
