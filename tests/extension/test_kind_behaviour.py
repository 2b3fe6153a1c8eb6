"""What a kind declared as a model does when it is served: schema, defaults, validation, versions, subresources, verbs."""

from __future__ import annotations

import datetime
import enum
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, field_validator, model_validator
from standalone import standalone

from bowsprit.client.rest import PatchType, RestClient
from bowsprit.extension import (
    App,
    ExtensionError,
    Forbidden,
    IntOrString,
    Invalid,
    Kind,
    ListMap,
    ListSet,
    Model,
    Quantity,
    RequestContext,
    Rule,
    Scale,
    sqlite,
)
from bowsprit.machinery.errors import StatusError
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.machinery.objects import Obj

GROUP = "shop.example.com"
ORDERS = GroupVersionResource(GROUP, "v1", "orders")
OLD_ORDERS = GroupVersionResource(GROUP, "v1alpha1", "orders")
SHELVES = GroupVersionResource(GROUP, "v1", "shelves")


class Item(Model):
    name: str = Field(min_length=1, max_length=20)
    count: int = Field(1, ge=1, lt=100)
    note: str | None = None


class OrderSpec(Model):
    customer_name: str = Field(pattern="^[a-z]+$", description="Who ordered.")
    items: Annotated[list[Item], ListMap("name")] = Field(default_factory=list)
    tags: Annotated[list[str], ListSet()] = Field(default_factory=list)
    urgency: Literal["low", "high"] = "low"
    port: IntOrString = 80
    size: Quantity = "1Gi"
    replicas: int = Field(1, ge=0)
    low: int = 0
    high: int = 10

    @field_validator("customer_name")
    @classmethod
    def not_nobody(cls, value: str) -> str:
        if value == "nobody":
            raise ValueError("nobody orders nothing")
        return value

    @model_validator(mode="after")
    def not_too_many(self) -> OrderSpec:
        if len(self.items) > 3:
            raise ValueError("an order has at most three items")
        return self


class OrderStatus(Model):
    phase: str = ""
    replicas: int = 0


def shop() -> App:
    """A kind with all that a kind can have, in two versions."""
    app = App(GROUP)

    @app.kind(
        version="v1",
        short_names=["ord"],
        categories=["all"],
        columns={"Customer": ".spec.customerName", "Phase": ".status.phase", "Count": ".spec.replicas"},
        selectable=[".spec.customerName"],
        scale=Scale(),
    )
    class Order(Kind):
        """An order of a customer."""

        spec: Annotated[OrderSpec, Rule("self.low <= self.high", "low must not be above high")]
        status: OrderStatus | None = None

    class OldSpec(Model):
        customer: str
        items: list[Item] = Field(default_factory=list)

    @app.kind(version="v1alpha1", kind="Order", deprecated=True)
    class OldOrder(Kind):
        """An order, as it was."""

        spec: OldSpec
        status: OrderStatus | None = None

    @app.convert(OldOrder, Order)
    def to_new(old: OldOrder) -> Order:
        return Order(metadata=old.metadata, spec=OrderSpec(customer_name=old.spec.customer, items=old.spec.items))

    @app.convert(Order, OldOrder)
    def to_old(new: Order) -> OldOrder:
        spec = OldSpec(customer=new.spec.customer_name, items=new.spec.items)
        return OldOrder(metadata=new.metadata, spec=spec, status=new.status)

    @app.default(Order)
    def set_tag(obj: Order) -> None:
        if obj.spec.urgency == "high" and not obj.spec.tags:
            obj.spec.tags = ["urgent"]

    @app.validate(Order)
    def check(new: Order, old: Order | None, ctx: RequestContext) -> None:
        if old is not None and new.spec.customer_name != old.spec.customer_name:
            raise Invalid("spec.customerName", new.spec.customer_name, "must not change")
        if new.spec.urgency == "high":
            ctx.warn("urgent orders cost more")

    @app.mutate(Order)
    async def label(obj: Order, old: Order | None, ctx: RequestContext) -> None:
        if old is None:
            obj.metadata.labels["by"] = ctx.user.name.replace(":", "-")

    @app.admit(Order)
    async def not_cursed(obj: Order | None, old: Order | None, ctx: RequestContext) -> None:
        if obj is not None and obj.metadata.name == "cursed":
            raise Forbidden("this name may not be used, please change the resource name")
        if obj is None and old is not None and old.metadata.labels.get("keep"):
            raise Forbidden("it is to be kept")

    @app.kind(scope="Cluster", plural="shelves")
    class Shelf(Kind):
        """A shelf has no parts."""

        height: int = 3

    return app


