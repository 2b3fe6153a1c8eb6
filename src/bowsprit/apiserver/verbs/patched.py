"""What a patch has made of an object, read back like a body (upstream patcher.applyPatchToCurrentObject).

JSON and merge patches lead to a text, which is decoded: it says of which kind it is. Strategic merge patches fill the type.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from bowsprit.apiserver.call import Call
from bowsprit.apiserver.decoding import check_head, not_an_object, read_metadata, refusal
from bowsprit.apiserver.resource import Version
from bowsprit.machinery import builtin, goformat
from bowsprit.machinery.codec import DecodeError
from bowsprit.machinery.errors import StatusError, invalid
from bowsprit.machinery.fielderrors import invalid as invalid_field
from bowsprit.machinery.fielderrors import path
from bowsprit.machinery.goorder import ordered, resorted
from bowsprit.machinery.names import GroupKind, GroupVersionKind
from bowsprit.machinery.objects import Obj


@dataclass(frozen=True, slots=True)
class Patched:
    """A result not yet read.

    Args:
        value: what the patch has made of the live object.
        texts: what a strict decoder says of the patch itself.
        touched: the patch's members as goorder.resorted takes them; the patch itself where it is a merge patch.
        strategic: fills the type; what it says of its kind does not count.
    """

    value: Any
    texts: list[str]
    touched: Obj
    strategic: bool = False

    def shown(self, gvk: GroupVersionKind) -> str:
        """The result in refusals: as Go writes the object, or the patch where it is strategic."""
        if self.strategic:
            return goformat.value(self.touched)
        type_ = builtin.lookup(gvk)
        if type_ is None:
            return goformat.json_text(self.value, sort_keys=True)
        return goformat.json_text(resorted(ordered(self.value, type_.message), self.touched))


Patch = Callable[[Obj], Patched]
# (object, the same as the strict decoder goes through it) -> (object of the type, complaints); raises DecodeError
Decode = Callable[[Obj, Any], tuple[Obj, list[str]]]


def read_back(call: Call, patched: Patched, gvk: GroupVersionKind, decode: Decode) -> Obj:
    """The object, checked like a body but not defaulted. Raises 400, 422."""
    value = patched.value
    if not isinstance(value, dict):
        raise _refused(patched, gvk, not_an_object(value))
    if patched.strategic:
        value["kind"], value["apiVersion"] = gvk.kind, gvk.api_version
    elif not _says_its_kind(call, patched, gvk):
        # Upstream decodes what has no apiVersion into its internal struct, whose members JSON does not know.
        unknown = [f'unknown field "{name}"' for name in sorted(value) if name not in ("apiVersion", "kind")]
        _complain(call, patched, gvk, [*patched.texts, *unknown])
        return {"kind": gvk.kind, "apiVersion": gvk.api_version, "metadata": {}}
    if value.get("metadata") is None:
        value["metadata"] = {}
    try:
        # Upstream decodes a text whose keys are sorted: the complaints come in that order.
        value, found = decode(value, orjson.loads(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)))
    except DecodeError as failure:
        detail = builtin.restore_error(failure) if patched.strategic else str(failure)
        raise _refused(patched, gvk, detail) from failure
    _complain(call, patched, gvk, [*patched.texts, *(text for text in found if text not in patched.texts)])
    return value


def decoder_of(version: Version) -> Decode:
    """How objects of a version are read."""
    if version.schema is not None:
        return version.schema.decode
    return lambda obj, _: ({**obj, "metadata": read_metadata(obj["metadata"])}, [])


def _says_its_kind(call: Call, patched: Patched, wanted: GroupVersionKind) -> bool:
    """Whether the result has an apiVersion; a patch cannot make another kind of an object. Raises 422."""
    value = patched.value
    if problem := check_head(value):
        raise _refused(patched, wanted, problem)
    kind, api_version = value.get("kind") or "", value.get("apiVersion") or ""
    if builtin.lookup(wanted) is None:
        missing = "Kind" if not kind else "apiVersion" if not api_version else ""
        if missing:  # upstream finds a missing apiVersion late, and calls it its own failure
            raise _refused(patched, wanted, f"Object '{missing}' is missing in '{patched.shown(wanted)}'")
        pairs = (("apiVersion", api_version, wanted.api_version), ("kind", kind, wanted.kind))
        errors = [
            invalid_field(path(name), given, f"must be {right}") for name, given, right in pairs if given != right
        ]
        if errors:
            raise invalid(GroupVersionKind.parse(api_version, kind).gk, call.ctx.info.name, errors)
    elif not api_version:
        return False
    given = GroupVersionKind.parse(api_version, kind or wanted.kind)
    if given != wanted:
        raise _refused(patched, wanted, refusal(given, wanted, call.registry.knows))
    value["kind"] = wanted.kind
    return True


def _complain(call: Call, patched: Patched, gvk: GroupVersionKind, texts: list[str]) -> None:
    """Warns of unknown and repeated fields or refuses them, as fieldValidation demands."""
    if texts and call.ctx.field_validation == "Strict":
        raise _refused(patched, gvk, f"strict decoding error: {', '.join(texts)}")
    if call.ctx.field_validation != "Ignore":
        for text in texts:
            call.ctx.warn(text)


def _refused(patched: Patched, gvk: GroupVersionKind, detail: str) -> StatusError:
    """422 for what a patch leads to."""
    return invalid(GroupKind("", ""), "", [invalid_field(path("patch"), patched.shown(gvk), detail)])
