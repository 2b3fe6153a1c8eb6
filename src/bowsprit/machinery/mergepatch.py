"""JSON merge patch (RFC 7396): objects merge, null deletes, everything else replaces."""

from __future__ import annotations

from typing import Any

from bowsprit.machinery.objects import Obj, deep_copy


def apply(target: Any, patch: Any) -> Any:
    """The patched value; neither argument is changed."""
    if not isinstance(patch, dict):
        return deep_copy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = apply(result.get(key), value)
        else:
            result[key] = deep_copy(value)
    return result


def diff(old: Obj, new: Obj) -> Obj:
    """The patch that makes `new` of `old`. Nulls inside `new` cannot be expressed and mean deletion."""
    patch: Obj = {}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            below = diff(before, value)
            if below:
                patch[key] = below
        elif key not in old or before != value or type(before) is not type(value):
            patch[key] = deep_copy(value)
    for key in old:
        if key not in new:
            patch[key] = None
    return patch
