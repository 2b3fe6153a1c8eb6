"""Replays exchanges recorded from Kubernetes v1.36 against a server of ours and tells where the answers differ.

Run it by hand to see differences: ``python tests/controlplane/golden_replay.py auth -v`` (all files are replayed in the order
of recording, those named are told about).
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import copy
import gzip
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import aiohttp
import golden_backend
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from yarl import URL

from bowsprit.apiserver.collection import World
from bowsprit.controlplane.options import APIServerOptions
from bowsprit.controlplane.server import APIServer
from bowsprit.machinery import protobuf
from bowsprit.store.memory import MemoryStore
from bowsprit.store.protocol import StoreError

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "apiserver"
ORDER = json.loads((FOLDER / "fixtures.json").read_text())["orderOfRecording"]
_BETWEEN = 0.15
_TRIES = 8
_TAKE_TIME = ("apiservices/", "defaulting/apiservice")
_STANDARD = ("Audit-Id", "X-Kubernetes-Pf-Flowschema-Uid", "X-Kubernetes-Pf-Prioritylevel-Uid")
_STEP = re.compile(r"""\.([A-Za-z0-9_-]+)|\[(\d+)\]|\["([^"]+)"\]""")
_HOOK_HOST = "127.0.0.1:28444"
_FREE = "<normalised>"
_HASH = re.compile(r"[0-9A-F]{128}")


@dataclass
class Outcome:
    """How one case went; `differences` is empty when it is equal."""

    case: dict[str, Any]
    differences: list[str] = field(default_factory=list)
    skipped: str = ""


def read_cases(name: str) -> list[dict[str, Any]]:
    """The cases of one file, in order."""
    with gzip.open(FOLDER / "cases" / f"{name}.jsonl.gz", "rt") as lines:
        return [json.loads(line) for line in lines]


# -- values at paths -----------------------------------------------------------------------------------------------------


def steps(path: str) -> list[str | int]:
    """`$.a[0]["b.c"]` as keys."""
    return [int(index) if index else name or quoted for name, index, quoted in _STEP.findall(path)]


def lookup(value: Any, path: str) -> Any:
    for step in steps(path):
        value = value[step]
    return value


def put(value: Any, path: str, new: Any) -> None:
    keys = steps(path)
    for step in keys[:-1]:
        value = value[step]
    value[keys[-1]] = new


def mask(value: Any, paths: list[str]) -> Any:
    """A copy with the values at the paths made equal; what is absent stays absent."""
    value = copy.deepcopy(value)
    for path in paths:
        try:
            lookup(value, path)
        except (KeyError, IndexError, TypeError):
            continue
        put(value, path, _FREE)
    return value


def _pieces(message: str) -> list[str]:
    """What a joined message says, in any order: `x is invalid: [a, b]` is `x is invalid`, `a` and `b`."""
    return sorted(re.split(r", |; |: \[", message.removesuffix("]")))


def differences(want: Any, got: Any, where: str = "$") -> Iterator[str]:
    """Where two JSON values differ. Joined messages and causes are compared as sets."""
    if want == got and type(want) is type(got):
        return
    if isinstance(want, dict) and isinstance(got, dict):
        for key in {**want, **got}:
            if key not in got:
                yield f"{where}.{key}: missing, want {_short(want[key])}"
            elif key not in want:
                yield f"{where}.{key}: surplus {_short(got[key])}"
            else:
                yield from differences(want[key], got[key], f"{where}.{key}")
    elif isinstance(want, list) and isinstance(got, list):
        if where.endswith(".causes"):
            want, got = sorted(want, key=json.dumps), sorted(got, key=json.dumps)
        if len(want) != len(got):
            yield f"{where}: {len(got)} items, want {len(want)}: {_short(got)} / {_short(want)}"
        else:
            for position, (left, right) in enumerate(zip(want, got, strict=True)):
                yield from differences(left, right, f"{where}[{position}]")
    elif not (isinstance(want, str) and isinstance(got, str) and _same_text(want, got, where)):
        yield f"{where}: got {_short(got)}, want {_short(want)}"


