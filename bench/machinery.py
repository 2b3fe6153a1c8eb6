"""What an object costs on its way in and out: typed reading, protobuf, patches, apply, custom resource validation.

The floor is orjson reading or writing the same object once: the least that any server in Python does with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from bench import Row
from bowsprit.machinery import apply, builtin, protobuf, strategicpatch, typed
from bowsprit.machinery.names import GroupVersionKind
from bowsprit.machinery.objects import Obj, deep_copy
from bowsprit.machinery.schema import CustomResourceSchema

_SECONDS = 0.3
_CONTAINER: Obj = {
    "name": "c",
    "image": "registry.example.com/app:1.2.3",
    "args": ["--port=8080", "--verbose"],
    "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
    "env": [{"name": f"V{number}", "value": str(number)} for number in range(8)],
    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "512Mi"}},
    "volumeMounts": [{"name": "v", "mountPath": "/v"}],
    "livenessProbe": {"httpGet": {"path": "/", "port": "http", "scheme": "HTTP"}, "periodSeconds": 10},
    "terminationMessagePath": "/dev/termination-log",
    "imagePullPolicy": "Always",
}
_POD: Obj = {
    "kind": "Pod",
    "apiVersion": "v1",
    "metadata": {
        "name": "web-5d7f9c6b8-abcde",
        "namespace": "default",
        "labels": {"app": "web", "pod-template-hash": "5d7f9c6b8"},
        "creationTimestamp": "2026-01-01T00:00:00Z",
    },
    "spec": {
        "containers": [{**_CONTAINER, "name": name} for name in ("app", "side")],
        "volumes": [{"name": "v", "configMap": {"name": "config", "defaultMode": 420}}],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}] * 2,
    },
    "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]},
}
_SCHEMA: Obj = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 1},
                "mode": {"type": "string", "enum": ["a", "b"], "default": "a"},
                "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            },
            "x-kubernetes-validations": [{"rule": "self.size < 100"}],
        }
    },
}
_WIDGET: Obj = {
    "apiVersion": "e/v1",
    "kind": "W",
    "metadata": {"name": "w"},
    "spec": {"size": 3, "tags": ["x", "y", "z"]},
}


def _microseconds(action: Callable[[], Any]) -> float:
    """The best of many runs."""
    action()
    best, end = float("inf"), time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - start)
    return best * 1e6


def _tracked(obj: Obj, context: apply.Context) -> None:
    new = obj | {"metadata": dict(obj["metadata"])}
    apply.update_managed_fields(None, new, "m", context=context, now="2026-01-01T00:00:00Z")


def run() -> Iterator[Row]:
    """Rows in microseconds per object."""
    pod = builtin.lookup(GroupVersionKind("", "v1", "Pod"))
    if pod is None:
        raise AssertionError("Pod is a built-in kind")
    obj = pod.round_trip(_POD)
    text, wire = orjson.dumps(obj), protobuf.encode(obj)
    read, write = _microseconds(lambda: orjson.loads(text)), _microseconds(lambda: orjson.dumps(obj))
    patch = {"spec": {"containers": [{"name": "app", "image": "new"}], "tolerations": None}}
    context = apply.Context(typed.of_message(pod.message), "v1", pod.round_trip({"kind": "Pod", "apiVersion": "v1"}))
    config = {key: obj[key] for key in ("kind", "apiVersion", "spec")} | {"metadata": {"name": "web"}}
    live = apply.apply(deep_copy(context.empty), config, "m", context=context, now="2026-01-01T00:00:00Z")
    schema = CustomResourceSchema(_SCHEMA)
    small = _microseconds(lambda: orjson.loads(orjson.dumps(_WIDGET)))

    def row(name: str, action: Callable[[], Any], floor: float, aim: str = "") -> Row:
        ours = _microseconds(action)
        return Row(name, ours, floor, "us", ours / floor, aim, f"{len(text)} bytes of JSON" if floor != small else "")

    yield row("typed reading of a pod / orjson.loads", lambda: pod.round_trip(obj), read)
    yield row("unknown fields of a pod / orjson.loads", lambda: pod.strict_errors(obj), read)
    yield row("protobuf decode of a pod / orjson.loads", lambda: protobuf.decode(wire), read)
    yield row("protobuf encode of a pod / orjson.dumps", lambda: protobuf.encode(obj), write)
    yield row("strategic merge patch of a pod / orjson.loads", lambda: strategicpatch.apply(obj, patch, pod), read)
    yield row("managed fields of a new pod / orjson.loads", lambda: _tracked(obj, context), read)
    again = {"context": context, "now": "2026-01-01T00:00:01Z"}
    yield row("apply of a pod, unchanged / orjson.loads", lambda: apply.apply(live, config, "m", **again), read)
    yield row(
        "custom resource read and judged with CEL / orjson both ways",
        lambda: schema.validate(schema.decode(_WIDGET, _WIDGET)[0]),
        small,
    )
