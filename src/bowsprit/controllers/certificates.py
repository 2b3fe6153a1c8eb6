"""CertificateSigningRequests: approved for kubelets, signed for the built-in signers, cleaned up.

Upstream: pkg/controller/certificates/{approver,signer,cleaner}.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

from bowsprit.client.resources import CERTIFICATE_SIGNING_REQUESTS, SUBJECT_ACCESS_REVIEWS
from bowsprit.controllers.controller import Controller, ControllerContext
from bowsprit.machinery.errors import NotFoundError
from bowsprit.machinery.objects import Obj, find_condition
from bowsprit.machinery.time import format_time, parse_time
from bowsprit.pki.authority import Authority
from bowsprit.pki.errors import PKIError
from bowsprit.pki.signing_request import SigningRequest, sign

KUBELET_SERVING = "kubernetes.io/kubelet-serving"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
CLIENT = "kubernetes.io/kube-apiserver-client"
LEGACY = "kubernetes.io/legacy-unknown"
_LIFETIME = timedelta(days=365)  # upstream --cluster-signing-duration
_LEAST = timedelta(minutes=10)
_HANDLED, _UNHANDLED = timedelta(hours=1), timedelta(hours=24)
_NODE = "system:node:"


def problem_of(signer: str, request: SigningRequest, usages: set[str]) -> str:
    """Why a signer does not sign a request; "" if it does (upstream apis/certificates helpers)."""
    if signer == LEGACY:
        return ""
    if signer == CLIENT:
        for usage in sorted(usages - {"digital signature", "key encipherment", "client auth"}):
            return f"invalid usage for client certificate: {usage}"
        return "" if "client auth" in usages else "missing required usage for client certificate: client auth"
    serving = signer == KUBELET_SERVING
    needed = {"digital signature", "server auth" if serving else "client auth"}
    if request.organizations != ("system:nodes",):
        return "subject organization is not system:nodes"
    if serving and not (request.dns_names or request.ip_addresses):
        return "DNS or IP subjectAltName is required"
    if not serving and request.dns_names:
        return "DNS subjectAltNames are not allowed"
    if request.emails:
        return "Email subjectAltNames are not allowed"
    if not serving and request.ip_addresses:
        return "IP subjectAltNames are not allowed"
    if request.uris:
        return "URI subjectAltNames are not allowed"
    if usages not in (needed, needed | {"key encipherment"}):
        return f"usages did not match [{' '.join(sorted(needed | {'key encipherment'}))}]"
    return "" if request.common_name.startswith(_NODE) else "subject common name does not begin with system:node:"


def lifetime(spec: Obj) -> timedelta:
    """How long a certificate lives: what was asked for, between ten minutes and a year."""
    asked = spec.get("expirationSeconds")
    return _LIFETIME if asked is None else min(max(timedelta(seconds=int(asked)), _LEAST), _LIFETIME)


def due(item: Obj, now: datetime) -> datetime | None:
    """When the cleaner deletes a request; None: when its certificate or conditions change."""
    status = item.get("status") or {}
    conditions = status.get("conditions") or []
    if not conditions:
        return parse_time(item["metadata"]["creationTimestamp"]) + _UNHANDLED
    moments = []
    for condition in conditions:
        since = condition.get("lastUpdateTime") or item["metadata"]["creationTimestamp"]
        unissued = condition["type"] == "Approved" and not status.get("certificate")
        moments.append(parse_time(since) + (_UNHANDLED if unissued else _HANDLED))
    return min(moments)


def _request(item: Obj) -> SigningRequest:
    try:
        return SigningRequest.read(base64.b64decode(item["spec"]["request"], validate=True))
    except binascii.Error as exc:
        raise PKIError(f"the certificate signing request is malformed: {exc}") from exc


def _is(item: Obj, type_: str) -> bool:
    return (find_condition(item, type_) or {}).get("status") == "True"


class _Requests(Controller):
    """Keys are requests."""

    account = "certificate-controller"
    workers = 1

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        self.requests = context.informers.informer(CERTIFICATE_SIGNING_REQUESTS)
        self.watch(self.requests)

    async def write(self, item: Obj, change: Obj, subresource: str) -> None:
        """Change the status."""
        body = {
            **item,
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "status": {**(item.get("status") or {}), **change},
        }
        with suppress(NotFoundError):
            await self.client.update(CERTIFICATE_SIGNING_REQUESTS, body, subresource=subresource)

    async def add_condition(self, item: Obj, type_: str, reason: str, message: str, subresource: str) -> None:
        """Add a condition to the status."""
        moment = format_time(self.now())
        made = {
            "type": type_,
            "status": "True",
            "reason": reason,
            "message": message,
            "lastUpdateTime": moment,
            "lastTransitionTime": moment,
        }
        listed = (item.get("status") or {}).get("conditions") or []
        await self.write(item, {"conditions": [*listed, made]}, subresource)


class CertificateApprover(_Requests):
    """Approves kubelets' client certificates for those who may have them."""

    name = "certificatesigningrequest-approving-controller"

    async def sync(self, key: str) -> None:
        """See Controller."""
        item = self.requests.get(key)
        if item is None or _is(item, "Approved") or _is(item, "Denied") or item["spec"]["signerName"] != KUBELET_CLIENT:
            return
        spec = item["spec"]
        try:
            request = _request(item)
        except PKIError:
            return
        if problem_of(KUBELET_CLIENT, request, set(spec.get("usages") or ())):
            return
        own = spec.get("username") == request.common_name
        tried = (
            [("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview.")]
            if own
            else []
        )
        tried.append(("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."))
        for subresource, message in tried:
            if await self._may(spec, subresource):
                await self.add_condition(item, "Approved", "AutoApproved", message, "approval")
                return

    async def _may(self, spec: Obj, subresource: str) -> bool:
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": spec.get("username", ""),
                "uid": spec.get("uid", ""),
                "groups": spec.get("groups") or [],
                "extra": spec.get("extra") or {},
                "resourceAttributes": {
                    "group": "certificates.k8s.io",
                    "resource": "certificatesigningrequests",
                    "verb": "create",
                    "subresource": subresource,
                    "version": "*",
                },
            },
        }
        answer = await self.client.create(SUBJECT_ACCESS_REVIEWS, review)
        return bool((answer.get("status") or {}).get("allowed"))