def _same_text(want: str, got: str, where: str) -> bool:
    if _AGE.fullmatch(want) and _AGE.fullmatch(got):
        return True
    return where.endswith("message") and _pieces(want) == _pieces(got)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 400 else text[:400] + "…"


def _without_hashes(value: Any) -> Any:
    return json.loads(_HASH.sub("<hash>", json.dumps(value)))


def _cut_down(want: dict[str, Any], got: dict[str, Any]) -> dict[str, Any]:
    """Of our v2 document the paths and definitions that were recorded."""
    if "definitions" not in want:
        return got
    cut = {key: value for key, value in got.items() if key in want}
    for part in ("paths", "definitions"):
        cut[part] = {name: item for name, item in got.get(part, {}).items() if name in want[part]}
    return cut


def _of_recorded_groups(want: Any, got: Any) -> Any:
    """Of discovery and of OpenAPI's index only some groups were recorded; caBundles were not."""
    if isinstance(want, dict) and want.get("kind") == "APIGroupDiscoveryList":
        names = [item["metadata"]["name"] for item in want["items"]]
        got = {**got, "items": [item for item in got["items"] if item["metadata"]["name"] in names]}
    elif isinstance(want, dict) and "openapi" not in want and "paths" in want:
        got = {**got, "paths": {path: item for path, item in got["paths"].items() if path in want["paths"]}}
    elif isinstance(want, dict) and "caBundle" in want.get("spec", {}):
        got = {**got, "spec": {**got["spec"], "caBundle": golden_backend.PLACEHOLDER}}
    return got


def strip_managed_fields(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: strip_managed_fields(item) for key, item in value.items() if key != "managedFields"}
    if isinstance(value, list):
        return [strip_managed_fields(item) for item in value]
    return value


_AGE = re.compile(r"(\d+[smhdy])+|<unknown>")
_REPEATED = re.compile(r"(.+)\*(\d+)", re.DOTALL)
_TEXT_MASKS = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<uid>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "<time>"),
    (re.compile(r'(resourceVersion"?: *"?)\d+'), r"\1<version>"),
    (re.compile(r'(manager"?: *"?)[-\w.]+'), r"\1<manager>"),
    (re.compile(r"\b\d+[sm]\b"), "<age>"),
)


def expand(value: Any) -> Any:
    """Strings written as `z*200000` in the recordings, in full."""
    if isinstance(value, dict):
        return {key: expand(item) for key, item in value.items()}
    if isinstance(value, list):
        return [expand(item) for item in value]
    found = _REPEATED.fullmatch(value) if isinstance(value, str) else None
    return found.group(1) * int(found.group(2)) if found and int(found.group(2)) > 1000 else value


def masked_text(text: str) -> str:
    for pattern, shown in _TEXT_MASKS:
        text = pattern.sub(shown, text)
    return text


def sort_managed_fields(value: Any) -> Any:
    """Entries of one second come in any order, and their times vary."""
    if isinstance(value, dict):
        for key, item in value.items():
            sort_managed_fields(item)
            if key == "managedFields" and isinstance(item, list):
                for entry in item:
                    entry["time"] = _FREE
                item.sort(
                    key=lambda entry: (entry.get("manager", ""), entry["operation"], entry.get("subresource", ""))
                )
    elif isinstance(value, list):
        for item in value:
            sort_managed_fields(item)
    return value


def decoded_token(text: str) -> dict[str, Any]:
    """A JSON Web Token as the recordings show it."""
    header, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in text.split(".")[:2])
    return {"jwtHeader": header, "jwtClaims": claims, "note": "signature left out"}


