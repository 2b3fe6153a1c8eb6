"""Whom an extension server believes and what it asks the core: trust from the ConfigMap, token and access reviews."""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import Callable
from typing import Any

import pytest
from multidict import CIMultiDict

from bowsprit.apiserver.access import Attributes, Authenticated, Connection, Credentials, Decision
from bowsprit.apiserver.authentication.bearer import BearerAuthenticator
from bowsprit.apiserver.user import UserInfo
from bowsprit.client.errors import ConnectionFailed
from bowsprit.extension.reviews import (
    LARGEST_REMEMBERED,
    REMEMBERED_DECISIONS,
    AccessReviewAuthorizer,
    Remembered,
    TokenReviewAuthenticator,
)
from bowsprit.extension.trust import DelegatedAuthenticator
from bowsprit.machinery.errors import StatusError, forbidden, internal_error
from bowsprit.machinery.names import GroupResource, GroupVersionResource
from bowsprit.machinery.objects import Obj
from bowsprit.pki.authority import Authority

NOW = datetime.datetime.now(datetime.UTC)


class Core:
    """What the reviews ask of a RestClient: answers are a function of the body, or raised."""

    def __init__(self, answer: Callable[[Obj], Obj | Exception]) -> None:
        self.answer = answer
        self.asked: list[Obj] = []

    async def create(self, gvr: GroupVersionResource, body: Obj) -> Obj:
        self.asked.append(body)
        answer = self.answer(body)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 3))


def known(body: Obj) -> Obj:
    name = body["spec"]["token"].removeprefix("token-")
    good = body["spec"]["token"].startswith("token-")
    return {"status": {"authenticated": good, "user": {"username": name, "groups": ["devs"], "extra": {"A/b": ["c"]}}}}


def tokens(core: Core, clock: Clock) -> TokenReviewAuthenticator:
    return TokenReviewAuthenticator(core, b"secret", clock, clock.sleep)  # type: ignore[arg-type]


def access(core: Core, clock: Clock) -> AccessReviewAuthorizer:
    return AccessReviewAuthorizer(core, clock, clock.sleep)  # type: ignore[arg-type]


async def test_tokens_are_reviewed_and_remembered_for_ten_seconds() -> None:
    core, clock = Core(known), Clock()
    reviews = tokens(core, clock)
    found = await reviews.authenticate_token("token-ann", ())
    assert found == Authenticated(UserInfo("ann", "", ("devs",), {"a/b": ("c",)}), ())
    clock.now += 9.9
    await reviews.authenticate_token("token-ann", ())
    assert len(core.asked) == 1
    clock.now += 0.2
    await reviews.authenticate_token("token-ann", ())
    assert len(core.asked) == 2


async def test_refused_tokens_are_remembered_too() -> None:
    core, clock = Core(known), Clock()
    bearer = BearerAuthenticator(tokens(core, clock))
    for _ in range(2):
        with pytest.raises(StatusError) as caught:
            await bearer.authenticate(Credentials(CIMultiDict(Authorization="Bearer bad"), Connection(None)))
        assert caught.value.code == 401
    assert len(core.asked) == 1


async def test_equal_questions_at_the_same_time_are_asked_once() -> None:
    core, clock = Core(known), Clock()
    reviews = tokens(core, clock)
    await asyncio.gather(*(reviews.authenticate_token("token-ann", ()) for _ in range(5)))
    assert len(core.asked) == 1


@pytest.mark.parametrize("failure", [internal_error("etcd is away"), ConnectionFailed("refused"), TimeoutError()])
async def test_reviews_are_tried_five_times_ever_more_slowly(failure: Exception) -> None:
    core, clock = Core(lambda _: failure), Clock()
    reviews = tokens(core, clock)
    with pytest.raises(StatusError) as caught:
        await reviews.authenticate_token("token-ann", ())
    assert caught.value.code == 401
    assert len(core.asked) == 5
    assert clock.slept == [0.5, 0.75, 1.125, 1.688]
    assert reviews.problem.startswith("tokenreviews: ")