@pytest.fixture
async def client() -> AsyncIterator[RestClient]:
    async with standalone(shop()) as client:
        yield client


def order(name: str = "a", /, **spec: object) -> Obj:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Order",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"customerName": "ann", **spec},
    }


async def refused(client: RestClient, obj: Obj, **options: str) -> StatusError:
    with pytest.raises(StatusError) as caught:
        await client.create(ORDERS, obj, **options)
    return caught.value


async def test_defaults_of_the_model_and_of_the_author_are_stored(client: RestClient) -> None:
    made = await client.create(ORDERS, order(items=[{"name": "pen"}], urgency="high"))
    assert made["spec"] == {
        "customerName": "ann",
        "items": [{"name": "pen", "count": 1}],
        "tags": ["urgent"],
        "urgency": "high",
        "port": 80,
        "size": "1Gi",
        "replicas": 1,
        "low": 0,
        "high": 10,
    }
    assert made["metadata"]["labels"] == {"by": "system-apiserver"}
    assert "status" not in made
    assert (await client.get(ORDERS, "a", namespace="default")) == made


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"customerName": "Ann"}, 'spec.customerName: Invalid value: "Ann": spec.customerName in body should match \'^[a-z]+$\''),
        ({"replicas": "5"}, 'spec.replicas: Invalid value: "string": spec.replicas in body must be of type integer: "string"'),
        ({"urgency": "max"}, 'spec.urgency: Unsupported value: "max": supported values: "low", "high"'),
        (
            {"items": [{"name": "pen", "count": 100}]},
            "spec.items[0].count: Invalid value: 100: spec.items[0].count in body should be less than 100",
        ),
        ({"items": [{"name": ""}]}, "spec.items[0].name: Invalid value: \"\": spec.items[0].name in body should be at least 1 chars long"),
        ({"items": [{}]}, "spec.items[0].name: Required value"),
        ({"items": [{"name": "a"}, {"name": "a"}]}, 'spec.items[1]: Duplicate value: {"name":"a"}'),
        ({"tags": ["a", "a"]}, 'spec.tags[1]: Duplicate value: "a"'),
        ({"low": 11}, 'spec: Invalid value: low must not be above high'),
        ({"customerName": "nobody"}, 'spec.customerName: Invalid value: "nobody": nobody orders nothing'),
        ({"items": [{"name": c} for c in "abcd"]}, 'spec: Invalid value: "object": an order has at most three items'),
        ({"size": "1Zi"}, 'spec.size: Invalid value: "1Zi"'),
    ],
)  # fmt: skip
async def test_schema_then_model_refuse_with_field_errors(client: RestClient, spec: Obj, message: str) -> None:
    failure = await refused(client, order(**spec))
    assert failure.code == 422
    assert failure.message.startswith('Order.shop.example.com "a" is invalid: ')
    assert message in failure.message


async def test_author_sees_new_and_old_object(client: RestClient) -> None:
    made = await client.create(ORDERS, order())
    made["spec"]["customerName"] = "bob"
    with pytest.raises(StatusError, match=r'spec.customerName: Invalid value: "bob": must not change') as caught:
        await client.update(ORDERS, made)
    assert caught.value.code == 422


async def test_nulls_in_metadata_are_absence(client: RestClient) -> None:
    bare = order()
    bare["metadata"] |= {"labels": None, "annotations": None, "creationTimestamp": None, "ownerReferences": None}
    made = await client.create(ORDERS, bare)
    assert "annotations" not in made["metadata"]


