"""Pods for the tests of the kubelet's endpoint."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

Obj = dict[str, Any]
NOW = datetime(2026, 1, 1, 12, 1, 0, tzinfo=UTC)


def pod(state: Obj | None = None, last: Obj | None = None, **annotations: str) -> Obj:
    status = {
        "name": "web",
        "image": "nginx",
        "state": state or {"running": {"startedAt": "2026-01-01T12:00:00Z"}},
        "lastState": last or {},
    }
    spec = {
        "containers": [{"name": "web", "env": [{"name": "COLOUR", "value": "red"}], "ports": [{"containerPort": 8080}]}]
    }
    meta = {
        "name": "p",
        "namespace": "default",
        "annotations": {f"bowsprit.dev/{k}": v for k, v in annotations.items()},
    }
    return {"metadata": meta, "spec": spec, "status": {"phase": "Running", "containerStatuses": [status]}}
