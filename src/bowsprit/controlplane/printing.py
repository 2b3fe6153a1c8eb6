"""What several kinds print alike in table cells (upstream pkg/printers/internalversion)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from bowsprit.machinery.humanduration import age
from bowsprit.machinery.objects import Obj

NONE = "<none>"
UNSET = "<unset>"


def name_of(obj: Obj) -> str:
    return str(obj["metadata"].get("name", ""))


def age_of(obj: Obj, now: datetime) -> str:
    return age(obj["metadata"].get("creationTimestamp"), now)


def joined(values: Iterable[Any] | None, separator: str = ",") -> str:
    """The values in one text, ``<none>`` when there are none."""
    return separator.join(map(str, values or ())) or NONE


def labels_text(labels: Obj | None) -> str:
    """``a=b,c=d`` in the order of the keys, ``<none>`` when empty."""
    return joined(f"{key}={value}" for key, value in sorted((labels or {}).items()))


def selector_text(selector: Obj | None) -> str:
    """A metav1.LabelSelector as text (upstream FormatLabelSelector)."""
    if selector is None:
        return NONE
    parts = [(key, f"{key}={value}") for key, value in (selector.get("matchLabels") or {}).items()]
    for term in selector.get("matchExpressions") or ():
        key, operator, values = term["key"], term["operator"], ",".join(sorted(term.get("values") or ()))
        text = {
            "In": f"{key} in ({values})",
            "NotIn": f"{key} notin ({values})",
            "Exists": key,
            "DoesNotExist": f"!{key}",
        }.get(operator, "<error>")
        parts.append((key, text))
    return joined(text for _, text in sorted(parts, key=lambda part: part[0]))


def containers_text(containers: Iterable[Obj] | None) -> tuple[str, str]:
    """Names and images, comma-joined."""
    listed = list(containers or ())
    return ",".join(item.get("name", "") for item in listed), ",".join(item.get("image", "") for item in listed)
