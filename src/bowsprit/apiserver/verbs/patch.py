"""PATCH: JSON, merge and strategic merge patches, and server-side apply (upstream handlers/patch.go)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from bowsprit.apiserver import mutation, negotiation, ownership
from bowsprit.apiserver.admit import Operation
from bowsprit.apiserver.answer import Answer
from bowsprit.apiserver.call import Call
from bowsprit.apiserver.decoding import report
from bowsprit.apiserver.options import apply_write_options
from bowsprit.apiserver.strategy import Strategy
from bowsprit.apiserver.verbs.create import dedup_owner_references
from bowsprit.apiserver.verbs.patched import Patch, Patched, decoder_of, read_back
from bowsprit.apiserver.verbs.update import admission, check_name, mutate
from bowsprit.machinery import builtin, jsonpatch, mergepatch, strategicpatch
from bowsprit.machinery.codec import (
    DecodeError,
    decode_json,
    decode_json_pairs,
    decode_yaml_strict,
    duplicate_fields,
)
from bowsprit.machinery.errors import (
    StatusError,
    UnsupportedMediaTypeError,
    bad_request,
    conflict,
    generic,
    not_found,
    too_large,
    unknown,
)
from bowsprit.machinery.goorder import opened
from bowsprit.machinery.jsonsyntax import type_name
from bowsprit.machinery.names import GroupVersionKind
from bowsprit.machinery.objects import Obj, deep_copy, name, namespace
from bowsprit.machinery.schema import CustomResourceSchema

_SCALE = GroupVersionKind("autoscaling", "v1", "Scale")
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
_SORTS = {JSON_PATCH: "json", MERGE_PATCH: "merge", STRATEGIC_PATCH: "strategic", APPLY_PATCH: "apply"}

_BAD_STRATEGIC = frozenset(
    {
        "invalid JSON document",
        "invalid patch format of primitive list",
        "invalid patch format of retainKeys",
        "invalid patch format of setElementOrder list",
        "strategic merge patch format is not supported",
    }
)


async def patch(call: Call, strategy: Strategy | None = None) -> Answer:
    """Changes and answers 200, or 201 where apply creates. `strategy` is that of a subresource."""
    sort = patch_sort(call)
    chosen = call.representation()
    data = await call.body()
    options = apply_write_options(call.ctx, "PatchOptions", call.query, patch=True, apply_patch=sort == "apply")
    info = call.ctx.info
    if sort == "apply":
        compute = _applying(call, data, options)
    else:
        compute = _patching(call, parse_patch(call, sort, data), options)
    stored, created = await mutation.update(
        call.collection,
        call.version,
        info.namespace,
        info.name,
        call.ctx,
        compute,
        admission(call, Operation.UPDATE, options),
        strategy=strategy,
        create_absent=sort == "apply" and strategy is None,
        admit_creation=admission(call, Operation.CREATE, options),
    )
    return await call.respond(chosen, stored, 201 if created else 200)


def patch_sort(call: Call) -> str:
    """json, merge, strategic or apply, by the body's media type. Raises 415."""
    content_type = call.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    sort = _SORTS.get(content_type, "")
    if sort in call.version.patch_types:
        return sort
    if call.endpoint.resource.custom:
        names = tuple(name for name, each in _SORTS.items() if each in call.version.patch_types)
        raise negotiation.unknown_body_type(names)
    raise UnsupportedMediaTypeError("415: Unsupported Media Type", details={})


def parse_patch(call: Call, sort: str, data: bytes) -> Patch:
    """The patch of a body as a function, which raises 400 or 413 for a bad body: an absent object is found out first."""
    parsed: list[Patch] = []

    def apply(live: Obj) -> Patched:
        if not parsed:
            parsed.append(_parse(call, sort, data))
        return parsed[0](live)

    return apply


def _parse(call: Call, sort: str, data: bytes) -> Patch:
    try:
        value = decode_json(data)
        tree = decode_json_pairs(data, value)
        if sort == "json":
            operations = jsonpatch.check(value)
            if len(operations) > jsonpatch.MAX_OPERATIONS:
                raise too_large(
                    f"The allowed maximum operations in a JSON patch is {jsonpatch.MAX_OPERATIONS}, got {len(operations)}"
                )
            return _json_patch(operations)
        if value is None and sort == "strategic":
            value = {}
        if not isinstance(value, dict):
            if value is None:
                raise bad_request("Invalid JSON Patch")
            raise DecodeError(
                f"json: cannot unmarshal {type_name(value)} into Go value of type map[string]interface {{}}"
            )
    except DecodeError as failure:
        raise bad_request(f"{failure}" if sort == "strategic" else f"error decoding patch: {failure}") from failure
    duplicates = duplicate_fields(tree)
    if sort == "merge":
        return lambda live: Patched(mergepatch.apply(live, value), duplicates, value)
    return _strategic_patch(call, value, duplicates)


