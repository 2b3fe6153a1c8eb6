"""Plugins about certificates: CertificateApproval, CertificateSigning, ClusterTrustBundleAttest, CertificateSubjectRestriction.

Upstream: plugin/pkg/admission/certificates. Who approves, signs or attests for a signer needs that verb on the virtual
resource `signers`, by the signer's name or as `domain/*`.
"""

from __future__ import annotations

import base64
import binascii

from bowsprit.apiserver.access import Attributes, Authorizer, Decision
from bowsprit.apiserver.admission.chain import CREATE, UPDATE, Target
from bowsprit.apiserver.admit import AdmissionAttributes
from bowsprit.apiserver.user import SYSTEM_PRIVILEGED_GROUP, UserInfo
from bowsprit.controlplane.admission.refusal import refused
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import nested

GROUP = "certificates.k8s.io"
REQUESTS = GroupResource(GROUP, "certificatesigningrequests")
BUNDLES = GroupResource(GROUP, "clustertrustbundles")
CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"


async def may_use_signer(authorizer: Authorizer, user: UserInfo, verb: str, signer: str) -> bool:
    """Whether a user holds a verb on a signer (upstream IsAuthorizedForSignerName)."""
    for name in (signer, f"{signer.partition('/')[0]}/*"):
        decision, _ = await authorizer.authorize(Attributes(user, verb, GROUP, "*", "signers", name=name))
        if decision is Decision.ALLOW:
            return True
    return False


class CertificateApproval:
    """Approving needs `approve` on the signer."""

    name = "CertificateApproval"

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin."""
        return target.resource == REQUESTS and target.subresource == "approval" and target.operation is UPDATE

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Judge the user."""
        signer = nested(attributes.old_object, "spec", "signerName", default="")
        if not await may_use_signer(self._authorizer, attributes.user, "approve", signer):
            raise refused(attributes, f"user not permitted to approve requests with signerName {quote(signer)}")


class CertificateSigning:
    """Issuing (or failing) needs `sign` on the signer."""

    name = "CertificateSigning"

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin."""
        return target.resource == REQUESTS and target.subresource == "status" and target.operation is UPDATE

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Judge the user, when certificate or conditions change."""
        old, new = attributes.old_object, attributes.object
        if all(nested(old, "status", field) == nested(new, "status", field) for field in ("certificate", "conditions")):
            return
        signer = nested(old, "spec", "signerName", default="")
        if not await may_use_signer(self._authorizer, attributes.user, "sign", signer):
            raise refused(attributes, f"user not permitted to sign requests with signerName {quote(signer)}")


class ClusterTrustBundleAttest:
    """Publishing a signer's trust needs `attest` on the signer."""

    name = "ClusterTrustBundleAttest"

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin."""
        return target.is_on(BUNDLES, CREATE, UPDATE)

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Judge the user."""
        signer = nested(attributes.object, "spec", "signerName", default="")
        if attributes.operation is UPDATE and attributes.object == attributes.old_object:
            return
        if signer and not await may_use_signer(self._authorizer, attributes.user, "attest", signer):
            raise refused(attributes, f"user not permitted to attest for signerName {quote(signer)}")


class CertificateSubjectRestriction:
    """The signer of API clients makes no members of system:masters."""

    name = "CertificateSubjectRestriction"

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin."""
        return target.is_on(REQUESTS, CREATE)

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Look at the request's organizations."""
        spec = (attributes.object or {}).get("spec") or {}
        if spec.get("signerName") != CLIENT_SIGNER:
            return
        if SYSTEM_PRIVILEGED_GROUP in _organizations(attributes, spec.get("request") or ""):
            text = f"use of {CLIENT_SIGNER} signer with {SYSTEM_PRIVILEGED_GROUP} group is not allowed"
            raise refused(attributes, text)


def _organizations(attributes: AdmissionAttributes, request: str) -> list[str]:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        parsed = x509.load_pem_x509_csr(base64.b64decode(request, validate=True))
    except (ValueError, binascii.Error) as exc:
        raise refused(attributes, f"failed to parse CSR: {exc}") from exc
    return [str(item.value) for item in parsed.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
