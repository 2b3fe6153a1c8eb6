"""ServiceAccounts."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.strategy import Strategy
from bowsprit.controlplane.printing import age_of, name_of
from bowsprit.machinery.objects import Obj


class ServiceAccountStrategy(Strategy):
    """Upstream returns the account that was deleted."""

    deletes_to_object = True

    def prepare_for_create(self, obj: Obj, ctx: RequestContext) -> None:
        _keep_names_only(obj)

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        _keep_names_only(new)


def _keep_names_only(obj: Obj) -> None:
    """Of a reference to a secret the name counts (upstream cleanSecretReferences)."""
    if obj.get("secrets"):
        obj["secrets"] = [{"name": item["name"]} if item.get("name") else {} for item in obj["secrets"]]


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Age."""
    return [name_of(obj), age_of(obj, now)]
