"""The structural schema of a model: what it says, and that schema and model agree about values."""

from __future__ import annotations

import datetime
import enum
import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from bowsprit.extension import App, Atomic, ExtensionError, IntOrString, Kind, Model, Rule
from bowsprit.extension.definition import definition
from bowsprit.extension.modelschema import kind_schema, model_schema
from bowsprit.machinery.codec import decode_json
from bowsprit.machinery.schema import Schema

ANYTHING = {"x-kubernetes-preserve-unknown-fields": True}


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


def part(annotation: Any, default: Any = ...) -> dict[str, Any]:
    """The schema of one field."""
    made = create_model("Holder", field=(annotation, default))
    schema: dict[str, Any] = model_schema(made)["properties"]["field"]
    return schema


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (int, {"type": "integer", "format": "int64"}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (str | None, {"type": "string", "nullable": True}),
        (Colour, {"type": "string", "enum": ["red", "blue"]}),
        (Literal["a", "b"] | None, {"type": "string", "enum": ["a", "b", None], "nullable": True}),
        (Literal["one"], {"type": "string", "enum": ["one"]}),
        (datetime.datetime, {"type": "string", "format": "date-time"}),
        (list[str], {"type": "array", "items": {"type": "string"}}),
        (set[str], {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer", "format": "int64"}}),
        (dict[str, Any], {"type": "object", **ANYTHING}),
        (Any, ANYTHING),
        (IntOrString, {"x-kubernetes-int-or-string": True}),
        (int | float, {"type": "number"}),
        (int | list[str], ANYTHING),
        (tuple[int, int], {"type": "array", "items": {"type": "integer", "format": "int64"}, "minItems": 2, "maxItems": 2}),
        (Annotated[dict[str, str], Atomic()], {
            "type": "object", "additionalProperties": {"type": "string"}, "x-kubernetes-map-type": "atomic",
        }),
        (Annotated[int, Field(gt=0, le=9, multiple_of=3)], {
            "type": "integer", "format": "int64", "minimum": 0, "exclusiveMinimum": True, "maximum": 9, "multipleOf": 3,
        }),
        (Annotated[str, Rule("self != ''", "say something")], {
            "type": "string", "x-kubernetes-validations": [{"rule": "self != ''", "message": "say something"}],
        }),
    ],
)  # fmt: skip
def test_types_become_schemas(annotation: Any, schema: dict[str, Any]) -> None:
    assert part(annotation) == schema


def test_defaults_are_published_unless_they_say_nothing() -> None:
    class Inner(BaseModel):
        n: int = 1
        unset: str | None = None

    class Outer(BaseModel):
        inner: Inner = Inner()
        made: Inner = Field(default_factory=Inner)
        listed: list[int] = []
        mapped: dict[str, int] = {}
        maybe: int | None = None
        seven: int = 7

    properties = model_schema(Outer)["properties"]
    assert properties["inner"]["default"] == properties["made"]["default"] == {"n": 1}
    assert properties["seven"]["default"] == 7
    assert all("default" not in properties[name] for name in ("listed", "mapped", "maybe"))


def test_recursive_models_end_in_anything() -> None:
    class Node(BaseModel):
        name: str
        children: list[Node] = []

    made = model_schema(Node)
    assert made["properties"]["children"]["items"] == {"type": "object", **ANYTHING}


def test_unions_of_models_have_the_members_of_all() -> None:
    class Circle(BaseModel):
        kind: Literal["circle"]
        radius: float

    class Square(BaseModel):
        kind: Literal["square"]
        side: float

    made = part(Annotated[Circle | Square, Field(discriminator="kind")])
    assert made == {
        "type": "object",
        "properties": {
            "kind": {"type": "string", "enum": ["circle", "square"]},
            "radius": {"type": "number"},
            "side": {"type": "number"},
        },
        "required": ["kind"],
    }


def test_models_that_take_extra_fields_keep_them() -> None:
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")

        known: int = 1

    assert model_schema(Open)["x-kubernetes-preserve-unknown-fields"] is True


def test_descriptions_come_from_docstrings() -> None:
    class Part(Model):
        """A part."""

        first_name: str = ""
        """How it is called."""

    made = model_schema(Part)
    assert made["description"] == "A part."
    assert made["properties"]["firstName"]["description"] == "How it is called."


def test_metadata_of_a_kind_is_left_to_the_server() -> None:
    class Thing(Kind):
        size: int = 1

    properties = kind_schema(Thing)["properties"]
    assert {name: properties[name] for name in ("apiVersion", "kind", "metadata")} == {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
    }


def test_types_without_a_json_form_are_refused() -> None:
    class Odd(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)

        path: type = int
        anything: complex = 1j

    with pytest.raises(ExtensionError, match="Odd"):
        model_schema(Odd)


def test_shared_definitions_are_those_of_the_control_plane() -> None:
    sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
    try:
        from generate_extension_definitions import subset
    finally:
        sys.path.pop(0)
    from bowsprit.extension.openapi import definitions

    assert definitions() == subset(), "run: python tools/generate_extension_definitions.py"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"plural": "Big"}, "plural: Invalid value"),
        ({"columns": {"X": "spec["}}, "columns"),
        ({"selectable": [".metadata.name"]}, "selectable"),
        ({"short_names": ["A_B"]}, "short_names"),
    ],
)
def test_declarations_that_cannot_be_served_are_refused_in_their_own_words(options: dict[str, Any], told: str) -> None:
    app = App("x.example.com")

    class Thing(Kind):
        """A thing."""

    app.kind(**options)(Thing)
    with pytest.raises(ExtensionError) as caught:
        app.check()
    assert told in caught.value.message
    assert caught.value.reason == "InvalidKind"


