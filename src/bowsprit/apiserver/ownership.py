"""Field ownership: managedFields kept up to date by every write (upstream fieldmanager)."""

from __future__ import annotations

from typing import Any

from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.resource import Version
from bowsprit.machinery.objects import Obj

MAX_MANAGER_BYTES = 128


def manager_of(ctx: RequestContext) -> str:
    """The fieldManager parameter, else what precedes the first slash of the User-Agent (upstream managerOrUserAgent)."""
    if ctx.field_manager:
        return ctx.field_manager
    prefix = ctx.user_agent.partition("/")[0]
    kept = bytearray()
    for char in prefix:
        if not char.isprintable():
            continue
        data = char.encode()
        if len(kept) + len(data) > MAX_MANAGER_BYTES:
            break
        kept += data
    return kept.decode()


def track(version: Version, live: Obj | None, new: Obj, ctx: RequestContext, subresource: str = "") -> None:
    """Sets the managedFields of `new`, which `ctx`'s manager made of `live` (None: created)."""
    schema: Any = version.schema
    update = getattr(schema, "track", None)
    if update is not None:
        update(live, new, manager_of(ctx), ctx.now, subresource)
    elif live is not None and "managedFields" not in new["metadata"] and "managedFields" in live["metadata"]:
        new["metadata"]["managedFields"] = live["metadata"]["managedFields"]


def apply(
    version: Version, live: Obj | None, applied: Obj, ctx: RequestContext, *, force: bool, subresource: str = ""
) -> Obj:
    """Server-side apply. Raises apply_conflict, bad_request, unknown."""
    schema: Any = version.schema
    result: Obj = schema.apply(live, applied, manager_of(ctx), ctx.now, force, subresource)
    return result