async def test_a_review_that_may_not_be_made_is_not_repeated() -> None:
    refusal = forbidden(GroupResource("authorization.k8s.io", "subjectaccessreviews"), "", "no")
    core, clock = Core(lambda _: refusal), Clock()
    reviews = access(core, clock)
    with pytest.raises(StatusError) as caught:
        await reviews.authorize(Attributes(UserInfo("ann"), "get", resource="books"))
    assert caught.value.code == 500
    assert (len(core.asked), clock.slept) == (1, [])
    assert "subjectaccessreviews" in reviews.problem


@pytest.mark.parametrize(
    ("status", "decision"),
    [
        ({"allowed": True}, Decision.ALLOW),
        ({"allowed": False, "reason": "no"}, Decision.NO_OPINION),
        ({"allowed": False, "denied": True, "reason": "no"}, Decision.DENY),
    ],
)
async def test_decisions_good_and_bad_are_remembered(status: Obj, decision: Decision) -> None:
    core, clock = Core(lambda _: {"status": status}), Clock()
    reviews = access(core, clock)
    attributes = Attributes(UserInfo("ann", "7", ("devs",), {"k": ("v",)}), "get", "g", "v1", "books", "log", "ns", "a")
    for _ in range(2):
        assert await reviews.authorize(attributes) == (decision, status.get("reason", ""))
    assert [body["spec"] for body in core.asked] == [
        {
            "user": "ann",
            "uid": "7",
            "groups": ["devs"],
            "extra": {"k": ["v"]},
            "resourceAttributes": {
                "namespace": "ns",
                "verb": "get",
                "group": "g",
                "version": "v1",
                "resource": "books",
                "subresource": "log",
                "name": "a",
            },
        }
    ]
    clock.now += 10.1
    await reviews.authorize(attributes)
    assert len(core.asked) == 2


async def test_selectors_are_part_of_the_question() -> None:
    core, clock = Core(lambda _: {"status": {"allowed": True}}), Clock()
    reviews = access(core, clock)
    for selector in ("a=b", "a=c"):
        await reviews.authorize(Attributes(UserInfo("ann"), "list", resource="books", label_selector=selector))
    asked = [body["spec"]["resourceAttributes"]["labelSelector"] for body in core.asked]
    assert asked == [{"rawSelector": "a=b"}, {"rawSelector": "a=c"}]


async def test_masters_and_health_paths_need_no_review() -> None:
    core, clock = Core(lambda _: {"status": {"allowed": False}}), Clock()
    reviews = access(core, clock)
    master = Attributes(UserInfo("root", groups=("system:masters",)), "delete", resource="books")
    assert (await reviews.authorize(master))[0] is Decision.ALLOW
    for path, decision in (("/readyz", Decision.ALLOW), ("/metrics", Decision.NO_OPINION)):
        attributes = Attributes(UserInfo("x"), "get", path=path, resource_request=False)
        assert (await reviews.authorize(attributes))[0] is decision
    assert [body["spec"]["nonResourceAttributes"]["path"] for body in core.asked] == ["/metrics"]


async def test_overlong_questions_are_not_remembered_and_the_memory_is_bounded() -> None:
    core, clock = Core(lambda _: {"status": {"allowed": True}}), Clock()
    reviews = access(core, clock)
    long = Attributes(UserInfo("x" * (LARGEST_REMEMBERED + 1)), "get", resource="books")
    for _ in range(2):
        await reviews.authorize(long)
    assert len(core.asked) == 2

    async def answer() -> int:
        return 1

    memory: Remembered[int, int] = Remembered(REMEMBERED_DECISIONS, clock)
    for key in range(REMEMBERED_DECISIONS + 10):
        await memory.get(key, answer)
    assert len(memory._known) == REMEMBERED_DECISIONS


# -- trust -----------------------------------------------------------------------------------------------------------------

CLIENT_CA, PROXY_CA, OTHER_CA = Authority.create("clients"), Authority.create("proxies"), Authority.create("others")


