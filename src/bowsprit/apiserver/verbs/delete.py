"""DELETE of an object and of a collection (upstream handlers/delete.go)."""

from __future__ import annotations

from typing import Any

from bowsprit.apiserver import deletion, negotiation, representation
from bowsprit.apiserver.admit import Operation
from bowsprit.apiserver.answer import Answer
from bowsprit.apiserver.call import Call
from bowsprit.apiserver.collection import VIEWS_AT_ONCE, Stored
from bowsprit.apiserver.creation import Validate
from bowsprit.apiserver.decoding import check_head, not_an_object
from bowsprit.apiserver.options import META_GROUP, DeleteOptions, ListOptions
from bowsprit.apiserver.selection import Selection
from bowsprit.apiserver.verbs.list import find, list_object
from bowsprit.machinery import builtin, protobuf
from bowsprit.machinery.codec import DecodeError, decode_json, decode_yaml
from bowsprit.machinery.errors import NotFoundError, bad_request
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.names import GroupVersionKind
from bowsprit.machinery.objects import Obj

_SCHEME = "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27"
_OPTIONS_MESSAGE = "k8s.io.apimachinery.pkg.apis.meta.v1.DeleteOptions"
_OPTIONS_KIND = GroupVersionKind("", "v1", "DeleteOptions")


async def delete(call: Call) -> Answer:
    """Deletes one object: 200 with a Status or the object, 202 when orphanDependents=false leaves it to a finalizer."""
    chosen = call.representation()
    options = await read_options(call)
    options.check()
    call.ctx.dry_run = bool(options.dry_run)
    orphan = options.orphan_dependents
    info = call.ctx.info
    stored, gone = await deletion.delete(
        call.collection,
        call.version,
        info.namespace,
        info.name,
        options,
        call.ctx,
        _admission(call, options, info.name),
    )
    if not gone or call.endpoint.resource.strategy.deletes_to_object:
        return await call.respond(chosen, stored, 202 if not gone and orphan is False else 200)
    return representation.answer(call.ctx, chosen, 200, obj=success(call, stored))


def success(call: Call, stored: Stored) -> Obj:
    """The Status of a completed deletion."""
    gr = call.version.gvr.gr
    details = {"name": stored.obj["metadata"]["name"]}
    if gr.group:
        details["group"] = gr.group
    details["kind"] = gr.resource
    details["uid"] = stored.obj["metadata"]["uid"]
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def _admission(call: Call, options: DeleteOptions, name: str) -> Validate:
    async def admit(new: Obj, old: Obj | None) -> None:
        attributes = call.attributes(Operation.DELETE, None, old, options.to_obj(), name=name)
        await call.admission.mutate(attributes)
        await call.admission.validate(attributes)

    return admit


async def delete_collection(call: Call) -> Answer:
    """Deletes what the selectors select and answers the list of what was found."""
    chosen = call.representation()
    list_options = ListOptions.from_query(call.query)
    list_options.check(watch=False)
    options = await read_options(call)
    options.check()
    call.ctx.dry_run = bool(options.dry_run)
    info = call.ctx.info
    collection = call.collection
    selection = Selection(collection, info.namespace, list_options.label_selector, list_options.field_selector)
    listing = await find(call, selection, list_options)
    shown = []
    if collection.resource.conversion is not None:
        await collection.prepare(call.version, [collection.decode(item) for item in listing.items[:VIEWS_AT_ONCE]])
    for item in listing.items:
        # A fresh copy: one object's grace period is no order for the next.
        each = DeleteOptions.from_obj(options.to_obj())
        namespace, _, name = item.key[len(collection.resource.key_prefix) :].rpartition("/")
        shown.append(await collection.view(call.version, collection.decode(item)))
        try:
            await deletion.delete(
                collection, call.version, namespace, name, each, call.ctx, _admission(call, each, name)
            )
        except NotFoundError:
            continue
    return representation.answer(call.ctx, chosen, 200, obj=list_object(call, chosen, shown, listing.metadata()))


async def read_options(call: Call) -> DeleteOptions:
    """DeleteOptions of the body, or of the query when there is no body. Raises 400, 415."""
    data = await call.body()
    if not data:
        return DeleteOptions.from_query(call.query) if call.query else DeleteOptions()
    media_type = negotiation.body_media_type(call.request.headers.get("Content-Type", ""))
    try:
        if media_type == negotiation.PROTOBUF:
            value: Any = protobuf.decode(data, _OPTIONS_KIND)
        elif media_type == negotiation.YAML:
            value = decode_yaml(data)
        else:
            value = decode_json(data)
    except DecodeError as failure:
        prefix = "" if media_type == negotiation.PROTOBUF else "couldn't get version/kind; json parse error: "
        raise bad_request(f"{prefix}{failure}") from failure
    if value is None:
        return DeleteOptions()
    if not isinstance(value, dict):
        raise bad_request(not_an_object(value))
    if problem := check_head(value):
        raise bad_request(problem)
    kind = value.get("kind") or "DeleteOptions"
    if kind != "DeleteOptions":
        version = value.get("apiVersion") or f"{META_GROUP}/v1"
        raise bad_request(
            f"no kind {quote(str(kind))} is registered for version {quote(str(version))} in scheme {quote(_SCHEME)}"
        )
    try:
        return DeleteOptions.from_obj(builtin.message_type(_OPTIONS_MESSAGE).round_trip(value))
    except DecodeError as failure:
        raise bad_request(str(failure)) from failure
