"""Scripts of queue behaviour recorded from Kubernetes v1.36: what is queued where by which event, and who is tried when.

A virtual clock drives the core as the process does. The recordings do not tell at which fraction of a second they began
(backoff windows are aligned to whole seconds), nor when the flush loop started: a script is reproduced when it is for some
of these offsets. Steps that differed between two recordings (`varied`) are compared without order and queue.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from bowsprit.machinery.objects import deep_copy
from bowsprit.scheduler.config.defaults import set_defaults
from bowsprit.scheduler.core import Assigned, Failed, SchedulerCore
from bowsprit.scheduler.plugins.volumebinding import VolumeBinding
from bowsprit.scheduler.registry import registry

FILE = Path(__file__).parents[1] / "golden" / "scheduler" / "queue.jsonl.gz"
SCRIPTS = [json.loads(line) for line in gzip.decompress(FILE.read_bytes()).splitlines()]
PRIORITIES = {"low": 10, "mid": 1000, "high": 100000, "neg": -50, "never": 100000}


def merge(target, patch):
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


class World:
    """An API server's worth of objects around the core, on a virtual clock."""

    def __init__(self, script, offset, flush):
        self.now = 1000.0 + offset
        self.entries = []
        self.objects = {}
        self.serial = 0
        gates = dict(text.split("=") for text in script["featureGates"])
        config = set_defaults(script["config"])
        self.core = SchedulerCore(
            config,
            registry(),
            lambda: self.now,
            gates={name: value == "true" for name, value in gates.items()},
            observer=self.observe,
        )
        self.next_flush = self.now + flush
        self.start = self.now
        for group in ("objects", "nodes", "existing_pods"):
            for obj in script[group]:
                self.create(obj)
        self.observing = True

    def observe(self, what, pod, event, queue):
        entry = {"what": what, "pod": pod.key, "event": event.label}
        if queue:
            entry["queue"] = queue
        self.record(entry)

    def record(self, entry):
        self.entries.append({"at": self.now - self.step_start, **entry})

    step_start = 0.0
    observing = False

    def key(self, obj):
        kind = obj.get("kind") or "Pod"
        return kind, obj["metadata"].get("namespace") or "", obj["metadata"]["name"]

    def create(self, obj):
        obj = deep_copy(obj)
        self.serial += 1
        obj["metadata"].setdefault("uid", f"uid-{self.serial}")
        kind, key = obj.get("kind") or "Pod", self.key(obj)
        obj["kind"] = kind
        if kind == "Pod":
            spec = obj["spec"]
            spec.setdefault("priority", PRIORITIES.get(spec.get("priorityClassName"), 0))
            spec.setdefault("schedulerName", "default-scheduler")
        status = obj.get("status")
        if kind in ("PersistentVolume", "PersistentVolumeClaim") and status:
            first = {**obj, "status": {"phase": "Pending"}}
            self.store(key, first)
            self.schedule()
        self.store(key, obj)
        if kind == "Pod" and self.observing and obj["spec"].get("nodeName"):
            self.store(key, {**obj, "status": {"phase": "Pending", "startTime": "2026-01-01T00:00:00Z"}})

    def store(self, key, obj):
        self.objects[key] = obj
        if key[0] == "Pod":
            self.core.set_pod(obj)
        elif key[0] == "Node":
            self.core.set_node(obj)
        else:
            self.core.set_object(key[0], obj)

    def delete(self, key):
        obj = self.objects.pop(key)
        if key[0] == "Pod":
            if obj["spec"].get("nodeName"):
                marked = deep_copy(obj)
                marked["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
                self.core.set_pod(marked)
            self.core.delete_pod(obj)
        elif key[0] == "Node":
            self.core.delete_node(key[2])
        else:
            self.core.delete_object(key[0], obj)

    def do(self, action):
        for obj in action.get("create", ()):
            self.create(obj)
            self.schedule()
        if "delete" in action:
            target = action["delete"]
            self.delete((target["kind"], target.get("namespace") or "", target["name"]))
        if "patch" in action:
            target = action["patch"]
            key = (target["kind"], target.get("namespace") or "", target["name"])
            self.store(key, merge(self.objects[key], target["mergePatch"]))

    def schedule(self):
        while (queued := self.core.queue.pop()) is not None:
            self.record({"what": "attempt", "pod": queued.pod.key})
            mark = len(self.entries)
            result = self.core.run_cycle(queued)
            later = self.entries[mark:]
            del self.entries[mark:]
            key = ("Pod", queued.pod.namespace, queued.pod.name)
            if isinstance(result, Assigned):
                if result.profile.plugin(VolumeBinding).assumed_volumes:
                    self.entries += later  # PreBind waits for the volume controller, which did not run
                    continue
                self.core.queue.done(queued.pod.uid)
                self.record({"what": "bound", "pod": queued.pod.key, "node": result.placement.node})
                self.entries += later
                self.store(key, merge(self.objects[key], {"spec": {"nodeName": result.placement.node}}))
            elif isinstance(result, Failed):
                message = "" if result.message.startswith("no nodes") else result.message
                self.record({"what": "unschedulable", "pod": queued.pod.key, "message": message})
                self.entries += later
                self.report(result, key)

    def report(self, failed, key):
        if failed.nominated:
            self.store(key, merge(self.objects[key], {"status": {"nominatedNodeName": failed.nominated}}))
        if failed.preemption is None:
            return
        for victim in failed.preemption.candidate.victims:
            other = ("Pod", victim.namespace, victim.name)
            condition = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
            if victim.terminating:
                continue
            self.store(other, merge(self.objects[other], {"status": {"conditions": [condition]}}))
            mark = {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}
            self.store(other, merge(self.objects[other], mark))
            entry = {"what": "preempted", "pod": failed.queued.pod.key, "victim": victim.key}
            self.record({**entry, "node": failed.preemption.candidate.node})
        self.core.end_preemption(failed.profile, failed.queued.pod)

    def run_until(self, moment):
        self.schedule()
        while self.next_flush <= moment:
            self.now = self.next_flush
            self.next_flush += 1.0
            self.core.queue.flush_backoff()
            self.schedule()
        self.now = moment


def play(script, offset, flush):
    world = World(script, offset, flush)
    steps = []
    for step in script["steps"]:
        world.step_start = world.start + step["startedAt"]
        world.run_until(world.step_start)
        world.entries.clear()
        world.do(step["do"])
        world.run_until(world.step_start + step["observedSeconds"])
        steps.append([dict(entry) for entry in world.entries])
    return steps


def plain(entry, with_queue=True):
    fields = ("what", "pod", "event", "queue", "node", "victim", "message")
    return tuple((name, entry.get(name)) for name in fields if with_queue or name != "queue")


def differs(script, steps):
    for number, (step, got) in enumerate(zip(script["steps"], steps, strict=True)):
        want = step["then"]
        if number in script["varied"]:
            mine, theirs = (Counter(plain(e, False) for e in entries) for entries in (got, want))
            if {e for e in mine if e[0][1] != "notQueued"} != {e for e in theirs if e[0][1] != "notQueued"}:
                return number, got, want
            continue
        for asynchronous in (False, True):
            mine, theirs = (
                [e for e in entries if (e["what"] in ("bound", "preempted", "notQueued")) == asynchronous]
                for entries in (got, want)
            )
            if asynchronous:
                if Counter(map(plain, mine)) != Counter(map(plain, theirs)):
                    return number, got, want
            elif [plain(e) for e in mine] != [plain(e) for e in theirs] or any(
                abs(a["at"] - b["at"]) > 1.05 for a, b in zip(mine, theirs, strict=True)
            ):
                return number, got, want
    return None


OFFSETS = [(offset / 10, flush / 10) for offset in range(10) for flush in (1, 4, 7, 10)]
EVENTS = [script for script in SCRIPTS if not script["id"].startswith("backoff-")]
BACKOFF = [script for script in SCRIPTS if script["id"].startswith("backoff-")]


@pytest.mark.parametrize("script", EVENTS, ids=lambda script: script["id"])
def test_events_move_pods_as_recorded(script):
    problems = [differs(script, play(script, *offsets)) for offsets in OFFSETS]
    assert None in problems, problems[0]


@pytest.mark.parametrize("script", BACKOFF, ids=lambda script: script["id"])
def test_backoff_follows_the_recorded_attempts(script):
    recorded = script["attemptTimes"]
    best = None
    for offsets in OFFSETS:
        steps = play(script, *offsets)
        mine = [
            (step["startedAt"] + entry["at"], entry["pod"])
            for step, entries in zip(script["steps"], steps, strict=True)
            for entry in entries
            if entry["what"] == "attempt"
        ]
        for times in recorded:
            ours, theirs = (sorted((pod.split("/")[-1], at) for at, pod in entries) for entries in (mine, times))
            if [pod for pod, _ in ours] == [pod for pod, _ in theirs]:
                worst = max(abs(a[1] - b[1]) for a, b in zip(ours, theirs, strict=True))
                best = worst if best is None else min(best, worst)
    assert best is not None
    assert best <= 1.2