async def test_validators_of_mode_before_may_stand_beside_dates_and_enumerations() -> None:
    class Colour(enum.Enum):
        RED = "red"

    class DatedSpec(Model):
        when: datetime.datetime
        colour: Colour = Colour.RED
        count: int = 1

        @model_validator(mode="before")
        @classmethod
        def trim(cls, data: Any) -> Any:
            return {key: value.strip() if isinstance(value, str) else value for key, value in data.items()}

    app = App("dated.example.com")
    model = app.kind(kind="Dated")(type("Dated", (Kind,), {"__annotations__": {"spec": DatedSpec}}))

    @app.default(model)
    def set_count(obj: Any) -> None:
        obj.spec.count += 1

    dated = GroupVersionResource("dated.example.com", "v1", "dateds")
    body: Obj = {
        "apiVersion": "dated.example.com/v1",
        "kind": "Dated",
        "metadata": {"name": "a", "namespace": "default"},
    }
    async with standalone(app) as client:
        made = await client.create(dated, {**body, "spec": {"when": "2026-01-02T03:04:05Z", "colour": "red"}})
        assert made["spec"] == {"when": "2026-01-02T03:04:05Z", "colour": "red", "count": 2}
        with pytest.raises(StatusError, match=r"spec\.count: Invalid value: \"string\""):
            await client.create(dated, {**body, "spec": {"when": "2026-01-02T03:04:05Z", "count": "7"}})


async def test_warnings_of_the_author_are_sent(client: RestClient) -> None:
    path = f"/apis/{GROUP}/v1/namespaces/default/orders"
    import orjson

    answer = await client.raw(
        "POST", path, body=orjson.dumps(order(urgency="high")), headers={"Content-Type": "application/json"}
    )
    assert answer.status == 201
    assert "urgent orders cost more" in answer.headers["Warning"]


async def test_admission_of_the_author_refuses_creation_and_deletion(client: RestClient) -> None:
    failure = await refused(client, order("cursed"))
    assert failure.code == 403
    assert failure.message == (
        'orders.shop.example.com "cursed" is forbidden: this name may not be used, please change the resource name'
    )
    kept = order("kept")
    kept["metadata"]["labels"] = {"keep": "yes"}
    await client.create(ORDERS, kept)
    with pytest.raises(StatusError, match="it is to be kept"):
        await client.delete(ORDERS, "kept", namespace="default")


