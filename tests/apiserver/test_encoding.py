"""Objects as stored bytes, and lists joined from them, are the JSON that they should be."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bowsprit.apiserver import encoding
from bowsprit.apiserver.decoding import _as_floats
from bowsprit.machinery.objects import Obj

_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)
_META = st.fixed_dictionaries(
    {"name": st.text(min_size=1, max_size=8)},
    optional={
        "namespace": st.just("ns"),
        "uid": st.just("u"),
        "labels": st.dictionaries(st.text(min_size=1, max_size=4), st.text(max_size=4), min_size=1, max_size=3),
        "resourceVersion": st.just("ignored"),
        "creationTimestamp": st.just("2026-01-01T00:00:00Z"),
        "finalizers": st.just(["a", "b"]),
        "deletionGracePeriodSeconds": st.just(0),
    },
)
_MEMBERS = st.dictionaries(
    st.text(min_size=1, max_size=6).filter(lambda key: key not in ("kind", "apiVersion", "metadata")), _JSON, max_size=4
)


def _object(meta: Obj, members: Obj) -> Obj:
    return {"apiVersion": "v1", "kind": "Thing", "metadata": meta, **members}


@given(_META, _MEMBERS)
def test_the_hole_holds_the_revision_and_nothing_else_changes(meta: Obj, members: Obj) -> None:
    obj = _object(meta, members)
    expected: Any = {**obj, "metadata": {**meta, "resourceVersion": "42"}}
    for encode in (encoding.encode, encoding.encode_untyped):
        assert json.loads(encode(obj).at(42)) == expected
    plain = json.loads(encoding.encode_plain(obj))
    assert plain == obj
    assert encoding.encode(obj).at(1).startswith(b'{"kind":"Thing","apiVersion":"v1","metadata":{')
    untyped = encoding.encode_untyped(obj).at(7)
    assert (
        untyped == json.dumps(json.loads(untyped), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    )


@given(st.lists(st.tuples(_META, _MEMBERS), max_size=5), st.booleans())
def test_a_list_is_its_items(objects: list[tuple[Obj, Obj]], typed: bool) -> None:
    values = [encoding.encode(_object(*each)).at(number) for number, each in enumerate(objects)]
    cut = encoding.prefix_length("Thing", "v1") if typed else 0
    head = encoding.list_head("ThingList", "v1", 9, "token", 3)
    joined = b"".join(encoding.list_chunks(head, values, cut))
    assert len(joined) == encoding.list_length(head, values, cut)
    decoded = json.loads(joined)
    assert decoded["metadata"] == {"resourceVersion": "9", "continue": "token", "remainingItemCount": 3}
    items = [json.loads(value) for value in values]
    if typed:
        items = [{key: each[key] for key in each if key not in ("kind", "apiVersion")} for each in items]
    assert decoded["items"] == items


def test_integers_beyond_int64_of_untyped_objects_are_shown_as_go_shows_floats() -> None:
    assert _as_floats({"a": [12345678901234567890, 2**63 - 1, -(2**63), 1.5]}) == {
        "a": [12345678901234567000, 2**63 - 1, -(2**63), 1.5]
    }
    assert type(_as_floats(10**30)) is float
