"""Two toy kinds and a client with short hands, for the tests of the API server library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import aiohttp

from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.resource import (
    Column,
    Printer,
    Resource,
    ScaleSubresource,
    StatusSubresource,
    Version,
)
from bowsprit.apiserver.strategy import Strategy
from bowsprit.apiserver.user import UserInfo
from bowsprit.machinery.fielderrors import FieldError, invalid, path
from bowsprit.machinery.names import GroupVersionKind, GroupVersionResource
from bowsprit.machinery.objects import Obj

ADMIN = UserInfo("admin", groups=("system:masters",))


class WidgetStrategy(Strategy):
    """spec.size must not be negative; status is its own subresource; spec.color can be selected."""

    has_generation = True

    def default(self, obj: Obj) -> None:
        obj.setdefault("spec", {}).setdefault("size", 1)

    def prepare_for_create(self, obj: Obj, ctx: RequestContext) -> None:
        obj.pop("status", None)

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        new.pop("status", None)
        if "status" in old:
            new["status"] = old["status"]

    def validate(self, obj: Obj) -> list[FieldError]:
        size = obj["spec"]["size"]
        return [] if size >= 0 else [invalid(path("spec").child("size"), size, "must not be negative")]

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return self.validate(new)

    def warnings(self, obj: Obj, old: Obj | None) -> list[str]:
        return ['spec.color: "red" is "loud"'] if obj["spec"].get("color") == "red" else []

    def selectable_fields(self, obj: Obj) -> Mapping[str, str]:
        return {"spec.color": obj["spec"].get("color", "")}

    def selectable_field_names(self) -> frozenset[str]:
        return frozenset({"spec.color"})


class WidgetStatusStrategy(WidgetStrategy):
    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        status = new.get("status")
        meta = new["metadata"]
        new.clear()
        new.update(old)
        new["metadata"] = {**old["metadata"], "resourceVersion": meta["resourceVersion"]}
        if status is not None:
            new["status"] = status


class SlowlyDeleted(Strategy):
    """Goes 30 seconds after its deletion unless told otherwise, at once when it is idle."""

    deletes_to_object = True

    def grace_period(self, obj: Obj, requested: int | None, ctx: RequestContext) -> int | None:
        if obj.get("idle"):
            return 0
        return 30 if requested is None else requested


def _cells(obj: Obj, now: datetime) -> list[Any]:
    return [obj["metadata"]["name"], obj["spec"]["size"]]


def widgets() -> Resource:
    printer = Printer((Column("Name", "string", format="name"), Column("Size", "integer")), _cells)
    return Resource(
        "Widget",
        "widgets",
        [
            Version(
                GroupVersionResource("toys.example", "v1", "widgets"),
                GroupVersionKind("toys.example", "v1", "Widget"),
                printer=printer,
                protobuf=False,
            ),
            Version(
                GroupVersionResource("toys.example", "v1beta1", "widgets"),
                GroupVersionKind("toys.example", "v1beta1", "Widget"),
                deprecation_warning="toys.example/v1beta1 Widget is deprecated",
                protobuf=False,
            ),
        ],
        group="toys.example",
        short_names=["w"],
        strategy=WidgetStrategy(),
        subresources={
            "status": StatusSubresource(WidgetStatusStrategy()),
            "scale": ScaleSubresource(("spec", "size"), ("status", "size")),
        },
    )


def crates() -> Resource:
    return Resource(
        "Crate",
        "crates",
        [
            Version(
                GroupVersionResource("toys.example", "v1", "crates"),
                GroupVersionKind("toys.example", "v1", "Crate"),
                protobuf=False,
            )
        ],
        group="toys.example",
        namespaced=False,
        strategy=SlowlyDeleted(),
    )


@dataclass
class Reply:
    status: int
    body: Any
    headers: Any
    raw: bytes


class Client:
    """Short hands for requests."""

    def __init__(self, base: str, session: aiohttp.ClientSession) -> None:
        self.base = base
        self.session = session

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        data: bytes | None = None,
    ) -> Reply:
        send = dict(headers or {})
        if body is not None:
            data = json.dumps(body).encode()
            send.setdefault("Content-Type", "application/json")
        async with self.session.request(
            method, self.base + path, data=data, headers=send, allow_redirects=False, skip_auto_headers=["Content-Type"]
        ) as response:
            raw = await response.read()
            try:
                parsed = json.loads(raw)
            except ValueError:
                parsed = raw.decode("utf-8", "replace")
            return Reply(response.status, parsed, response.headers, raw)

    async def get(self, path: str, **headers: str) -> Reply:
        return await self.call("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    async def post(self, path: str, body: Any) -> Reply:
        return await self.call("POST", path, body)

    async def put(self, path: str, body: Any) -> Reply:
        return await self.call("PUT", path, body)

    async def delete(self, path: str, body: Any = None) -> Reply:
        return await self.call("DELETE", path, body)

    async def merge(self, path: str, body: Any) -> Reply:
        return await self.call("PATCH", path, body, headers={"Content-Type": "application/merge-patch+json"})


WIDGETS = "/apis/toys.example/v1/namespaces/ns/widgets"
CRATES = "/apis/toys.example/v1/crates"


def widget(name: str, **spec: Any) -> Obj:
    return {"apiVersion": "toys.example/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec}
