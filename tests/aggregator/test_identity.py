"""What a backend is told of a request's address, as Kubernetes v1.36 tells it."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from bowsprit.aggregator.identity import passed_fields, target_of
from bowsprit.apiserver.request import RequestContext, RequestInfo
from bowsprit.apiserver.user import UserInfo
from bowsprit.machinery.time import parse_time

THINGS = "/apis/a.example.com/v1/namespaces/default/things"


@pytest.mark.parametrize(
    ("raw", "path", "query"),
    [
        (f"{THINGS}?b=2&a=1&a=0", THINGS, "a=1&a=0&b=2"),
        (f"{THINGS}?x=%20+y", THINGS, "x=++y"),
        (f"{THINGS}?a=%zz&b=1&c=1;2", THINGS, "b=1"),
        (f"{THINGS}?x=%zz", THINGS, ""),
        (f"{THINGS}?a=&b", THINGS, "a=&b="),
        (f"{THINGS}/%e4", f"{THINGS}/%E4", ""),
        (f"{THINGS}/a%2Fb%20c", f"{THINGS}/a/b%20c", ""),
        (f"{THINGS}//a", f"{THINGS}//a", ""),
    ],
)
def test_path_and_query_are_escaped_anew(raw: str, path: str, query: str) -> None:
    assert target_of(make_mocked_request("GET", raw)) == (path, query)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (THINGS, THINGS),
        (f"{THINGS}/", f"{THINGS}/"),
        (f"{THINGS}//", f"{THINGS}/"),
        (f"{THINGS}/..", THINGS.rpartition("/")[0]),
        ("/apis/a.example.com//v1/./things", "/apis/a.example.com/v1/things"),
    ],
)
def test_the_forwarded_address_has_no_empty_or_dot_segments(path: str, shown: str) -> None:
    ctx = RequestContext(RequestInfo("get", path), UserInfo("joe"), parse_time("2026-01-01T00:00:00Z"), "id")
    fields = dict(passed_fields(ctx, make_mocked_request("GET", path), "10.0.0.1:443", path))
    assert fields["X-Forwarded-Uri"] == shown