def config(**changes: str) -> Obj:
    return {
        "client-ca-file": CLIENT_CA.ca_pem.decode(),
        "requestheader-client-ca-file": PROXY_CA.ca_pem.decode(),
        "requestheader-allowed-names": json.dumps(["front-proxy-client"]),
        "requestheader-username-headers": json.dumps(["X-Remote-User"]),
        "requestheader-group-headers": json.dumps(["X-Remote-Group"]),
        "requestheader-extra-headers-prefix": json.dumps(["X-Remote-Extra-"]),
        **changes,
    }


def credentials(authority: Authority | None, name: str, **headers: str) -> Credentials:
    der = None
    if authority is not None:
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import Encoding

        pem = authority.issue_client(name, ["devs"]).cert_pem
        der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    given: CIMultiDict[str] = CIMultiDict()
    for key, value in headers.items():
        given.add(key.replace("_", "-"), value)
    return Credentials(given, Connection(der))


def authenticator(data: Obj | None = None) -> DelegatedAuthenticator:
    made = DelegatedAuthenticator(lambda: NOW, None)
    made.take(config() if data is None else data)
    return made


PROXIED: dict[str, Any] = {
    "X_Remote_User": "ann",
    "X_Remote_Group": "devs",
    "X_Remote_Extra_Scopes": "all",
    "X_Remote_Uid": "7",
}


async def test_a_trusted_front_proxy_says_who_asks() -> None:
    found = await authenticator().authenticate(credentials(PROXY_CA, "front-proxy-client", **PROXIED))
    assert found.user == UserInfo("ann", "", ("devs", "system:authenticated"), {"scopes": ("all",)})


async def test_the_uid_header_counts_when_the_core_names_it() -> None:
    trusting = authenticator(config(**{"requestheader-uid-headers": json.dumps(["X-Remote-Uid"])}))
    found = await trusting.authenticate(credentials(PROXY_CA, "front-proxy-client", **PROXIED))
    assert found.user.uid == "7"


@pytest.mark.parametrize(("authority", "name"), [(OTHER_CA, "front-proxy-client"), (PROXY_CA, "somebody"), (None, "")])
async def test_headers_of_others_are_not_believed(authority: Authority | None, name: str) -> None:
    try:
        name = (await authenticator().authenticate(credentials(authority, name, **PROXIED))).user.name
    except StatusError as failure:
        name = str(failure.code)
    # A certificate of nobody is a 401; without one, the sender is anonymous.
    assert name == ("system:anonymous" if authority is None else "401")


async def test_client_certificates_of_the_cluster_are_believed() -> None:
    found = await authenticator().authenticate(credentials(CLIENT_CA, "bob"))
    assert (found.user.name, found.user.groups) == ("bob", ("devs", "system:authenticated"))


async def test_what_the_config_map_says_counts_from_then_on() -> None:
    trusting = authenticator()
    renewed = Authority.create("proxies, renewed")
    asked = credentials(renewed, "other-name", **PROXIED)
    with pytest.raises(StatusError):
        await trusting.authenticate(asked)
    trusting.take(
        config(
            **{
                "requestheader-client-ca-file": renewed.ca_pem.decode(),
                "requestheader-allowed-names": "[]",
            }
        )
    )
    assert (await trusting.authenticate(asked)).user.name == "ann"
    trusting.take(config())
    with pytest.raises(StatusError):
        await trusting.authenticate(asked)


@pytest.mark.parametrize(
    "broken",
    [{"requestheader-allowed-names": "["}, {"client-ca-file": "x"}, {"requestheader-group-headers": '{"a": 1}'}],
)
async def test_a_broken_config_map_leaves_what_was_trusted(broken: dict[str, str]) -> None:
    trusting = authenticator()
    trusting.take(config(**broken))
    assert "extension-apiserver-authentication" in trusting.problem
    assert (await trusting.authenticate(credentials(PROXY_CA, "front-proxy-client", **PROXIED))).user.name == "ann"
    trusting.take(config())
    assert trusting.problem == ""