def show_tokens(value: Any) -> Any:
    """A copy in which tokens are decoded, and what depends on the key is made equal."""
    if isinstance(value, dict):
        shown = {key: show_tokens(item) for key, item in value.items()}
        if isinstance(shown.get("jwtHeader"), dict):
            shown["jwtHeader"]["kid"] = _FREE
            for name in ("exp", "iat", "nbf", "jti"):
                if name in shown["jwtClaims"]:
                    shown["jwtClaims"][name] = _FREE
        return shown
    if isinstance(value, list):
        return [show_tokens(item) for item in value]
    if isinstance(value, str) and value.count(".") == 2 and value.startswith("eyJ"):
        return show_tokens(decoded_token(value))
    return re.sub(r"^JTI=.*", "JTI=" + _FREE, value) if isinstance(value, str) else value


class BreakableStore(MemoryStore):
    """A store that can stop to answer, as etcd did for some of the recordings."""

    broken = False

    async def get(self, key: str) -> Any:
        if self.broken:
            raise StoreError("error getting data from etcd: context deadline exceeded")
        return await super().get(key)


# -- the replayer --------------------------------------------------------------------------------------------------------


class Replayer:
    """Sends recorded requests to a server and compares."""

    def __init__(
        self,
        server: APIServer,
        store: BreakableStore,
        session: aiohttp.ClientSession,
        advance: Callable[[float], None],
        backend: golden_backend.RecordedBackend,
    ) -> None:
        self._server = server
        self._store = store
        self._session = session
        self._advance = advance  # moves the server's monotonic clock
        self._answers: dict[str, Any] = {}
        self._tokens: dict[tuple[str, ...], str] = {}
        self._account_token = ""
        self._watch_start = ""
        self._hooks: Webhooks | None = None
        self._backend = backend

    async def prepare(self) -> None:
        """The namespaces and service accounts that the recordings began with."""
        fixtures = json.loads((FOLDER / "fixtures.json").read_text())
        for name, content in fixtures["namespaces"].items():
            labels = {"labels": content["labels"]} if content["labels"] else {}
            await self._admin("POST", "/api/v1/namespaces", {"metadata": {"name": name, **labels}})
            for account in content["serviceAccounts"]:
                await self._admin("POST", f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": account}})
        self._hooks = Webhooks()
        await self._hooks.start()

    async def close(self) -> None:
        if self._hooks is not None:
            await self._hooks.stop()

    async def _admin(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        async with self._session.request(
            method, self._server.url + path, json=body, headers={"Authorization": "Bearer admin-token"}
        ) as answer:
            return answer.status, await answer.json(content_type=None)

    async def replay(self, case: dict[str, Any]) -> Outcome:
        """Send one case and compare the answer."""
        outcome = Outcome(case)
        if not case.get("request"):
            outcome.skipped = "no request"
            return outcome
        if case["id"] in golden_backend.UNREPEATABLE:
            outcome.skipped = "takes a minute (tests/aggregator/test_faults.py)"
            return outcome
        for method, path, body in golden_backend.STAGE.get(case["id"], ()):
            await self._admin(method, path, body)
        if case["id"] == "auth/tokens/deleted-sa-request" or case["id"] == "auth/tokens/review-deleted":
            self._advance(11.0)
        self._store.broken = case["id"].startswith("health/failing-")
        try:
            async with asyncio.timeout(20):
                if "webhook" in case:
                    await self._with_webhook(case, outcome)
                else:
                    await self._exchange(case, outcome)
                    await self._be_patient(case, outcome)
                    outcome.differences += self._seen_by_backend(case)
        except Exception as exc:
            outcome.differences.append(f"no answer: {type(exc).__name__}: {exc}")
        return outcome

    async def _be_patient(self, case: dict[str, Any], outcome: Outcome) -> None:
        """Controllers take a moment: a read that differs is tried again."""
        request = case["request"]
        if not case["id"].startswith(_TAKE_TIME) or request["method"] != "GET" or "meanwhile" in case:
            return
        for _ in range(_TRIES):
            if not outcome.differences:
                return
            await asyncio.sleep(_BETWEEN)
            outcome.differences.clear()
            await self._exchange(case, outcome)

    def _seen_by_backend(self, case: dict[str, Any]) -> Iterator[str]:
        if "seenByBackend" in case:
            # What had no escapes of its own was not recorded where it had some.
            seen = [] if "%" in case["request"]["path"] else self._backend.seen
            yield from differences(case["seenByBackend"], seen, "seenByBackend")

    async def _exchange(self, case: dict[str, Any], outcome: Outcome) -> None:
        request = await self._substituted(case)
        self._backend.seen.clear()
        await self.substitute_current(case, request)
        response = case.get("response")
        if "json" in case:  # we answer JSON where protobuf is asked for: the JSON form is compared
            status = response["status"] if response is not None else case.get("status", 200)
            want = case["json"]
            if response is not None and "bodyBase64" in response:
                want = protobuf.decode(base64.b64decode(response["bodyBase64"]))
            response = {"status": status, "body": want}
            case = {**case, "normalised": [*(case.get("normalised") or ()), *_FREE_OF_READ]}
        assert response is not None
        if "meanwhile" in case or "lines" in response:
            await self._watch(case, request, response, outcome)
            return
        method, url, headers, data = self._wire(request)
        async with self._session.request(
            method,
            url,
            headers=headers,
            data=data,
            allow_redirects=False,
            skip_auto_headers=["Content-Type", "Accept-Encoding"],
        ) as answer:
            body = await answer.read()
            self._remember(case, body)
            if case.get("setup"):
                if answer.status != response["status"]:
                    outcome.differences.append(
                        f"setup: status {answer.status}, want {response['status']}: {body[:200]!r}"
                    )
                return
            self._compare(case, response, answer, body, outcome)

    def _wire(self, request: dict[str, Any]) -> tuple[str, URL, list[tuple[str, str]], bytes | None]:
        headers: list[tuple[str, str]] = []
        for name, value in (request.get("headers") or {}).items():
            headers += [(name, item) for item in (value if isinstance(value, list) else [value])]
        present = {name.lower() for name, _ in headers}
        if "accept" not in present:
            headers.append(("Accept", "application/json"))
        if "user-agent" not in present:
            headers.append(("User-Agent", "golden"))
        user = request.get("user")
        if user == "serviceaccount token":
            headers.append(("Authorization", f"Bearer {self._account_token}"))
        elif user == "unknown bearer token":
            headers.append(("Authorization", "Bearer nobody-issued-this"))
        elif user is not None:
            headers.append(("Authorization", f"Bearer {user}-token"))
        data = None
        if "body" in request:
            data = json.dumps(expand(request["body"])).encode()
        elif "bodyText" in request:
            data = request["bodyText"].encode("utf-8", "surrogateescape")
        elif "bodyBase64" in request:
            data = base64.b64decode(request["bodyBase64"])
        return request["method"], URL(self._server.url + request["path"], encoded=True), headers, data

    async def _substituted(self, case: dict[str, Any]) -> dict[str, Any]:
        """The request with the values of this run."""
        request: dict[str, Any] = copy.deepcopy(case["request"])
        for ref in case.get("refs") or ():
            if ref.get("current"):
                continue
            try:
                value = lookup(self._answers[ref["case"]], ref["path"])
            except (KeyError, IndexError, TypeError):
                continue
            if ref["at"].startswith("path: "):
                parts = urlsplit(request["path"])
                name = ref["at"].removeprefix("path: ")
                query = [
                    (key, value if key == name else old) for key, old in parse_qsl(parts.query, keep_blank_values=True)
                ]
                request["path"] = urlunsplit(parts._replace(query=urlencode(query)))
            else:
                try:
                    put(request, ref["at"], value)
                except (KeyError, IndexError, TypeError):
                    continue
        if case["id"].startswith("watch/"):
            request["path"] = await self._watch_path(request["path"])
        if case["id"].startswith("apiservices/backend/"):
            text = json.dumps(request).replace(golden_backend.PLACEHOLDER, self._backend.bundle(case))
            request = json.loads(text)
        if case["id"].startswith("openapi/v3-"):
            request = await self._with_own_hashes(request)
        token = ((request.get("body") or {}) if isinstance(request.get("body"), dict) else {}).get("spec") or {}
        if isinstance(token, dict) and isinstance(token.get("token"), dict):
            audience = tuple(token["token"]["jwtClaims"]["aud"])
            token["token"] = self._tokens.get(audience, "")
        return request

    async def _with_own_hashes(self, request: dict[str, Any]) -> dict[str, Any]:
        """The hash of a document is that of its bytes, whose order nobody promises: ours in place of the recorded one."""
        text = json.dumps(request)
        if _HASH.search(text) is None:
            return request
        _, index = await self._admin("GET", "/openapi/v3")
        own = index["paths"][urlsplit(request["path"]).path.removeprefix("/openapi/v3/")]["serverRelativeURL"]
        changed: dict[str, Any] = json.loads(_HASH.sub(own.rpartition("=")[2], text))
        return changed

    async def _watch_path(self, path: str) -> str:
        """650 stands for the state right after the fixture, 686 for the present one."""
        if "resourceVersion=650" not in path and "resourceVersion=686" not in path:
            return path
        _, listed = await self._admin("GET", "/api/v1/namespaces/golden-watch/configmaps")
        now = listed["metadata"]["resourceVersion"]
        self._watch_start = self._watch_start or now
        return path.replace("resourceVersion=650", f"resourceVersion={self._watch_start}").replace(
            "resourceVersion=686", f"resourceVersion={now}"
        )

    async def substitute_current(self, case: dict[str, Any], request: dict[str, Any]) -> None:
        """Put in the values that objects have at this moment."""
        current = [ref for ref in case.get("refs") or () if ref.get("current")]
        if not current:
            return
        _, live = await self._admin("GET", request["path"].partition("?")[0])
        for ref in current:
            put(request, ref["at"], lookup(live, ref["at"].replace("$.body", "$", 1)))

    def _remember(self, case: dict[str, Any], body: bytes) -> None:
        try:
            answer = json.loads(body)
        except ValueError:
            return
        self._answers[case["id"]] = answer
        if isinstance(answer, dict) and answer.get("kind") == "TokenRequest" and answer.get("status"):
            token = answer["status"]["token"]
            audience = tuple(answer["spec"]["audiences"])
            self._tokens.setdefault(audience, token)
            if case["id"] == "auth/tokens/token":
                self._account_token = token

    def _compare(
        self,
        case: dict[str, Any],
        response: dict[str, Any],
        answer: aiohttp.ClientResponse,
        body: bytes,
        outcome: Outcome,
    ) -> None:
        told = outcome.differences
        if answer.status == 404 and case["id"].startswith("protobuf/read/"):
            outcome.skipped = "made by a case that is not here"
            return
        if answer.status != response["status"]:
            told.append(f"status {answer.status}, want {response['status']}: {body[:300]!r}")
            return
        self._compare_headers(response.get("headers") or {}, answer, told)
        free = [path for path in case.get("normalised") or () if path.startswith("$")]
        if isinstance(response.get("body"), str):  # no JSON, it was kept as it came
            response = {**response, "bodyText": response["body"]}
            del response["body"]
        if "body" in response:
            try:
                got = protobuf.decode(body) if body.startswith(b"k8s\0") else json.loads(body)
            except ValueError:
                told.append(f"body is no JSON: {body[:200]!r}")
                return
            want = response["body"]
            if not case["id"].startswith("apply/"):
                want, got = strip_managed_fields(want), strip_managed_fields(got)
            if case["id"].startswith("openapi/"):
                want, got = _without_hashes(want), _cut_down(want, _without_hashes(got))
            if case["id"].startswith("apiservices/"):
                got = _of_recorded_groups(want, got)
            if self._hooks is not None:  # it listens on another port than the recorded one
                text = json.dumps(got).replace(self._hooks.host, _HOOK_HOST)
                got = json.loads(re.sub(rf"\b{self._server.port}\b", "26443", text))
            want, got = mask(show_tokens(expand(want)), free), mask(show_tokens(got), free)
            told += differences(sort_managed_fields(want), sort_managed_fields(got))
        elif "bodyText" in response:
            want_text, text = response["bodyText"], body.decode("utf-8", "replace")
            if "hash values" in (case.get("normalised") or ()):
                want_text, text = (re.sub(r"[0-9A-F]{64,}", _FREE, item) for item in (want_text, text))
            text = text.replace(f"10.0.0.1:{self._server.port}", "10.0.0.1:26443")
            if masked_text(want_text) != masked_text(text):
                told.append(f"text: got {text[:300]!r}, want {want_text[:300]!r}")

    @staticmethod
    def _compare_headers(want: dict[str, Any], answer: aiohttp.ClientResponse, told: list[str]) -> None:
        for name, value in want.items():
            if name == "std":
                told += [f"header {item} missing" for item in _STANDARD if item not in answer.headers]
            elif name in ("transfer-encoding", "etag", "content-encoding", "expires", "last-modified"):
                continue
            elif value in ("<uuid>", ["<uuid>", "<uuid>"]):
                expected = 1 if isinstance(value, str) else len(value)
                if len(answer.headers.getall(name, [])) != expected:
                    told.append(f"header {name}: got {answer.headers.getall(name, [])}, want {value}")
            else:
                got = [_HASH.sub("<hash>", item) for item in answer.headers.getall(name, [])]
                value = _without_hashes(value)
                if got != (value if isinstance(value, list) else [value]):
                    told.append(f"header {name}: got {got}, want {value}")

    # -- watches -----------------------------------------------------------------------------------------------------

    async def _watch(
        self, case: dict[str, Any], request: dict[str, Any], response: dict[str, Any], outcome: Outcome
    ) -> None:
        want = response.get("lines") or []
        method, url, headers, data = self._wire(request)
        lines: list[Any] = []
        async with self._session.request(method, url, headers=headers, data=data) as answer:
            if answer.status != 200 or response["status"] != 200:
                text = await answer.read()
                whole = want[0] if want and isinstance(want[0], dict) else yaml.safe_load("\n".join(want))
                body = json.dumps(yaml.safe_load(text)).encode()
                self._compare(case, {**response, "body": whole} if want else response, answer, body, outcome)
                return
            self._compare_headers(response.get("headers") or {}, answer, outcome.differences)
            reader = asyncio.ensure_future(self._read_lines(answer, lines, len(want)))
            for item in case.get("meanwhile") or ():
                await asyncio.sleep(_BETWEEN)
                other = self._wire(item["request"])
                async with self._session.request(other[0], other[1], headers=other[2], data=other[3]) as reply:
                    await reply.read()
            closes = response.get("closedByServer")
            limit = dict(parse_qsl(urlsplit(request["path"]).query)).get("timeoutSeconds")
            patience = float(limit) + 2.0 if limit and closes else 1.0
            try:
                await asyncio.wait_for(reader, patience)
            except TimeoutError:
                pass
        free = [path for path in case.get("normalised") or () if path.startswith("$")]
        got = [strip_managed_fields(line) for line in lines]
        outcome.differences += differences(
            show_tokens(mask([strip_managed_fields(line) for line in want], free)), show_tokens(mask(got, free))
        )

    @staticmethod
    async def _read_lines(answer: aiohttp.ClientResponse, lines: list[Any], wanted: int) -> None:
        async for line in answer.content:
            lines.append(json.loads(line))
            if len(lines) >= wanted:
                return

    # -- webhooks ----------------------------------------------------------------------------------------------------

    async def _with_webhook(self, case: dict[str, Any], outcome: Outcome) -> None:
        assert self._hooks is not None
        spec, kind = case["webhook"], case["webhook"]["kind"]
        plural = kind.lower() + "s"
        collection = f"/apis/admissionregistration.k8s.io/v1/{plural}"
        hook = {
            "name": "h.example.com",
            "clientConfig": {"url": f"https://{self._hooks.host}{spec['path']}", "caBundle": self._hooks.ca},
            "rules": [
                {
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "operations": spec["operations"],
                    "resources": ["configmaps"],
                }
            ],
            "admissionReviewVersions": ["v1"],
            **{key: spec[key] for key in ("failurePolicy", "sideEffects", "timeoutSeconds")},
        }
        status, made = await self._admin("POST", collection, {"metadata": {"name": "g-hook"}, "webhooks": [hook]})
        if status != 201:
            outcome.differences.append(f"the webhook configuration was refused: {made}")
            return
        self._hooks.seen.clear()
        try:
            await self._exchange(case, outcome)
        finally:
            await self._admin("DELETE", f"{collection}/g-hook")
        want = [self._review(item) for item in case["seenByWebhook"]]
        got = [self._review(item) for item in self._hooks.seen]
        outcome.differences += differences(want, got, "seenByWebhook")

    def _review(self, seen: dict[str, Any]) -> dict[str, Any]:
        free = [f"$.body.request{path}" for path in (".uid", *_FREE_OF_REVIEW)]
        seen = mask(seen, free)
        seen["headers"] = {
            name.lower(): value
            for name, value in seen["headers"].items()
            if name.lower() not in ("host", "content-length")
        }
        return strip_managed_fields(seen)  # type: ignore[no-any-return]


_FREE_OF_READ = [
    "$.status.conditions[1].lastTransitionTime",
    *(
        f'{place}["{prefix}controller-uid"]'
        for place in ("$.metadata.labels", "$.spec.template.metadata.labels", "$.spec.selector.matchLabels")
        for prefix in ("", "batch.kubernetes.io/")
    ),
    "$.metadata.uid",
    "$.metadata.resourceVersion",
    "$.metadata.creationTimestamp",
    "$.metadata.deletionTimestamp",
    "$.spec.clusterIP",
    "$.spec.clusterIPs",
    "$.spec.ports[0].nodePort",
    "$.spec.ports[1].nodePort",
    "$.spec.healthCheckNodePort",
    "$.spec.uid",
    "$.spec.volumes[0].name",
    "$.spec.containers[0].volumeMounts[0].name",
    "$.status.conditions[0].lastTransitionTime",
    "$.status.conditions[0].lastUpdateTime",
    "$.status.lastPhaseTransitionTime",
]
_FREE_OF_REVIEW = [
    f".{obj}.metadata.{name}"
    for obj in ("object", "oldObject")
    for name in ("uid", "creationTimestamp", "resourceVersion")
]


class Webhooks:
    """An HTTPS server that behaves as the one in the recordings did."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.host = _HOOK_HOST
        self.ca = ""
        self._runner: Any = None

    async def start(self) -> None:
        import ssl

        from aiohttp import web

        from bowsprit.pki.authority import Authority

        authority = Authority.create("hook-ca")
        self.ca = base64.b64encode(authority.ca_pem).decode()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:
            cert, key = Path(folder, "c"), Path(folder, "k")
            authority.issue_server("hook", [], ["127.0.0.1"]).save(cert, key)
            context.load_cert_chain(cert, key)
        app = web.Application()
        app.router.add_post("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        self.host = f"127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: Any) -> Any:
        from aiohttp import web

        body = await request.json()
        self.seen.append({"path": request.path_qs, "headers": dict(request.headers), "body": body})
        answer: dict[str, Any] = {"uid": body["request"]["uid"], "allowed": True}
        match request.path:
            case "/deny":
                answer |= {"allowed": False, "status": {"code": 418, "message": "not today", "reason": "Forbidden"}}
            case "/warn":
                answer["warnings"] = ["watch out", "second"]
            case "/500":
                return web.Response(status=500)
            case "/slow":
                await asyncio.sleep(3)
            case "/patch":
                answer |= _patch([{"op": "add", "path": "/metadata/labels", "value": {"hooked": "yes"}}])
            case "/badpatch":
                answer |= _patch([{"op": "remove", "path": "/nope"}])
        return web.json_response({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer})


def _patch(operations: list[dict[str, Any]]) -> dict[str, Any]:
    return {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(operations).encode()).decode()}


# -- a server like the recorded one ----------------------------------------------------------------------------------------


def replay_options(folder: Path) -> APIServerOptions:
    """The settings of the server in the recordings."""
    users = json.loads((FOLDER / "fixtures.json").read_text())["users"]
    rows = []
    for token, user in users.items():
        if isinstance(user, dict):
            groups = ",".join(user["groups"])
            rows.append(f'{token}-token,{user["username"]},{user["uid"]},"{groups}"')
    (folder / "tokens.csv").write_text("\n".join(rows) + "\n")
    key = rsa.generate_private_key(65537, 2048)
    (folder / "sa.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    return APIServerOptions(
        secure_port=0,
        advertise_address="10.0.0.1",
        store="memory",
        cert_dir=folder,
        token_auth_file=folder / "tokens.csv",
        service_account_signing_key_file=folder / "sa.key",
        enable_aggregator_routing=True,
        proxy_client_cert_file=folder / "front.crt",
        proxy_client_key_file=folder / "front.key",
    )


async def replay(names: list[str]) -> dict[str, list[Outcome]]:
    """Replay the files, in the order given, against a new server."""
    outcomes: dict[str, list[Outcome]] = {}
    shift = [0.0]
    from time import monotonic

    world = World(monotonic=lambda: monotonic() + shift[0])

    def advance(seconds: float) -> None:
        shift[0] += seconds

    with tempfile.TemporaryDirectory() as folder:
        store = BreakableStore()
        backend = golden_backend.RecordedBackend(Path(folder))
        await backend.start()
        network = golden_backend.RecordedNetwork(backend)
        server = APIServer(replay_options(Path(folder)), store=store, world=world, cluster_dialer=network)
        await server.start()
        connector = aiohttp.TCPConnector(ssl=False)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=True) as session:
            replayer = Replayer(server, store, session, advance, backend)
            await replayer.prepare()
            for name in names:
                outcomes[name] = [await replayer.replay(case) for case in read_cases(name)]
            await replayer.close()
        await server.stop()
        await backend.stop()
    return outcomes


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", help="files to tell about; default: all")
    parser.add_argument("-v", "--verbose", action="store_true", help="tell every difference")
    parser.add_argument("-c", "--case", help="only cases whose id contains this")
    arguments = parser.parse_args()
    wanted = arguments.files or ORDER
    last = max(ORDER.index(name) for name in wanted)
    outcomes = asyncio.run(replay(ORDER[: last + 1]))
    total: Counter[str] = Counter()
    for name in ORDER[: last + 1]:
        if name not in wanted:
            continue
        counted = [item for item in outcomes[name] if not item.skipped]
        bad = [item for item in counted if item.differences]
        total["all"] += len(counted)
        total["equal"] += len(counted) - len(bad)
        print(f"{name}: {len(counted) - len(bad)}/{len(counted)} equal, {len(outcomes[name]) - len(counted)} skipped")
        for item in bad:
            if arguments.case and arguments.case not in item.case["id"]:
                continue
            first, *rest = item.differences
            print(f"  {item.case['id']}: {first}")
            if arguments.verbose:
                for text in rest:
                    print(f"      {text}")
    print(f"{total['equal']}/{total['all']} equal")
    sys.exit(0 if total["equal"] == total["all"] else 1)


if __name__ == "__main__":
    main()