def test_declarations_that_contradict_themselves_are_refused() -> None:
    app = App("x.example.com")

    @app.kind()
    class Thing(Kind):
        """A thing."""

    class Newer(Kind):
        """A newer thing."""

    with pytest.raises(ExtensionError, match="declared twice"):
        app.kind(kind="Thing")(Newer)
    with pytest.raises(ExtensionError, match="plural of version v2"):
        app.kind(version="v2", kind="Thing", plural="thingies")(Newer)
    with pytest.raises(ExtensionError, match="not a kind of this app"):
        app.validate(Newer)
    with pytest.raises(ExtensionError, match="must not be async"):

        @app.validate(Thing)
        async def check(new: Thing, old: Thing | None, ctx: Any) -> None:
            """Waits."""

    app.kind(version="v2", kind="Thing")(Newer)
    app.convert(Thing, Newer)(lambda old: Newer())
    with pytest.raises(ExtensionError, match="but not back"):
        app.check()


@pytest.mark.parametrize(("group", "reason"), [("Upper.example.com", "InvalidGroup"), ("nodot", "InvalidGroup")])
def test_groups_that_cannot_be_served_are_refused(group: str, reason: str) -> None:
    with pytest.raises(ExtensionError) as caught:
        App(group)
    assert caught.value.reason == reason


def test_the_most_preferred_version_is_stored_unless_another_is_named() -> None:
    app = App("x.example.com")
    for version in ("v1beta1", "v1", "v2alpha1"):
        app.kind(version=version, kind="Thing")(type("Thing", (Kind,), {"__doc__": "A thing."}))
    stored = {each["name"]: each["storage"] for each in definition(app.declarations[0])["spec"]["versions"]}
    assert stored == {"v1": True, "v1beta1": False, "v2alpha1": False}
    assert [gv.version for gv in app.group_versions] == ["v1", "v1beta1", "v2alpha1"]


# -- schema and model agree ------------------------------------------------------------------------------------------------


def numbers(sort: type) -> st.SearchStrategy[Any]:
    return st.builds(
        lambda low, size, exclusive: Annotated[
            sort, Field(gt=low) if exclusive else Field(ge=low), Field(le=low + size)
        ],
        st.integers(-5, 5),
        st.integers(0, 10),
        st.booleans(),
    )


scalars = st.one_of(
    st.just(bool),
    st.just(str),
    st.just(int),
    st.just(float),
    numbers(int),
    numbers(float),
    st.builds(
        lambda low, size: Annotated[str, Field(min_length=low, max_length=low + size)],
        st.integers(0, 3),
        st.integers(0, 3),
    ),
    st.sampled_from([Annotated[str, Field(pattern="^a+$")], Annotated[str, Field(pattern="b")]]),
    st.just(Colour),
    st.just(Literal["x", "y"]),
    st.just(IntOrString),
)


def _model(fields: dict[str, tuple[Any, Any]]) -> Any:
    return create_model("Drawn", **fields)  # type: ignore[call-overload]


types = st.recursive(
    scalars,
    lambda inner: st.one_of(
        inner.map(lambda each: each | None),
        st.builds(lambda each, most: Annotated[list[each], Field(max_length=most)], inner, st.integers(0, 3)),
        inner.map(lambda each: dict[str, each]),
        st.dictionaries(st.sampled_from("abc"), inner.map(lambda each: (each, ...)), max_size=3).map(_model),
    ),
    max_leaves=4,
)
values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-8, 18),
        st.floats(-8, 18).filter(lambda number: number != int(number)),
        st.sampled_from(["", "a", "aa", "b", "ab", "x", "y", "red", "blue", "aaaaaaaa"]),
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
    max_leaves=6,
)


@settings(max_examples=120, deadline=None)
@given(types, values)
def test_schema_and_model_accept_the_same_values(annotation: Any, value: Any) -> None:
    model = create_model("Holder", field=(annotation, ...))
    text = json.dumps({"field": value}).encode()
    schema = Schema(model_schema(model))
    obj = decode_json(text)
    schema.prune(obj)
    errors = schema.validate(obj)
    try:
        model.model_validate_json(text, strict=True)
        problem = ""
    except ValidationError as failure:
        problem = str(failure)
    assert bool(errors) == bool(problem), f"schema: {errors}; model: {problem}"