class CertificateSigner(_Requests):
    """Signs approved requests for the four built-in signers; without an authority it does nothing."""

    name = "certificatesigningrequest-signing-controller"

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        self._authority: Callable[[], Authority] | None = context.signing_authority

    async def sync(self, key: str) -> None:
        """See Controller."""
        item = self.requests.get(key)
        if item is None or self._authority is None or (item.get("status") or {}).get("certificate"):
            return
        spec = item["spec"]
        if not _is(item, "Approved") or _is(item, "Denied") or _is(item, "Failed"):
            return
        if spec["signerName"] not in (KUBELET_SERVING, KUBELET_CLIENT, CLIENT, LEGACY):
            return
        usages = list(spec.get("usages") or ())
        try:
            request = _request(item)
            problem = problem_of(spec["signerName"], request, set(usages))
            if not problem:
                made = sign(self._authority(), request, usages, lifetime(spec), self.now())
        except PKIError as exc:
            problem = str(exc)
        if problem:
            await self.add_condition(item, "Failed", "SignerValidationFailure", problem, "status")
            return
        await self.write(item, {"certificate": base64.b64encode(made).decode()}, "status")


class CertificateCleaner(_Requests):
    """Deletes requests an hour after they were answered, unanswered ones after a day."""

    name = "certificatesigningrequest-cleaner-controller"

    async def sync(self, key: str) -> None:
        """See Controller."""
        item = self.requests.get(key)
        moment = due(item, self.now()) if item is not None else None
        if item is None or moment is None:
            return
        left = (moment - self.now()).total_seconds()
        if left > 0:
            self.queue.add_after(key, left)
            return
        with suppress(NotFoundError):
            await self.client.delete(
                CERTIFICATE_SIGNING_REQUESTS, item["metadata"]["name"], uid=item["metadata"]["uid"]
            )
