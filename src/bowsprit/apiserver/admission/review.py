"""AdmissionReview: what a webhook is asked, and what its answer means (admission.k8s.io/v1 and v1beta1).

Upstream: k8s.io/apiserver/pkg/admission/plugin/webhook/request and .../errors.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any

from bowsprit.apiserver.admission.matching import Match
from bowsprit.apiserver.admit import AdmissionAttributes
from bowsprit.machinery.codec import decode_json
from bowsprit.machinery.decodeerror import DecodeError
from bowsprit.machinery.errors import StatusError
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.names import GroupVersionKind, GroupVersionResource
from bowsprit.machinery.objects import Obj

GROUP = "admission.k8s.io"
SUPPORTED = ("v1", "v1beta1")


class ReviewError(Exception):
    """An answer that is not to be believed; the text is upstream's."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a webhook answered."""

    allowed: bool
    status: Obj | None = None
    patch: list[Obj] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)


def _gvk(value: GroupVersionKind) -> Obj:
    return {"group": value.group, "version": value.version, "kind": value.kind}


def _gvr(value: GroupVersionResource) -> Obj:
    return {"group": value.group, "version": value.version, "resource": value.resource}


def user_info(attributes: AdmissionAttributes) -> Obj:
    """authentication.k8s.io/v1 UserInfo of the sender."""
    user = attributes.user
    shown: Obj = {
        "username": user.name,
        "uid": user.uid,
        "groups": list(user.groups),
        "extra": {key: list(values) for key, values in user.extra.items()},
    }
    return {key: value for key, value in shown.items() if value}


def admission_request(attributes: AdmissionAttributes, match: Match, uid: str, obj: Obj | None, old: Obj | None) -> Obj:
    """admission.k8s.io/v1 AdmissionRequest; `obj` and `old` are in the matched version."""
    request: Obj = {"uid": uid, "kind": _gvk(match.gvk), "resource": _gvr(match.gvr)}
    if attributes.subresource:
        request["subResource"] = attributes.subresource
    request |= {"requestKind": _gvk(attributes.gvk), "requestResource": _gvr(attributes.gvr)}
    if attributes.subresource:
        request["requestSubResource"] = attributes.subresource
    if attributes.name:
        request["name"] = attributes.name
    if attributes.namespace:
        request["namespace"] = attributes.namespace
    return request | {
        "operation": attributes.operation.value,
        "userInfo": user_info(attributes),
        "object": obj,
        "oldObject": old,
        "dryRun": attributes.dry_run,
        "options": attributes.options or None,
    }


def admission_review(request: Obj, version: str) -> Obj:
    """The body to post."""
    return {"kind": "AdmissionReview", "apiVersion": f"{GROUP}/{version}", "request": request}


def read_verdict(body: bytes, uid: str, version: str, *, mutating: bool) -> Verdict:
    """What an answer says.

    Raises:
        ReviewError: it is malformed, or not the answer to this question.
    """
    try:
        review: Any = decode_json(body)
    except DecodeError as exc:
        raise ReviewError(str(exc)) from exc
    if not isinstance(review, dict):
        raise ReviewError("the answer is no JSON object")
    wanted = f"{GROUP}/{version}, Kind=AdmissionReview"
    got_version, got_kind = str(review.get("apiVersion") or ""), str(review.get("kind") or "")
    if (got_version, got_kind) != (f"{GROUP}/{version}", "AdmissionReview") and (
        version == "v1" or got_version or got_kind
    ):
        shown = got_version if "/" in got_version else f"/{got_version}"
        raise ReviewError(f"expected webhook response of {wanted}, got {shown}, Kind={got_kind}")
    response = review.get("response")
    if not isinstance(response, dict):
        raise ReviewError("webhook response was absent")
    if version == "v1" and response.get("uid") != uid:
        raise ReviewError(f"expected response.uid={quote(uid)}, got {quote(str(response.get('uid') or ''))}")
    return Verdict(
        bool(response.get("allowed")),
        response.get("status") if isinstance(response.get("status"), dict) else None,
        _patch(response, version, mutating=mutating),
        [str(text) for text in response.get("warnings") or ()],
        {str(key): str(value) for key, value in (response.get("auditAnnotations") or {}).items()},
    )


def _patch(response: Obj, version: str, *, mutating: bool) -> list[Obj]:
    patch, kind = response.get("patch"), response.get("patchType")
    if not mutating:
        if version == "v1" and patch:
            raise ReviewError("response.patch not allowed from validating webhooks")
        if version == "v1" and kind:
            raise ReviewError("response.patchType not allowed from validating webhooks")
        return []
    if version == "v1":
        if patch and not kind:
            raise ReviewError("webhook returned response.patch but not response.patchType")
        if kind and not patch:
            raise ReviewError("webhook returned response.patchType but not response.patch")
    if not patch:
        return []
    if kind not in (None, "", "JSONPatch"):
        raise ReviewError(f"webhook returned invalid response.patchType of {quote(str(kind))}")
    try:
        operations: Any = decode_json(base64.b64decode(patch, validate=True))
    except (binascii.Error, ValueError, TypeError) as exc:
        raise ReviewError(f"webhook returned a malformed patch: {exc}") from exc
    if not isinstance(operations, list) or not all(isinstance(item, dict) for item in operations):
        raise ReviewError("webhook returned a malformed patch: it is no list of operations")
    return operations


def denial(name: str, status: Obj | None) -> StatusError:
    """The refusal of a webhook as an answer (upstream ToStatusErr)."""
    status = status or {}
    told = f"admission webhook {quote(name)} denied the request"
    message, reason = str(status.get("message") or ""), str(status.get("reason") or "")
    text = f"{told}: {message or reason}" if message or reason else f"{told} without explanation"
    code = status.get("code")
    code = code if isinstance(code, int) and code >= 400 else 400
    return StatusError(text, details=status.get("details"), code=code, reason=reason)
