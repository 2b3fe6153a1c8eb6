"""Conversion webhooks: custom resources shown and stored in other versions by asking somebody (KEP-598).

Upstream: apiextensions-apiserver pkg/apiserver/conversion/webhook_converter.go. Answers are remembered by the content that was
asked about, for a conversion depends on nothing else: an object that is written is not asked about again to answer the request.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import orjson

from bowsprit.apiserver.admission.hookclient import CallError, HookClient
from bowsprit.apiserver.conversion import UnpreparedError
from bowsprit.apiserver.objectmeta import validate_annotations, validate_labels
from bowsprit.controlplane.apiextensions.conversionmetrics import ConversionMetrics
from bowsprit.machinery.codec import DecodeError, decode_json
from bowsprit.machinery.errors import unknown
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.objects import Obj, deep_copy

SECONDS = 30.0
_GROUP = "apiextensions.k8s.io"
_KNOWN_VERSIONS = ("v1", "v1beta1")
_CALL_FAILURE = "conversion_webhook_call_failure"
_NO_OBJECT = (
    'json: cannot unmarshal string into Go value of type struct { APIVersion string "json:\\"apiVersion,omitempty\\""; '
    'Kind string "json:\\"kind,omitempty\\"" }'
)
_SCHEME = "k8s.io/apiserver/pkg/util/webhook/client.go:71"
_REMEMBERED_OBJECTS, _REMEMBERED_BYTES = 4096, 32 << 20
# What the server alone decides; a webhook sees it, but its answer's is not looked at.
_VOLATILE = frozenset({"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink"})


class ConversionError(Exception):
    """The webhook gave no good answer; `sort` is the metric's failure type."""

    def __init__(self, text: str, sort: str) -> None:
        super().__init__(text)
        self.sort = sort


class WebhookConversion:
    """Asks the webhook of one definition.

    Args:
        name: of the definition.
        webhook: its spec.conversion.webhook.
        hooks: how webhooks are reached.
    """

    def __init__(
        self, name: str, webhook: Obj, hooks: HookClient, new_uid: Callable[[], str], metrics: ConversionMetrics
    ) -> None:
        self._name = name
        self._config = webhook.get("clientConfig") or {}
        self._versions = webhook.get("conversionReviewVersions") or ()
        self._hooks = hooks
        self._new_uid = new_uid
        self._metrics = metrics
        self._known: OrderedDict[tuple[bytes, str], bytes] = OrderedDict()
        self._known_bytes = 0

    def result(self, obj: Obj, api_version: str) -> Obj:
        """The object in another version, a new one. Raises UnpreparedError when it has to be asked for."""
        if obj.get("apiVersion") == api_version:
            return {**deep_copy(obj)}
        known = self._known.get((_digest(obj), api_version))
        if known is None:
            raise UnpreparedError(self, obj, api_version)
        made: Obj = orjson.loads(known)
        return _restored(obj, made)

    async def prepare(self, objects: Sequence[Obj], api_version: str) -> None:
        """See conversion.Conversion."""
        wanted: dict[bytes, Obj] = {}
        for obj in objects:
            if obj.get("apiVersion") != api_version:
                digest = _digest(obj)
                if (digest, api_version) not in self._known:
                    wanted[digest] = obj
        if not wanted:
            return
        asked = list(wanted.values())
        source = str(asked[0].get("apiVersion"))
        about = f"conversion webhook for {source}, Kind={asked[0].get('kind')}"
        begun = perf_counter()
        failure = ""
        try:
            converted = await self._ask(asked, api_version)
            made = [self._checked(old, new, api_version) for old, new in zip(asked, converted, strict=True)]
        except ConversionError as exc:
            failure = exc.sort
            raise unknown(f"{about} {exc}") from exc
        finally:
            seconds = perf_counter() - begun
            versions = (source.rpartition("/")[2], api_version.rpartition("/")[2])
            self._metrics.observe(self._name, versions, seconds, failure)
        for digest, obj in zip(wanted, made, strict=True):
            self._remember((digest, api_version), orjson.dumps(obj))

    def _remember(self, key: tuple[bytes, str], value: bytes) -> None:
        self._known[key] = value
        self._known_bytes += len(value)
        while len(self._known) > _REMEMBERED_OBJECTS or (
            self._known_bytes > _REMEMBERED_BYTES and len(self._known) > 1
        ):
            self._known_bytes -= len(self._known.popitem(last=False)[1])

    async def _ask(self, objects: Sequence[Obj], api_version: str) -> list[Any]:
        version = next((item for item in self._versions if item in _KNOWN_VERSIONS), "")
        if not version:
            raise unknown("no supported conversion review versions")
        uid = self._new_uid()
        review = {
            "kind": "ConversionReview",
            "apiVersion": f"{_GROUP}/{version}",
            "request": {"uid": uid, "desiredAPIVersion": api_version, "objects": list(objects)},
        }
        try:
            body = await self._hooks.post(self._config, review, SECONDS)
        except CallError as exc:
            raise ConversionError(f"failed: {exc}", _CALL_FAILURE) from exc
        try:
            answer = decode_json(body)
        except DecodeError:
            answer = ""  # to YAML, which upstream tries next, nearly all is a string
        if not isinstance(answer, dict):
            raise ConversionError(f"failed: couldn't get version/kind; json parse error: {_NO_OBJECT}", _CALL_FAILURE)
        converted = _converted(answer, version, uid)
        if len(converted) != len(objects):
            raise ConversionError(
                f"returned {len(converted)} objects, expected {len(objects)}",
                "conversion_webhook_partial_response_failure",
            )
        return converted

    @staticmethod
    def _checked(old: Obj, new: Any, api_version: str) -> Obj:
        """A converted object that is what was asked for, with the metadata that it had."""
        invalid = "conversion_webhook_invalid_converted_object_failure"
        where = "returned invalid object at index 0"
        if not isinstance(new, dict):
            raise ConversionError(f"{where}: no object", invalid)
        if new.get("apiVersion") != api_version:
            got = new.get("apiVersion") or ""
            raise ConversionError(f"{where}: invalid groupVersion (expected {api_version}, received {got})", invalid)
        if new.get("kind") != old.get("kind"):
            kinds = f"(expected {old.get('kind')}, received {new.get('kind') or ''})"
            raise ConversionError(f"{where}: invalid kind {kinds}", invalid)
        meta, old_meta = new.get("metadata"), old.get("metadata") or {}
        known = meta if isinstance(meta, dict) else {}
        for field, shown in (("name", "name"), ("namespace", "namespace"), ("uid", "UID")):
            if (old_meta.get(field) or "") != (known.get(field) or ""):
                text = f"must have the same {shown}: {old_meta.get(field) or ''} != {known.get(field) or ''}"
                raise ConversionError(f"returned invalid object: {text}", invalid)
        if meta is None:
            raise ConversionError("returned invalid metadata: missing metadata in converted object", invalid)
        if not isinstance(meta, dict):
            raise ConversionError("returned invalid metadata: invalid metadata in converted object", invalid)
        problem = _problem(meta, old_meta)
        if problem:
            raise ConversionError(f"returned invalid metadata: {problem}", invalid)
        return _restored(old, new)


