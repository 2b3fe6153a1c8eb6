"""Bearer tokens: static ones, ServiceAccounts' signed ones, and what a changed world does to them."""

from __future__ import annotations

import base64
import json

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from bowsprit.apiserver.access import Connection, Credentials
from bowsprit.apiserver.authentication import jwt
from bowsprit.apiserver.authentication.bearer import (
    BearerAuthenticator,
    RememberedTokens,
    StaticTokens,
    TokenRefused,
    TokenUnion,
)
from bowsprit.apiserver.authentication.chain import AuthenticatorChain
from bowsprit.apiserver.authentication.serviceaccount import (
    ServiceAccountTokens,
    TokenIssuer,
    TokenSettings,
    legacy_claims,
)
from bowsprit.apiserver.user import UserInfo
from bowsprit.machinery.errors import StatusError, UnauthorizedError
from bowsprit.pki.signing import load_signing_key, new_signing_key

ISSUER = "https://kubernetes.default.svc"
NOW = 1_800_000_000.0


def account(name: str = "robot", uid: str = "u1") -> dict:
    return {"metadata": {"name": name, "namespace": "ns", "uid": uid}}


@pytest.fixture
def settings() -> TokenSettings:
    key = load_signing_key(new_signing_key())
    return TokenSettings((ISSUER, "https://old"), (ISSUER,), key, [key.public_key()])


@pytest.fixture
def clock() -> list[float]:
    return [NOW]


@pytest.fixture
def issuer(settings, listers, clock) -> TokenIssuer:
    listers.add("serviceaccounts", account())
    return TokenIssuer(settings, listers, lambda: clock[0], lambda: "jti-1")


@pytest.fixture
def tokens(settings, listers, clock) -> ServiceAccountTokens:
    return ServiceAccountTokens(settings, listers, lambda: clock[0])


def issued(issuer: TokenIssuer, **spec: object) -> str:
    return issuer.issue("ns", "robot", {"spec": spec})["status"]["token"]


async def test_a_token_stands_for_its_account(issuer, tokens):
    found = await tokens.authenticate_token(issued(issuer), ())
    assert found is not None
    assert found.user == UserInfo(
        "system:serviceaccount:ns:robot",
        "u1",
        ("system:serviceaccounts", "system:serviceaccounts:ns"),
        {"authentication.kubernetes.io/credential-id": ("JTI=jti-1",)},
    )
    assert found.audiences == (ISSUER,)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("expired", "service account token has expired"),
        ("audience", 'token audiences ["x"] is invalid for the target audiences'),
        ("deleted", 'serviceaccounts "robot" not found'),
        ("recreated", "another uid"),
        ("early", "not valid yet"),
    ],
)
async def test_a_token_is_good_only_while_its_world_lasts(issuer, tokens, listers, clock, change, text):
    token = issued(issuer, audiences=["x"]) if change == "audience" else issued(issuer)
    accounts = next(iter(listers.values())).objects
    if change == "expired":
        clock[0] += 3601
    elif change == "early":
        clock[0] -= 60
    elif change in ("deleted", "recreated"):
        accounts.clear()
        if change == "recreated":
            accounts.append(account(uid="u2"))
    with pytest.raises(TokenRefused, match=text.replace("[", r"\[").replace("]", r"\]")):
        await tokens.authenticate_token(token, ())


async def test_a_bound_token_dies_with_its_pod(issuer, tokens, listers):
    pod = {"metadata": {"name": "p", "namespace": "ns", "uid": "pu"}, "spec": {"serviceAccountName": "robot"}}
    listers.add("pods", pod)
    token = issued(issuer, boundObjectRef={"kind": "Pod", "apiVersion": "v1", "name": "p"})
    found = await tokens.authenticate_token(token, ())
    assert found is not None
    assert found.user.extra["authentication.kubernetes.io/pod-name"] == ("p",)
    pod["metadata"]["uid"] = "other"
    with pytest.raises(TokenRefused):
        await tokens.authenticate_token(token, ())


async def test_a_secrets_token_is_good_while_the_secret_holds_it(settings, issuer, tokens, listers):
    token = jwt.sign(legacy_claims(account(), "kept"), settings.signing_key)
    with pytest.raises(TokenRefused, match="token has been invalidated"):
        await tokens.authenticate_token(token, ())
    held = {"token": base64.b64encode(token.encode()).decode()}
    secret = {"metadata": {"name": "kept", "namespace": "ns", "uid": "su"}, "data": held}
    listers.add("secrets", secret)
    found = await tokens.authenticate_token(token, ())
    assert found is not None
    groups = ("system:serviceaccounts", "system:serviceaccounts:ns")
    assert found.user == UserInfo("system:serviceaccount:ns:robot", "u1", groups)
    assert found.audiences == (ISSUER,)
    with pytest.raises(TokenRefused, match="is not good for"):
        await tokens.authenticate_token(token, ("elsewhere",))
    secret["data"] = {"token": base64.b64encode(b"another").decode()}
    with pytest.raises(TokenRefused, match="does not match server's copy"):
        await tokens.authenticate_token(token, ())
    secret["data"] = held
    lied = jwt.sign({**legacy_claims(account(), "kept"), "sub": "system:serviceaccount:ns:admin"}, settings.signing_key)
    with pytest.raises(TokenRefused, match="sub claim is invalid"):
        await tokens.authenticate_token(lied, ())
    forged = jwt.sign(legacy_claims(account(), "kept"), load_signing_key(new_signing_key()))
    with pytest.raises(TokenRefused, match="invalid bearer token"):
        await tokens.authenticate_token(forged, ())
    next(iter(listers.values())).objects.clear()  # the account
    with pytest.raises(TokenRefused, match='serviceaccounts "robot" not found'):
        await tokens.authenticate_token(token, ())


