"""Selectors are read, matched and refused as upstream does. Error texts are recorded from Kubernetes v1.36."""

# ruff: noqa: E501

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bowsprit.machinery.selectors import NOTHING, FieldSelector, LabelSelector, SelectorError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a in (", "unable to parse requirement: found '', expected: ',', ')' or identifier"),
        ("a=b value", "found 'value', expected: ',' or 'end of string'"),
        (
            "app~a",
            "unable to parse requirement: <nil>: Invalid value: \"app~a\": name part must consist of alphanumeric characters, '-', '_' or '.', "
            "and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', "
            "regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        ),
        ("a=b,", "found '', expected: identifier after ','"),
        (",a", "found ',', expected: !, identifier, or 'end of string'"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a=(b)", "unable to parse requirement: found '(', expected: identifier"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        (
            "a>b",
            "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
    ],
)
def test_label_selectors_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(SelectorError) as caught:
        LabelSelector.parse(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "labels", "matches"),
    [
        ("", {}, True),
        ("a", {"a": ""}, True),
        ("a", {}, False),
        ("!a", {}, True),
        ("! a", {"a": "x"}, False),
        ("a=b", {"a": "b"}, True),
        ("a==b", {"a": "c"}, False),
        ("a!=b", {}, True),
        ("a != b", {"a": "b"}, False),
        ("a=", {"a": ""}, True),
        ("a=,b", {"a": "", "b": "x"}, True),
        ("a in (b,c)", {"a": "c"}, True),
        ("a in (b,c)", {}, False),
        ("a in ()", {"a": ""}, True),
        ("a in (,b)", {"a": ""}, True),
        ("a in (b,)", {"a": ""}, True),
        ("a notin (b, c)", {}, True),
        ("a notin (b)", {"a": "b"}, False),
        ("in in (in,notin)", {"in": "notin"}, True),
        ("a>5", {"a": "6"}, True),
        ("a>5", {"a": "x"}, False),
        ("a < 5,b", {"a": "-1", "b": ""}, True),
        ("a.example.com/b=c", {"a.example.com/b": "c"}, True),
    ],
)
def test_label_matching(text: str, labels: dict[str, str], matches: bool) -> None:
    assert LabelSelector.parse(text).matches(labels) is matches


def test_label_selectors_print_sorted() -> None:
    assert (
        str(LabelSelector.parse("z notin (b,a), a in (c), !m, k==v, j=w, g>1, e"))
        == "a in (c),e,g>1,j=w,k==v,!m,z notin (a,b)"
    )


def test_selector_objects() -> None:
    selector = LabelSelector.from_obj(
        {
            "matchLabels": {"a": "b"},
            "matchExpressions": [
                {"key": "c", "operator": "NotIn", "values": ["d"]},
                {"key": "e", "operator": "Exists"},
            ],
        }
    )
    assert selector.matches({"a": "b", "e": ""})
    assert not selector.matches({"a": "b", "c": "d", "e": ""})
    assert str(selector) == "a=b,c notin (d),e"
    assert LabelSelector.from_obj(None) is NOTHING
    assert not NOTHING.matches({})
    assert LabelSelector.from_obj({}).is_empty()
    with pytest.raises(SelectorError, match='"Near" is not a valid label selector operator'):
        LabelSelector.from_obj({"matchExpressions": [{"key": "a", "operator": "Near"}]})
    with pytest.raises(SelectorError, match="values set can't be empty"):
        LabelSelector.from_obj({"matchExpressions": [{"key": "a", "operator": "In"}]})


def test_requires_exact() -> None:
    assert LabelSelector.parse("a in (b),c").requires_exact("a") == "b"
    assert LabelSelector.parse("a!=b").requires_exact("a") is None
    assert FieldSelector.parse("metadata.name=x").requires_exact("metadata.name") == "x"
    assert FieldSelector.parse("metadata.name!=x").requires_exact("metadata.name") is None


KEYS = st.sampled_from(["a", "b", "app.example.com/c"])
VALUES = st.sampled_from(["", "x", "y", "7"])
TERMS = st.one_of(
    st.builds("{}={}".format, KEYS, VALUES),
    st.builds("{}!={}".format, KEYS, VALUES),
    st.builds("{} in ({})".format, KEYS, st.lists(VALUES.filter(bool), min_size=1, max_size=3).map(",".join)),
    st.builds("{} notin ({})".format, KEYS, st.lists(VALUES.filter(bool), min_size=1, max_size=3).map(",".join)),
    KEYS,
    KEYS.map("!{}".format),
    KEYS.map("{}>3".format),
)


@given(st.lists(TERMS, max_size=4).map(",".join), st.dictionaries(KEYS, VALUES))
def test_a_printed_selector_means_the_same(text: str, labels: dict[str, str]) -> None:
    selector = LabelSelector.parse(text)
    again = LabelSelector.parse(str(selector))
    assert str(again) == str(selector)
    assert again.matches(labels) is selector.matches(labels)


@given(st.text(alphabet="ab!=(),<> in", max_size=15))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        LabelSelector.parse(text)
    except SelectorError as error:
        message = str(error)
    else:
        message = "read"
    assert message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metadata.name", "invalid selector: 'metadata.name'; can't understand 'metadata.name'"),
        ("a=b=c", "invalid field selector: unescaped character in value: 61"),
        ("a=\\x", "invalid field selector: invalid escape sequence: \\x"),
        ("a=b\\", "invalid field selector: invalid escape sequence: \\"),
    ],
)
def test_field_selectors_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(SelectorError) as caught:
        FieldSelector.parse(text)
    assert str(caught.value) == message


def test_field_matching() -> None:
    selector = FieldSelector.parse("status.phase!=Running,,metadata.name==a")
    assert selector.matches({"metadata.name": "a", "status.phase": "Pending"})
    assert selector.matches({"metadata.name": "a"})
    assert not selector.matches({"metadata.name": "a", "status.phase": "Running"})
    assert FieldSelector.parse("a=x\\,y\\=z").matches({"a": "x,y=z"})
    assert FieldSelector.parse("").is_empty()


@given(st.dictionaries(st.sampled_from(["a", "b.c"]), st.text(alphabet="x,=\\!", max_size=6)))
def test_field_selectors_round_trip(fields: dict[str, str]) -> None:
    assert FieldSelector.parse(str(FieldSelector.from_fields(fields))) == FieldSelector.from_fields(fields)