def _converted(answer: Obj, version: str, uid: str) -> list[Any]:
    """The objects of a ConversionReview's response. Raises ConversionError."""
    sort = "conversion_webhook_malformed_response_failure"
    response = answer.get("response")
    known = [f"{_GROUP}/{each}" for each in _KNOWN_VERSIONS]
    if answer.get("apiVersion") not in known or answer.get("kind") != "ConversionReview":
        got, kind = quote(str(answer.get("apiVersion") or "")), quote(str(answer.get("kind") or ""))
        raise ConversionError(
            f"failed: no kind {kind} is registered for version {got} in scheme {quote(_SCHEME)}", _CALL_FAILURE
        )
    if version == "v1":
        group_version, kind = f"{_GROUP}/{version}", "ConversionReview"
        got_version, got_kind = answer.get("apiVersion") or "", answer.get("kind") or ""
        if (got_version, got_kind) != (group_version, kind):
            raise ConversionError(
                f"failed: expected webhook response of {group_version}, Kind={kind}, got {got_version}, Kind={got_kind}",
                sort,
            )
        if isinstance(response, dict) and response.get("uid") != uid:
            got = quote(str(response.get("uid") or ""))
            raise ConversionError(f"failed: expected response.uid={quote(uid)}, got {got}", sort)
    if not isinstance(response, dict):
        raise ConversionError("failed: no response provided", sort)
    result = response.get("result") or {}
    if result.get("status") != "Success":
        text = result.get("message") or f"response.result.status was '{result.get('status') or ''}', not 'Success'"
        raise ConversionError(f"failed: {text}", sort)
    return list(response.get("convertedObjects") or ())


def _digest(obj: Obj) -> bytes:
    """What the conversion of an object depends on."""
    meta = obj.get("metadata") or {}
    bare = {**obj, "metadata": {key: value for key, value in meta.items() if key not in _VOLATILE}}
    return hashlib.blake2b(orjson.dumps(bare, option=orjson.OPT_SORT_KEYS), digest_size=20).digest()


def _restored(old: Obj, new: Obj) -> Obj:
    """The converted object with the old metadata, but for labels and annotations (upstream restoreObjectMeta)."""
    made = new["metadata"]
    meta = {key: value for key, value in (old.get("metadata") or {}).items() if key not in ("labels", "annotations")}
    meta = deep_copy(meta)
    for field in ("labels", "annotations"):
        if made.get(field) is not None:
            meta[field] = made[field]
    return {**new, "metadata": meta}


def _problem(meta: Obj, old: Obj) -> str:
    """What is wrong with labels and annotations that a webhook has changed, "" if nothing is."""
    for field, check in (("labels", validate_labels), ("annotations", validate_annotations)):
        value = meta.get(field)
        if value is None:
            continue
        if not isinstance(value, dict):
            return f"invalid metadata.{field} in converted object"
        for key, item in value.items():
            if not isinstance(item, str):
                return f"metadata.{field}[{key}] must be a string, but is {_go_type(item)} in converted object"
        if value != (old.get(field) or {}):
            errors: list[FieldError] = check(value, path("metadata", field))
            if errors:
                return "; ".join(str(error) for error in errors)
    return ""


def _go_type(value: object) -> str:
    if value is None:
        return "<nil>"
    names = {bool: "bool", int: "int64", float: "float64", list: "[]interface {}"}
    return names.get(type(value), "map[string]interface {}")