def _json_patch(operations: list[Obj]) -> Patch:
    texts = jsonpatch.unknown_fields(operations)
    pointers = [each[key] for each in operations for key in ("path", "from") if isinstance(each.get(key), str)]

    def apply(live: Obj) -> Patched:
        try:
            return Patched(jsonpatch.apply(live, operations), texts, opened(pointers))
        except jsonpatch.JSONPatchError as failure:
            raise generic(422) from failure

    return apply


def _strategic_patch(call: Call, value: Obj, duplicates: list[str]) -> Patch:
    type_, schema = builtin.lookup(call.version.gvk), call.version.schema
    merge: Callable[[Obj, Obj], Obj]
    if type_ is not None:
        merge = partial(strategicpatch.apply, type_=type_)
    elif isinstance(schema, CustomResourceSchema):
        merge = partial(strategicpatch.apply_by_schema, schema=schema.source or {})
    else:
        raise UnsupportedMediaTypeError("415: Unsupported Media Type", details={})

    def apply(live: Obj) -> Patched:
        try:
            return Patched(merge(live, value), duplicates, value, strategic=True)
        except strategicpatch.StrategicPatchError as failure:
            raise _strategic_failure(str(failure)) from failure

    return apply


def _strategic_failure(text: str) -> StatusError:
    """Upstream interpretStrategicMergePatchError."""
    if text in _BAD_STRATEGIC:
        return bad_request(text)
    return generic(422) if text == "lists of lists are not supported" else unknown(text)


def _patching(call: Call, apply: Patch, options: Obj) -> mutation.Compute:
    async def compute(live: Obj | None) -> Obj:
        if live is None:  # only apply creates, also where an update may
            raise not_found(call.version.gvr.gr, call.ctx.info.name)
        new = read_back(call, apply(live), call.version.gvk, decoder_of(call.version))
        call.endpoint.resource.strategy.default(new)
        check_name(call, new)
        dedup_owner_references(call, new)
        await ownership.track(call.collection, call.version, live, new, call.ctx, call.ctx.info.subresource)
        return await mutate(call, new, live, options)

    return compute


def _applying(call: Call, data: bytes, options: Obj) -> mutation.Compute:
    applied = parse_applied(call, data)
    info = call.ctx.info

    async def compute(live: Obj | None) -> Obj:
        if live is None:
            if applied["metadata"].get("uid"):
                raise conflict(
                    call.version.gvr.gr,
                    info.name,
                    f"uid mismatch: the provided object specified uid {applied['metadata']['uid']}, and no existing object was found",
                )
            await call.authorize("create")
        new = await ownership.apply(
            call.collection,
            call.version,
            live,
            deep_copy(applied),
            call.ctx,
            force=bool(options.get("force")),
            subresource=info.subresource,
        )
        if call.version.schema is not None:
            try:
                new, _ = call.version.schema.decode(new, new, applied=True)
            except DecodeError as failure:
                raise _unconvertible(new, call.version.gvk, failure) from failure
        call.endpoint.resource.strategy.default(new)
        check_name(call, new)
        dedup_owner_references(call, new)
        return await mutate(call, new, live, options)

    return compute


def _unconvertible(new: Obj, gvk: GroupVersionKind, failure: DecodeError) -> StatusError:
    """What fits the schema and not the Go type: a quantity, a time."""
    where = f"{namespace(new)}/{name(new)}; {gvk}"
    return unknown(
        f"failed to convert new object ({where}) to proper version: unable to convert unstructured object to {gvk}: "
        f"{builtin.restore_error(failure)}"
    )


def parse_applied(call: Call, data: bytes) -> Obj:
    """The configuration of an apply patch. Raises 400."""
    try:
        applied, texts = decode_yaml_strict(data)
    except DecodeError as failure:
        raise bad_request(f"error decoding YAML: error converting YAML to JSON: {failure}") from failure
    if applied is None:
        applied = {}
    if not isinstance(applied, dict):
        raise bad_request(
            "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal "
            f"{type_name(applied)} into Go value of type map[string]interface {{}}"
        )
    if texts and call.ctx.field_validation == "Strict":
        raise bad_request(f"error strict decoding YAML: error converting YAML to JSON: {', '.join(texts)}")
    report(call.ctx, texts, "")
    try:
        given = GroupVersionKind.parse(str(applied.get("apiVersion") or ""), str(applied.get("kind") or ""))
    except ValueError:
        given = GroupVersionKind("", "", str(applied.get("kind") or ""))
    if given != (_SCALE if call.ctx.info.subresource == "scale" else call.version.gvk):
        raise bad_request(f"invalid object type: {given}")
    if applied.get("metadata") is None:
        applied["metadata"] = {}
    if not isinstance(applied["metadata"], dict):
        raise bad_request("error decoding YAML: metadata is not an object")
    return applied
