"""AppArmor annotations of new pods become fields."""

from datetime import UTC, datetime
from typing import Any

import pytest

from bowsprit.apiserver.request import RequestContext, RequestInfo, UserInfo
from bowsprit.controlplane.core.apparmor import PREFIX, sync_profiles


@pytest.fixture
def ctx() -> RequestContext:
    return RequestContext(
        RequestInfo(path="/api/v1/namespaces/a/pods", verb="create"),
        UserInfo("somebody"),
        datetime(2030, 1, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("annotation", "pod_profile", "profile", "warned"),
    [
        ("unconfined", None, {"type": "Unconfined"}, True),
        ("runtime/default", None, {"type": "RuntimeDefault"}, True),
        ("localhost/mine", None, {"type": "Localhost", "localhostProfile": "mine"}, True),
        ("localhost/", None, None, True),
        ("localhost/ mine", None, None, True),
        ("nonsense", None, None, True),
        ("unconfined", {"type": "Unconfined"}, None, False),
        ("unconfined", {"type": "RuntimeDefault"}, {"type": "Unconfined"}, True),
    ],
)
def test_annotations_become_fields(
    annotation: str,
    pod_profile: dict[str, str] | None,
    profile: dict[str, str] | None,
    warned: bool,
    ctx: RequestContext,
) -> None:
    spec: dict[str, Any] = {"containers": [{"name": "c", "securityContext": {"privileged": False}}, {"name": "d"}]}
    if pod_profile:
        spec["securityContext"] = {"appArmorProfile": pod_profile}
    sync_profiles({"metadata": {"annotations": {PREFIX + "c": annotation}}, "spec": spec}, ctx)
    expected = {"privileged": False, **({"appArmorProfile": profile} if profile else {})}
    assert spec["containers"] == [{"name": "c", "securityContext": expected}, {"name": "d"}]
    assert bool(ctx.warnings) is warned


def test_fields_win_and_windows_has_no_profiles(ctx: RequestContext) -> None:
    context = {"appArmorProfile": {"type": "RuntimeDefault"}}
    pod: dict[str, Any] = {
        "metadata": {"annotations": {PREFIX + "c": "unconfined"}},
        "spec": {"containers": [{"name": "c", "securityContext": context}]},
    }
    sync_profiles(pod, ctx)
    assert pod["spec"]["containers"][0]["securityContext"] == context
    del pod["spec"]["containers"][0]["securityContext"]
    pod["spec"]["os"] = {"name": "windows"}
    sync_profiles(pod, ctx)
    assert "securityContext" not in pod["spec"]["containers"][0]
    assert ctx.warnings == []
