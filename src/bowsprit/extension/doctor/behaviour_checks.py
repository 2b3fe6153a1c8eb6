"""Checks 13 to 15: do watches and writes behave, and does nobody suffer from this server?"""

from __future__ import annotations

import asyncio
import time

from bowsprit.client.resources import NAMESPACES
from bowsprit.client.rest import RestClient
from bowsprit.extension.doctor.finding import Finding, fail, ok, skip, warn
from bowsprit.extension.doctor.subject import Subject
from bowsprit.machinery.codec import DecodeError, decode_json, encode_json
from bowsprit.machinery.objects import Obj, find_condition, nested

_WATCH_SECONDS = 3.0
_SLOW, _TOO_SLOW = 1.0, 5.0
_ENDED = "k8s.io/initial-events-end"
_CONDITIONS = ("NamespaceDeletionDiscoveryFailure", "NamespaceDeletionContentFailure", "NamespaceContentRemaining")
_NAMED = 5  # namespaces that a finding names at the most


async def check_watchlist(subject: Subject) -> Finding:
    """A watch with sendInitialEvents ends its initial events with a bookmark, or is refused; it is never ignored."""
    watched = [item for item in subject.resources if {"list", "watch"} <= set(item.get("verbs") or ())]
    if not watched:
        return (
            skip("nothing can be watched") if subject.resources else skip("the resources are not known, see discovery")
        )
    for item in watched:
        answer = await _initial_events(subject, item["name"])
        if answer == "ignored":
            return fail(
                f"a watch of {item['name']} with sendInitialEvents gets no bookmark that ends the initial events",
                "clients since v1.35 then wait, and list after a while: refuse the parameter (422), or honour it",
            )
        if answer.startswith("refused:"):
            return warn(
                f"a watch of {item['name']} with sendInitialEvents is{answer.removeprefix('refused:')}",
                "clients then list as before; Go servers need an etcd with RequestWatchProgress for it (3.4.31, 3.5.13 or later)",
            )
        if answer.startswith("error"):
            return fail(f"a watch of {item['name']}: {answer}", "look at the server's log")
    return ok(f"streaming lists of {', '.join(item['name'] for item in watched)} are answered")


async def _initial_events(subject: Subject, resource: str) -> str:
    """What comes of it: "answered", "refused", "refused: …" by an event, "ignored", or "error …"."""
    params = {
        "watch": "true",
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
        "timeoutSeconds": "5",
    }
    path = f"/apis/{subject.group}/{subject.version}/{resource}"
    buffer = b""
    try:
        async with (
            asyncio.timeout(_WATCH_SECONDS),
            subject.client.transport.open("GET", path, params=params, endless=True) as answer,
        ):
            if answer.status in (400, 422):
                return "refused"
            if answer.status == 403:
                return "refused"
            if answer.status != 200:
                return f"error {answer.status}"
            async for chunk in answer.content.iter_any():
                *lines, buffer = (buffer + chunk).split(b"\n")
                events = [event for line in lines if (event := _event(line))]
                if any(_ends_initial_events(event) for event in events):
                    return "answered"
                for event in events:
                    if event.get("type") == "ERROR":
                        return f"refused: refused with an event: {nested(event, 'object', 'message')}"
    except TimeoutError:
        pass
    return "ignored"


def _event(line: bytes) -> Obj:
    try:
        return decode_json(line) if line.strip() else {}
    except DecodeError:
        return {}


def _ends_initial_events(event: Obj) -> bool:
    noted = nested(event, "object", "metadata", "annotations", default={})
    return bool(event.get("type") == "BOOKMARK" and noted.get(_ENDED) == "true")


async def check_dry_run(subject: Subject) -> Finding:
    """A create on trial comes back within a second."""
    created = [item for item in subject.resources if "create" in (item.get("verbs") or ())]
    if not created:
        return (
            skip("nothing can be created") if subject.resources else skip("the resources are not known, see discovery")
        )
    slowest = 0.0
    for item in created:
        status, body, seconds = await _create(subject, item)
        slowest = max(slowest, seconds)
        if status == 0:
            return fail(
                f"a create of {item['name']} on trial: no answer in {seconds:.0f} s", "look at the server's log"
            )
        if status == 403 and "not yet ready" in body:
            return fail(
                f"a create of {item['name']} on trial waits {seconds:.1f} s and is refused: {body}",
                "the server may not follow what admission goes by: see permissions and ready",
            )
        if status >= 500:
            return fail(f"a create of {item['name']} on trial answers {status}: {body}", "look at the server's log")
    told = f"a create on trial takes {slowest * 1000:.0f} ms"
    if slowest > _TOO_SLOW:
        return fail(told, "admission webhooks, policies or the server's storage are slow")
    if slowest > _SLOW:
        return warn(told, "admission webhooks, policies or the server's storage are slow")
    return ok(told)


async def _create(subject: Subject, item: Obj) -> tuple[int, str, float]:
    """Status (0: none), message and duration. The object is minimal, so a 422 is as good an answer as a 201."""
    gv = f"{subject.group}/{subject.version}"
    where = "/namespaces/default" if item.get("namespaced") else ""
    body = {"apiVersion": gv, "kind": item["kind"], "metadata": {"generateName": "bowsprit-doctor-"}}
    began = time.monotonic()
    try:
        answer = await subject.client.raw(
            "POST",
            f"/apis/{gv}{where}/{item['name']}",
            params={"dryRun": "All"},
            body=encode_json(body),
            headers={"Content-Type": "application/json"},
            timeout=20.0,
        )
    except TimeoutError:
        return 0, "", time.monotonic() - began
    seconds = time.monotonic() - began
    text = answer.body[:2000].decode("utf-8", "replace")
    try:
        text = str(decode_json(answer.body).get("message") or "")
    except DecodeError:
        pass
    return answer.status, text[:300], seconds


async def check_namespaces(subject: Subject) -> Finding:
    """No namespace is stuck in its deletion because of this group."""
    stuck = await _terminating(subject.client, subject.group)
    if stuck:
        names = ", ".join(where for where, _ in stuck[:_NAMED]) + (" and others" if len(stuck) > _NAMED else "")
        return fail(
            f"namespace{'s' if len(stuck) > 1 else ''} {names} cannot be deleted because of this group: {stuck[0][1]}",
            "make the server available, or delete its APIService: the deletion then goes on by itself",
        )
    return ok("no namespace waits for this group")


async def _terminating(client: RestClient, group: str) -> list[tuple[str, str]]:
    found = []
    async for page in client.pages(NAMESPACES):
        for item in page.get("items") or ():
            if not nested(item, "metadata", "deletionTimestamp"):
                continue
            for kind in _CONDITIONS:
                condition = find_condition(item, kind) or {}
                if condition.get("status") == "True" and group in str(condition.get("message", "")):
                    found.append((item["metadata"]["name"], str(condition["message"])))
                    break
    return found
