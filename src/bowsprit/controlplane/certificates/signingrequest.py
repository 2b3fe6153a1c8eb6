"""CertificateSigningRequests: who asks is written down by the server; approval and certificate have endpoints of their own."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.strategy import Strategy
from bowsprit.controlplane.certificates.validation import signing_request_errors, signing_request_status_errors
from bowsprit.controlplane.printing import age_of, name_of
from bowsprit.controlplane.statused import StatusedStrategy, StatusStrategy, copy_field
from bowsprit.machinery.fielderrors import FieldError
from bowsprit.machinery.humanduration import human_duration
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_valid_path_segment_name

_APPROVALS = ("Approved", "Denied")
_RESET: Obj = {"f:spec": {}, "f:status": {}}


class SigningRequestStrategy(StatusedStrategy):
    """The main endpoint: the spec cannot change."""

    has_generation = False
    reset_fields = _RESET

    def prepare_for_create(self, obj: Obj, ctx: RequestContext) -> None:
        spec = obj["spec"]
        spec["username"] = ctx.user.name
        for field, value in (("uid", ctx.user.uid), ("groups", list(ctx.user.groups))):
            if value:
                spec[field] = value
            else:
                spec.pop(field, None)
        spec.pop("extra", None)
        if ctx.user.extra:
            spec["extra"] = {key: list(values) for key, values in ctx.user.extra.items()}
        obj["status"] = {}

    def validate_name(self, name: str) -> list[str]:
        return is_valid_path_segment_name(name)

    def validate(self, obj: Obj) -> list[FieldError]:
        return signing_request_errors(obj)

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        copy_field(new, old, "spec")
        copy_field(new, old, "status")

    def selectable_field_names(self) -> frozenset[str]:
        return frozenset({"spec.signerName"})

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        return {"spec.signerName": (obj.get("spec") or {}).get("signerName") or ""}


class SigningRequestStatusStrategy(StatusStrategy):
    """``/status``: the certificate and conditions other than approval."""

    def __init__(self, main: Strategy, *, approval: bool) -> None:
        super().__init__(main)
        self._approval = approval
        self.reset_fields = {"f:spec": {}, "f:status": {"f:certificate" if approval else "f:conditions": {}}}

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        super().prepare_for_update(new, old, ctx)
        before, after = old.get("status") or {}, new.get("status") or {}
        if self._approval:
            conditions = after.get("conditions")
            new["status"] = dict(before)
            after = new["status"]
            if conditions:
                after["conditions"] = conditions
            else:
                after.pop("conditions", None)
        else:
            for kind in _APPROVALS:
                _put_back(after.get("conditions") or [], before.get("conditions") or [], kind)
            new["status"] = after
        known = {item.get("type"): item for item in before.get("conditions") or ()}
        for condition in after.get("conditions") or ():
            previous = known.get(condition.get("type"))
            condition["lastUpdateTime"] = condition.get("lastUpdateTime") or ctx.timestamp
            if not condition.get("lastTransitionTime"):
                same = previous is not None and previous.get("status") == condition.get("status")
                condition["lastTransitionTime"] = previous["lastTransitionTime"] if same and previous else ctx.timestamp

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return signing_request_status_errors(new, old, approval=self._approval)


def _put_back(conditions: list[Obj], held: list[Obj], kind: str) -> None:
    """Conditions of a kind as they were; more or less of them is for the validation to refuse."""
    places = [index for index, item in enumerate(conditions) if item.get("type") == kind]
    old = [item for item in held if item.get("type") == kind]
    if len(places) == len(old):
        for index, item in zip(places, old, strict=True):
            conditions[index] = dict(item)


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Age, SignerName, Requestor, RequestedDuration, Condition."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    seconds = spec.get("expirationSeconds")
    return [
        name_of(obj),
        age_of(obj, now),
        spec.get("signerName") or "<none>",
        spec.get("username", ""),
        "<none>" if seconds is None else human_duration(seconds),
        _condition(status),
    ]


def _condition(status: Obj) -> str:
    kinds = [item.get("type") for item in status.get("conditions") or ()]
    texts = ["Denied" if "Denied" in kinds else "Approved" if "Approved" in kinds else "Pending"]
    if "Failed" in kinds:
        texts.append("Failed")
    if status.get("certificate"):
        texts.append("Issued")
    return ",".join(texts)
