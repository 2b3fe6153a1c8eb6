"""How plugins refuse (upstream admission.NewForbidden)."""

from __future__ import annotations

from bowsprit.apiserver.admit import AdmissionAttributes
from bowsprit.machinery.errors import ForbiddenError, forbidden
from bowsprit.machinery.objects import metadata


def object_name(attributes: AdmissionAttributes) -> str:
    """The object's name, or its generateName while it has none (upstream extractResourceName)."""
    if attributes.name or attributes.object is None:
        return attributes.name
    meta = metadata(attributes.object)
    return str(meta.get("name") or meta.get("generateName") or "")


def refused(attributes: AdmissionAttributes, message: str) -> ForbiddenError:
    """The 403 of a request."""
    return forbidden(attributes.gvr.gr, object_name(attributes), message)
