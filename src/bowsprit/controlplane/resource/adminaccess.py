"""Admin access to devices: who may use those that others use, too (upstream resourceutils.AuthorizedForAdmin)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj

ADMIN_ACCESS = "resource.kubernetes.io/admin-access"
LabelsOf = Callable[[str], Mapping[str, str]]  # the labels of a namespace


def all_labelled(_: str) -> Mapping[str, str]:
    """Without a server no namespace can be asked: all are taken to be labelled."""
    return {ADMIN_ACCESS: "true"}


def request_errors(spec: Obj, labels: Mapping[str, str]) -> list[FieldError]:
    """The requests of a claim in a namespace with these labels."""
    requests = (spec.get("devices") or {}).get("requests") or ()
    holders = [request.get("exactly") or {} for request in requests]
    return _errors(holders, labels, path("spec", "devices", "requests"))


def result_errors(results: Iterable[Obj], labels: Mapping[str, str]) -> list[FieldError]:
    """What a claim in a namespace with these labels is said to have been given."""
    return _errors(results, labels, path("status", "allocation", "devices", "results"))


def _errors(holders: Iterable[Obj], labels: Mapping[str, str], where: Path) -> list[FieldError]:
    """One refusal is enough."""
    if labels.get(ADMIN_ACCESS) == "true":
        return []
    for index, holder in enumerate(holders):
        if holder.get("adminAccess"):
            detail = f"admin access to devices requires the `{ADMIN_ACCESS}: true` label on the containing namespace"
            return [fielderrors.forbidden(where.index(index).child("adminAccess"), detail)]
    return []
