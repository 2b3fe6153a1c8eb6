"""How CustomResourceDefinitions are defaulted, prepared and judged."""

from __future__ import annotations

from typing import Any

from bowsprit.apiserver.request import RequestContext
from bowsprit.controlplane.apiextensions.validation import (
    definition_errors,
    definition_update_errors,
    definition_warnings,
    stored_errors,
)
from bowsprit.controlplane.statused import StatusedStrategy, StatusStrategy
from bowsprit.machinery.fielderrors import FieldError
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.time import format_time

FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
_TERMINATING = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"


class DefinitionStrategy(StatusedStrategy):
    """The main endpoint. A deleted definition stays until its objects are gone: a finalizer holds it."""

    allow_unconditional_update = False
    marks_grace_period = False

    def default(self, obj: Obj) -> None:
        """Upstream SetDefaults_CustomResourceDefinitionSpec."""
        spec = obj.setdefault("spec", {})
        names = spec.setdefault("names", {})
        kind = names.get("kind", "")
        if not names.get("singular") and kind:
            names["singular"] = kind.lower()
        if not names.get("listKind") and kind:
            names["listKind"] = f"{kind}List"
        conversion = spec.get("conversion")
        if conversion is None:
            conversion = spec["conversion"] = {"strategy": "None"}
        service = ((conversion.get("webhook") or {}).get("clientConfig") or {}).get("service")
        if service is not None and service.get("port") is None:
            service["port"] = 443

    def prepare_for_create(self, obj: Obj, ctx: RequestContext) -> None:
        obj["status"] = {"conditions": None, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": None}
        _note_storage(obj)

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        super().prepare_for_update(new, old, ctx)
        new["status"] = dict(new.get("status") or {})
        _note_storage(new)

    def mark_deleting(self, obj: Obj, ctx: RequestContext) -> None:
        """Upstream's registry Delete: the condition and the finalizer come with the deletion timestamp."""
        finalizers = obj["metadata"].setdefault("finalizers", [])
        if FINALIZER not in finalizers:
            finalizers.append(FINALIZER)
        status = obj.setdefault("status", {})
        conditions = [item for item in status.get("conditions") or () if item.get("type") != "Terminating"]
        condition = {
            "type": "Terminating",
            "status": "True",
            "lastTransitionTime": format_time(ctx.now),
            "reason": "InstanceDeletionPending",
            "message": _TERMINATING,
        }
        status["conditions"] = [*conditions, condition]

    def may_vanish(self, obj: Obj) -> bool:
        return bool(obj["metadata"].get("deletionTimestamp"))

    def warnings(self, obj: Obj, old: Obj | None) -> list[str]:
        return definition_warnings(obj, old)

    def validate(self, obj: Obj) -> list[FieldError]:
        return definition_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return definition_update_errors(new, old)


class DefinitionStatusStrategy(StatusStrategy):
    """The ``/status`` endpoint."""

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return stored_errors(new)


def _note_storage(obj: Obj) -> None:
    """The first version marked for storage is one whose objects may exist from now on."""
    stored: Any = obj["status"].get("storedVersions")
    for version in (obj.get("spec") or {}).get("versions") or ():
        if version.get("storage"):
            if version.get("name", "") not in (stored or ()):
                obj["status"]["storedVersions"] = [*(stored or ()), version.get("name", "")]
            break