async def test_another_pods_account_cannot_be_bound(issuer, listers):
    listers.add(
        "pods", {"metadata": {"name": "p", "namespace": "ns", "uid": "pu"}, "spec": {"serviceAccountName": "x"}}
    )
    with pytest.raises(StatusError) as caught:
        issued(issuer, boundObjectRef={"kind": "Pod", "apiVersion": "v1", "name": "p"})
    assert caught.value.code == 400


async def test_forged_tokens_are_refused(issuer, tokens):
    token = issued(issuer)
    head, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["sub"] = "system:serviceaccount:kube-system:admin"
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    hmac = base64.urlsafe_b64encode(b'{"alg":"HS256"}').rstrip(b"=").decode()
    stranger = jwt.sign(claims, load_signing_key(new_signing_key()))
    for wrong in (f"{head}.{forged}.{signature}", f"{none}.{body}.", f"{hmac}.{body}.{signature}", stranger):
        with pytest.raises(TokenRefused):
            await tokens.authenticate_token(wrong, ())


async def test_tokens_of_other_issuers_are_left_to_others(tokens):
    token = jwt.sign({"iss": "https://elsewhere", "exp": NOW + 60}, load_signing_key(new_signing_key()))
    assert await tokens.authenticate_token(token, ()) is None


def test_rsa_signs_and_verifies_and_is_published():
    key = rsa.generate_private_key(65537, 2048)
    token = jwt.sign({"a": 1}, key)
    assert jwt.verify(token, [key.public_key()]) == {"a": 1}
    published = jwt.jwk(key.public_key())
    assert published["alg"] == "RS256"
    assert published["kid"] == json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))["kid"]


@given(st.text(max_size=60))
def test_no_text_breaks_the_reader(text):
    key = load_signing_key(new_signing_key()).public_key()
    try:
        assert jwt.verify(text, [key]) is None
    except jwt.MalformedToken:
        pass


async def test_projected_tokens_live_a_year(issuer, listers):
    listers.add(
        "pods", {"metadata": {"name": "p", "namespace": "ns", "uid": "pu"}, "spec": {"serviceAccountName": "robot"}}
    )
    reference = {"kind": "Pod", "apiVersion": "v1", "name": "p"}
    answer = issuer.issue("ns", "robot", {"spec": {"expirationSeconds": 3607, "boundObjectRef": reference}})
    claims = jwt.unverified_claims(answer["status"]["token"])
    assert claims["exp"] - claims["iat"] == 365 * 24 * 3600
    assert claims["kubernetes.io"]["warnafter"] - claims["iat"] == 3607


def credentials(value: str, protocols: tuple[str, ...] = ()) -> Credentials:
    headers = CIMultiDict({"Authorization": value} if value else {})
    return Credentials(headers, Connection(None), protocols)


@pytest.fixture
def static(tmp_path) -> StaticTokens:
    (tmp_path / "t.csv").write_text('secret,alice,alice-uid,"devs,qa"\n# odd,bob,b\nother,carol,c\n')
    return StaticTokens.load(tmp_path / "t.csv", (ISSUER,))


async def test_a_static_token_is_a_user_with_groups(static):
    found = await AuthenticatorChain([BearerAuthenticator(static)], anonymous=True).authenticate(
        credentials("Bearer secret")
    )
    assert found.user == UserInfo("alice", "alice-uid", ("devs", "qa", "system:authenticated"))


async def test_no_credentials_are_anonymous_and_wrong_ones_are_not(static):
    chain = AuthenticatorChain([BearerAuthenticator(static)], anonymous=True)
    for header in ("", "Basic YTpi", "Bearer "):
        assert (await chain.authenticate(credentials(header))).user.name == "system:anonymous"
    with pytest.raises(UnauthorizedError):
        await chain.authenticate(credentials("Bearer wrong"))
    with pytest.raises(UnauthorizedError):
        await AuthenticatorChain([BearerAuthenticator(static)], anonymous=False).authenticate(credentials(""))


async def test_a_browser_sends_its_token_as_websocket_protocol(static):
    encoded = base64.urlsafe_b64encode(b"secret").rstrip(b"=").decode()
    protocols = ("v5.channel.k8s.io", f"base64url.bearer.authorization.k8s.io.{encoded}")
    found = await BearerAuthenticator(static).authenticate(credentials("", protocols))
    assert found is not None
    assert found.user.name == "alice"


def test_a_malformed_token_file_names_the_line_not_the_token(tmp_path):
    (tmp_path / "t.csv").write_text("good,a,b\nsecret-token,alice\n")
    with pytest.raises(ValueError, match=r"t.csv:2: .*at least 3 columns") as caught:
        StaticTokens.load(tmp_path / "t.csv", ())
    assert "secret-token" not in str(caught.value)


async def test_good_answers_are_remembered_for_ten_seconds(issuer, tokens, listers):
    ticks = [0.0]
    remembered = RememberedTokens(TokenUnion([tokens]), b"k" * 32, lambda: ticks[0])
    token = issued(issuer)
    assert await remembered.authenticate_token(token, ())
    next(iter(listers.values())).objects.clear()
    ticks[0] = 9.9
    assert await remembered.authenticate_token(token, ())
    ticks[0] = 10.1
    with pytest.raises(TokenRefused):
        await remembered.authenticate_token(token, ())


def test_orjson_reads_what_is_signed():
    token = jwt.sign({"ü": "ß"}, load_signing_key(new_signing_key()))
    assert orjson.loads(base64.urlsafe_b64decode(token.split(".")[1] + "==")) == {"ü": "ß"}
