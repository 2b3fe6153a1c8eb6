"""DaemonSets."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from bowsprit.apiserver.request import RequestContext
from bowsprit.controlplane.apps.validation import daemon_set_errors
from bowsprit.controlplane.core.podspec import default_template
from bowsprit.controlplane.immutable import immutable_struct
from bowsprit.controlplane.printing import age_of, containers_text, labels_text, name_of, selector_text
from bowsprit.controlplane.statused import StatusedStrategy, copy_field
from bowsprit.machinery.errors import bad_request
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.objects import Obj

TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"


class DaemonSetStrategy(StatusedStrategy):
    """The main endpoint."""

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        default_template(spec.get("template"))
        strategy = spec.setdefault("updateStrategy", {})
        strategy["type"] = strategy.get("type") or "RollingUpdate"
        if strategy["type"] == "RollingUpdate":
            rolling = strategy.get("rollingUpdate")
            if rolling is None:
                rolling = strategy["rollingUpdate"] = {}
            for field, value in (("maxUnavailable", 1), ("maxSurge", 0)):
                if rolling.get(field) is None:
                    rolling[field] = value
        if spec.get("revisionHistoryLimit") is None:
            spec["revisionHistoryLimit"] = 10
        # Written whenever upstream converts the object from its internal form, so whoever creates it owns it.
        annotations = obj["metadata"].setdefault("annotations", {})
        annotations[TEMPLATE_GENERATION] = str(_generation(annotations.get(TEMPLATE_GENERATION, "0")))

    def prepare_for_create(self, obj: Obj, ctx: RequestContext) -> None:
        obj["status"] = {
            "currentNumberScheduled": 0,
            "numberMisscheduled": 0,
            "desiredNumberScheduled": 0,
            "numberReady": 0,
        }
        annotations = obj["metadata"]["annotations"]
        annotations[TEMPLATE_GENERATION] = str(max(1, int(annotations[TEMPLATE_GENERATION])))

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        copy_field(new, old, "status")
        generation = int((old["metadata"].get("annotations") or {}).get(TEMPLATE_GENERATION) or 0)
        if new["spec"].get("template") != old["spec"].get("template"):
            generation += 1
        new["metadata"]["annotations"][TEMPLATE_GENERATION] = str(generation)

    def validate(self, obj: Obj) -> list[FieldError]:
        return daemon_set_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return daemon_set_errors(new) + immutable_struct(
            "LabelSelector", new["spec"].get("selector"), old["spec"].get("selector"), path("spec", "selector")
        )


def _generation(text: str) -> int:
    """An annotation that is a field of upstream's internal form. Raises 400."""
    problem = "" if re.fullmatch(r"[+-]?[0-9]+", text) else "invalid syntax"
    if not problem and not -(2**63) <= int(text) < 2**63:
        problem = "value out of range"
    if problem:
        told = f"strconv.ParseInt: parsing {quote(text)}: {problem}"
        raise bad_request(f'DaemonSet in version "v1" cannot be handled as a DaemonSet: {told}')
    return int(text)


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Desired, Current, Ready, Up-to-date, Available, Node Selector, Age, Containers, Images, Selector."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    pod = (spec.get("template") or {}).get("spec") or {}
    names, images = containers_text(pod.get("containers"))
    counts = (
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    )
    return [
        name_of(obj),
        *(status.get(field, 0) for field in counts),
        labels_text(pod.get("nodeSelector")),
        age_of(obj, now),
        names,
        images,
        selector_text(spec.get("selector")),
    ]