@pytest.mark.parametrize(("mode", "code"), [("Strict", 400), ("Warn", 201), ("Ignore", 201)])
async def test_unknown_fields_are_pruned_told_or_refused(client: RestClient, mode: str, code: int) -> None:
    import orjson

    path = f"/apis/{GROUP}/v1/namespaces/default/orders"
    body = order()
    body["spec"]["colour"] = "red"
    answer = await client.raw(
        "POST",
        path,
        params={"fieldValidation": mode},
        body=orjson.dumps(body),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status == code
    assert ('unknown field \\"spec.colour\\"' in answer.headers.get("Warning", "")) == (mode == "Warn")
    if code == 201:
        assert "colour" not in orjson.loads(answer.body)["spec"]
    else:
        assert b'strict decoding error: unknown field \\"spec.colour\\"' in answer.body


async def test_versions_are_converted_both_ways(client: RestClient) -> None:
    old = {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "Order",
        "metadata": {"name": "a", "namespace": "default", "labels": {"x": "y"}},
        "spec": {"customer": "ann", "items": [{"name": "pen"}]},
    }
    made = await client.create(OLD_ORDERS, old)
    assert made["apiVersion"] == f"{GROUP}/v1alpha1"
    assert made["spec"] == {"customer": "ann", "items": [{"name": "pen", "count": 1}]}
    new = await client.get(ORDERS, "a", namespace="default")
    assert new["spec"]["customerName"] == "ann"
    assert new["spec"]["urgency"] == "low"
    assert new["metadata"]["labels"]["x"] == "y"
    assert new["metadata"]["uid"] == made["metadata"]["uid"]
    new["spec"]["urgency"] = "high"
    await client.update(ORDERS, new)
    listed = await client.list(OLD_ORDERS)
    assert [item["spec"]["customer"] for item in listed["items"]] == ["ann"]


async def test_conversion_of_what_does_not_fit_is_a_field_error(client: RestClient) -> None:
    bad = {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "Order",
        "metadata": {"name": "a", "namespace": "default"},
        "spec": {"customer": 7},
    }
    with pytest.raises(StatusError, match=r"spec\.customer: Invalid value") as caught:
        await client.create(OLD_ORDERS, bad)
    assert caught.value.code == 422


async def test_deprecated_versions_warn(client: RestClient) -> None:
    answer = await client.raw("GET", f"/apis/{GROUP}/v1alpha1/orders")
    assert f"{GROUP}/v1alpha1 Order is deprecated; use {GROUP}/v1 Order" in answer.headers["Warning"]


async def test_status_has_its_own_endpoint_and_generation_follows_the_spec(client: RestClient) -> None:
    made = await client.create(ORDERS, {**order(), "status": {"phase": "Sent"}})
    assert "status" not in made
    made["status"] = {"phase": "Sent"}
    made["spec"]["replicas"] = 9
    changed = await client.update(ORDERS, made, subresource="status")
    assert changed["status"]["phase"] == "Sent"
    assert changed["spec"]["replicas"] == 1
    assert changed["metadata"]["generation"] == 1
    changed["spec"]["replicas"] = 2
    changed["status"]["phase"] = "Lost"
    again = await client.update(ORDERS, changed)
    assert again["metadata"]["generation"] == 2
    assert again["status"]["phase"] == "Sent"


async def test_scale_reads_and_writes_replicas(client: RestClient) -> None:
    await client.create(ORDERS, order())
    scale = await client.get(ORDERS, "a", namespace="default", subresource="scale")
    assert (scale["kind"], scale["spec"]["replicas"]) == ("Scale", 1)
    scale["spec"]["replicas"] = 4
    await client.update(ORDERS, scale, namespace="default", subresource="scale")
    assert (await client.get(ORDERS, "a", namespace="default"))["spec"]["replicas"] == 4


async def test_field_selectors_know_the_declared_fields(client: RestClient) -> None:
    await client.create(ORDERS, order("a"))
    await client.create(ORDERS, order("b", customerName="bob"))
    found = await client.list(ORDERS, field_selector="spec.customerName=bob")
    assert [item["metadata"]["name"] for item in found["items"]] == ["b"]
    with pytest.raises(StatusError, match=r"field label not supported: spec.urgency"):
        await client.list(ORDERS, field_selector="spec.urgency=low")


async def test_apply_merges_lists_by_their_keys_and_reports_conflicts(client: RestClient) -> None:
    def config(count: int, name: str = "pen") -> Obj:
        return order(items=[{"name": name, "count": count}])

    await client.apply(ORDERS, config(1), field_manager="one")
    both = await client.apply(ORDERS, config(2, "ink"), field_manager="two")
    assert [item["name"] for item in both["spec"]["items"]] == ["pen", "ink"]
    with pytest.raises(StatusError) as caught:
        await client.apply(ORDERS, config(5), field_manager="two")
    assert caught.value.code == 409
    assert '.spec.items[name="pen"].count' in caught.value.message
    forced = await client.apply(ORDERS, config(5), field_manager="two", force=True)
    assert [(item["name"], item["count"]) for item in forced["spec"]["items"]] == [("pen", 5)]


async def test_patches_and_dry_run(client: RestClient) -> None:
    await client.create(ORDERS, order())
    patched = await client.patch(
        ORDERS,
        "a",
        [{"op": "replace", "path": "/spec/replicas", "value": 3}],
        patch_type=PatchType.JSON,
        namespace="default",
    )
    assert patched["spec"]["replicas"] == 3
    dry = await client.patch(ORDERS, "a", {"spec": {"replicas": 8}}, namespace="default", dry_run=True)
    assert dry["spec"]["replicas"] == 8
    assert (await client.get(ORDERS, "a", namespace="default"))["spec"]["replicas"] == 3


async def test_finalizers_hold_an_object_until_they_are_gone(client: RestClient) -> None:
    held = order()
    held["metadata"]["finalizers"] = ["shop.example.com/bill"]
    await client.create(ORDERS, held)
    await client.delete(ORDERS, "a", namespace="default")
    found = await client.get(ORDERS, "a", namespace="default")
    assert found["metadata"]["deletionTimestamp"]
    await client.patch(ORDERS, "a", {"metadata": {"finalizers": None}}, namespace="default")
    with pytest.raises(StatusError) as caught:
        await client.get(ORDERS, "a", namespace="default")
    assert caught.value.code == 404


async def test_watch_sends_the_initial_state_and_what_follows(client: RestClient) -> None:
    await client.create(ORDERS, order("a"))
    events = client.watch(ORDERS, send_initial_events=True)
    first, bookmark = await anext(events), await anext(events)
    assert (first.type, first.object["metadata"]["name"]) == ("ADDED", "a")
    assert bookmark.type == "BOOKMARK"
    await client.create(ORDERS, order("b"))
    await client.delete(ORDERS, "a", namespace="default")
    seen = [(event.type, event.object["metadata"]["name"]) for event in [await anext(events), await anext(events)]]
    assert seen == [("ADDED", "b"), ("DELETED", "a")]
    await events.aclose()


async def test_tables_have_the_declared_columns(client: RestClient) -> None:
    await client.create(ORDERS, order())
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    table = await client.request_json("GET", f"/apis/{GROUP}/v1/orders", headers={"Accept": accept})
    assert [(column["name"], column["type"]) for column in table["columnDefinitions"]] == [
        ("Name", "string"),
        ("Customer", "string"),
        ("Phase", "string"),
        ("Count", "integer"),
        ("Age", "date"),
    ]
    assert table["columnDefinitions"][1]["description"] == "Who ordered."
    assert table["rows"][0]["cells"][:4] == ["a", "ann", None, 1]


async def test_lists_come_in_pages_of_one_state(client: RestClient) -> None:
    for name in "abcde":
        await client.create(ORDERS, order(name))
    pages = client.pages(ORDERS, limit=2)
    first = await anext(pages)
    await client.create(ORDERS, order("bb"))
    names = [item["metadata"]["name"] for page in [first, *[page async for page in pages]] for item in page["items"]]
    assert names == ["a", "b", "c", "d", "e"]


async def test_deletion_of_a_collection(client: RestClient) -> None:
    await client.create(ORDERS, order("a"))
    await client.create(ORDERS, order("b", customerName="bob"))
    await client.delete_collection(ORDERS, namespace="default", field_selector="spec.customerName=bob")
    assert [item["metadata"]["name"] for item in (await client.list(ORDERS))["items"]] == ["a"]


async def test_discovery_shows_names_verbs_and_subresources(client: RestClient) -> None:
    listed = await client.request_json("GET", f"/apis/{GROUP}/v1")
    by_name = {entry["name"]: entry for entry in listed["resources"]}
    assert set(by_name) == {"orders", "orders/status", "orders/scale", "shelves"}
    orders = by_name["orders"]
    assert orders["shortNames"] == ["ord"]
    assert orders["categories"] == ["all"]
    assert orders["namespaced"] is True
    assert by_name["shelves"]["namespaced"] is False
    assert orders["verbs"] == ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
    group = await client.request_json("GET", f"/apis/{GROUP}")
    assert group["preferredVersion"]["version"] == "v1"
    assert [version["version"] for version in group["versions"]] == ["v1", "v1alpha1"]


async def test_openapi_documents_describe_the_model(client: RestClient) -> None:
    document = await client.request_json("GET", f"/openapi/v3/apis/{GROUP}/v1")
    kind = document["components"]["schemas"]["com.example.shop.v1.Order"]
    assert kind["description"] == "An order of a customer."
    assert kind["x-kubernetes-group-version-kind"] == [{"group": GROUP, "kind": "Order", "version": "v1"}]
    spec = kind["properties"]["spec"]["properties"]
    assert spec["customerName"] == {"type": "string", "description": "Who ordered.", "pattern": "^[a-z]+$"}
    assert spec["items"]["x-kubernetes-list-map-keys"] == ["name"]
    assert spec["port"]["x-kubernetes-int-or-string"] is True
    path = document["paths"][f"/apis/{GROUP}/v1/namespaces/{{namespace}}/orders/{{name}}"]
    names = {parameter.get("name") for parameter in path["patch"]["parameters"]}
    assert "fieldValidation" in names
    old = await client.request_json("GET", "/openapi/v2")
    assert "com.example.shop.v1.Order" in old["definitions"]
    assert f"/apis/{GROUP}/v1/shelves" in old["paths"]


async def test_cluster_scoped_kind_without_spec(client: RestClient) -> None:
    made = await client.create(SHELVES, {"apiVersion": f"{GROUP}/v1", "kind": "Shelf", "metadata": {"name": "top"}})
    assert made["height"] == 3
    assert made["metadata"]["generation"] == 1


async def test_kinds_may_live_in_stores_of_their_own(tmp_path: Path) -> None:
    names = {"kept": sqlite(tmp_path / "kept.db"), "lost": None}

    def app() -> App:
        made = App("stores.example.com")
        for name, storage in names.items():
            made.kind(kind=name.title(), plural=name, storage=storage)(type(name.title(), (Kind,), {}))
        return made

    kept, lost = (GroupVersionResource("stores.example.com", "v1", name) for name in names)
    async with standalone(app()) as client:
        for gvr, kind in ((kept, "Kept"), (lost, "Lost")):
            obj = {"apiVersion": "stores.example.com/v1", "kind": kind, "metadata": {"name": "a"}}
            await client.create(gvr, obj, namespace="default")
    async with standalone(app()) as client:
        found = (await client.list(kept))["items"]
        assert [(item["kind"], item["metadata"]["name"]) for item in found] == [("Kept", "a")]
        assert (await client.list(lost))["items"] == []


async def test_watches_that_outlive_a_server_in_memory_are_told_to_list_anew() -> None:
    app = shop()
    async with standalone(app) as client:
        made = await client.create(ORDERS, order())
    async with standalone(app) as client:
        events = client.watch(ORDERS, resource_version=made["metadata"]["resourceVersion"])
        with pytest.raises(StatusError) as caught:
            await anext(events)
        assert caught.value.code == 410


async def test_objects_of_an_older_storage_version_are_converted_at_the_start(tmp_path: Path) -> None:
    def app(*versions: str) -> App:
        made = App("moved.example.com", store=sqlite(tmp_path / "moved.db"))
        models = {"v1beta1": type("Old", (Kind,), {"__annotations__": {"word": str}, "word": ""})}
        models["v1"] = type("New", (Kind,), {"__annotations__": {"text": str}, "text": ""})
        for version in versions:
            made.kind(version=version, kind="Note")(models[version])
        if len(versions) == 2:
            made.convert(models["v1beta1"], models["v1"])(lambda old: models["v1"](text=old.word))
            made.convert(models["v1"], models["v1beta1"])(lambda new: models["v1beta1"](word=new.text))
        return made

    old, new = (GroupVersionResource("moved.example.com", version, "notes") for version in ("v1beta1", "v1"))
    async with standalone(app("v1beta1")) as client:
        obj = {"apiVersion": "moved.example.com/v1beta1", "kind": "Note", "metadata": {"name": "a"}, "word": "hi"}
        await client.create(old, obj, namespace="default")
    with pytest.raises(ExtensionError) as caught:
        async with standalone(app("v1")):
            pass
    assert caught.value.reason == "UnknownStoredVersion"
    async with standalone(app("v1", "v1beta1")) as client:
        assert (await client.get(new, "a", namespace="default"))["text"] == "hi"
        assert (await client.get(old, "a", namespace="default"))["word"] == "hi"
    async with standalone(app("v1")) as client:
        assert (await client.get(new, "a", namespace="default"))["text"] == "hi"


async def test_field_owners_survive_conversion(client: RestClient) -> None:
    old = {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "Order",
        "metadata": {"name": "a", "namespace": "default"},
        "spec": {"customer": "ann"},
    }
    await client.apply(OLD_ORDERS, old, field_manager="one")
    with pytest.raises(StatusError) as caught:
        await client.apply(OLD_ORDERS, {**old, "spec": {"customer": "bob"}}, field_manager="two")
    assert caught.value.code == 409
    assert 'conflict with "one"' in caught.value.message
    made = await client.apply(ORDERS, order(replicas=3), field_manager="two")
    assert made["spec"]["replicas"] == 3


async def test_plain_pydantic_models_keep_their_names() -> None:
    class PlainSpec(BaseModel):
        some_text: str = "x"

    app = App("plain.example.com")

    @app.kind()
    class Plain(Kind):
        spec: PlainSpec = PlainSpec()

    async with standalone(app) as client:
        gvr = GroupVersionResource("plain.example.com", "v1", "plains")
        made = await client.create(
            gvr, {"apiVersion": "plain.example.com/v1", "kind": "Plain", "metadata": {"name": "a"}}, namespace="default"
        )
        assert made["spec"] == {"some_text": "x"}


async def test_an_outdated_hash_gets_the_newest_document_and_no_redirect(client: RestClient) -> None:
    path = f"/openapi/v3/apis/{GROUP}/v1"
    index = json.loads((await client.raw("GET", "/openapi/v3")).body)
    url = index["paths"][f"apis/{GROUP}/v1"]["serverRelativeURL"]
    current = await client.raw("GET", path, params={"hash": url.partition("hash=")[2]})
    outdated = await client.raw("GET", path, params={"hash": "0123"})
    assert (current.status, outdated.status) == (200, 200)
    assert outdated.body == current.body
    assert "immutable" in current.headers["Cache-Control"]
    assert "Cache-Control" not in outdated.headers or "immutable" not in outdated.headers["Cache-Control"]


@pytest.mark.parametrize(
    ("patch", "spec"),
    [
        ({"items": [{"name": "b", "count": 5}, {"name": "c"}]}, {"items": [("a", 1), ("b", 5), ("c", 1)]}),
        ({"items": [{"name": "a", "$patch": "delete"}]}, {"items": [("b", 2)]}),
        ({"items": [{"$patch": "replace"}, {"name": "z"}]}, {"items": [("z", 1)]}),
        ({"tags": ["new"]}, {"tags": ["new", "old"]}),
        ({"$deleteFromPrimitiveList/tags": ["old"]}, {"tags": []}),
        ({"$setElementOrder/items": [{"name": "b"}, {"name": "a"}]}, {"items": [("b", 2), ("a", 1)]}),
    ],
)
async def test_strategic_patches_merge_lists_by_their_keys(client: RestClient, patch: Obj, spec: Obj) -> None:
    items = [{"name": "a"}, {"name": "b", "count": 2}]
    await client.create(ORDERS, order("strategic", items=items, tags=["old"]))

    async def patched(patch: Obj) -> Obj:
        return await client.patch(ORDERS, "strategic", patch, patch_type=PatchType.STRATEGIC, namespace="default")

    await patched({"metadata": {"finalizers": ["example.com/a"]}})
    found = await patched({"metadata": {"finalizers": ["example.com/b"]}, "spec": patch})
    assert sorted(found["metadata"]["finalizers"]) == ["example.com/a", "example.com/b"]
    got = found["spec"]
    assert [(item["name"], item["count"]) for item in got["items"]] == spec.get("items", [("a", 1), ("b", 2)])
    assert got.get("tags", []) == spec.get("tags", ["old"])


async def test_null_in_an_optional_field_is_absence() -> None:
    app = App("choice.example.com")

    class Choice(Kind):
        colour: Literal["red", "blue"] | None = None
        size: int | None = 3

    app.kind()(Choice)
    choices = GroupVersionResource("choice.example.com", "v1", "choices")
    async with standalone(app) as client:
        document = json.loads((await client.raw("GET", "/openapi/v3/apis/choice.example.com/v1")).body)
        (schema,) = [each for name, each in document["components"]["schemas"].items() if name.endswith(".Choice")]
        assert schema["properties"]["colour"] == {"type": "string", "enum": ["red", "blue"]}
        meta = {"name": "a", "namespace": "default"}
        made = await client.create(choices, {"kind": "Choice", "metadata": meta, "colour": None, "size": None})
        assert "colour" not in made
        assert made["size"] is None  # where null is not the default, it says something
        with pytest.raises(StatusError) as caught:
            await client.create(choices, {"kind": "Choice", "metadata": meta, "colour": "green"})
        assert caught.value.message.endswith('supported values: "red", "blue"')
