"""The real kubectl against kinds of an app behind an embedded core."""

from __future__ import annotations

import json
import os
import re
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from bowsprit.extension import App, Forbidden, Kind, RequestContext
from bowsprit.machinery.objects import Obj
from bowsprit.testing.extension import ServedApps
from bowsprit.testing.plugin import RunningCluster

Run = Callable[..., Any]


class FlunderSpec(BaseModel):
    reference: str = Field("", max_length=20, description="What it refers to.")
    replicas: int = 1


class Condition(BaseModel):
    type: str
    status: str


class FlunderStatus(BaseModel):
    conditions: list[Condition] = []
    replicas: int = 0


def flunders() -> App:
    app = App("wardle.kubectl.example.com", name="wardle")

    @app.kind(short_names=["fl"], categories=["all"], columns={"Reference": ".spec.reference"}, scale=True)
    class Flunder(Kind):
        """A flunder refers to another flunder."""

        spec: FlunderSpec = FlunderSpec()
        status: FlunderStatus | None = None

    @app.admit(Flunder)
    def no_ban(obj: Flunder | None, old: Flunder | None, ctx: RequestContext) -> None:
        if obj is not None and obj.metadata.name == "banned":
            raise Forbidden("this name may not be used, please change the resource name")

    @app.connect(Flunder, "log")
    def log(obj: Flunder, ctx: RequestContext, stream: Any) -> str:
        return f"{obj.metadata.name} asked by {ctx.user.name}\n"

    return app


@pytest.fixture(scope="module")
def wardle(core: RunningCluster) -> Iterator[RunningCluster]:
    """The core, with the app served in it."""
    apps = ServedApps()
    apps.serve(flunders(), core.kubeconfig)
    yield core
    apps.close()


@pytest.fixture
def ns(wardle: RunningCluster) -> str:
    """A new namespace."""
    name = f"k-{uuid.uuid4().hex[:8]}"
    wardle.kubectl("create", "namespace", name)
    return name


@pytest.fixture
def kubectl(wardle: RunningCluster, ns: str) -> Run:
    """kubectl in the namespace."""

    def run(*arguments: str, stdin: str | None = None) -> Any:
        return wardle.kubectl("-n", ns, *arguments, stdin=stdin)

    return run


def manifest(name: str, **spec: Any) -> str:
    return json.dumps(
        {
            "apiVersion": "wardle.kubectl.example.com/v1",
            "kind": "Flunder",
            "metadata": {"name": name, "labels": {"sort": "test"}},
            "spec": spec,
        }
    )


def path(ns: str, name: str) -> str:
    return f"/apis/wardle.kubectl.example.com/v1/namespaces/{ns}/flunders/{name}"


def failing(kubectl: Run, *arguments: str, stdin: str | None = None) -> str:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        kubectl(*arguments, stdin=stdin)
    return str(caught.value.stderr)


def test_get_says_that_there_is_nothing(wardle: RunningCluster, ns: str) -> None:
    told = subprocess.run(
        ["kubectl", "--kubeconfig", str(wardle.kubeconfig), "-n", ns, "get", "flunders"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (told.stdout, told.stderr) == ("", f"No resources found in {ns} namespace.\n")


def test_create_get_label_and_delete(kubectl: Run) -> None:
    assert (
        kubectl("create", "-f", "-", stdin=manifest("a", reference="b"))
        == "flunder.wardle.kubectl.example.com/a created\n"
    )
    lines = kubectl("get", "fl").splitlines()
    assert [line.split()[:2] for line in lines] == [["NAME", "REFERENCE"], ["a", "b"]]
    assert "already exists" in failing(kubectl, "create", "-f", "-", stdin=manifest("a"))
    kubectl("label", "flunder", "a", "colour=red")
    assert kubectl("get", "fl", "-l", "colour=red", "-o", "name") == "flunder.wardle.kubectl.example.com/a\n"
    assert kubectl("get", "all", "-o", "name") == "flunder.wardle.kubectl.example.com/a\n"
    kubectl("annotate", "fl", "a", "note=x")
    kubectl("delete", "fl", "a")
    assert "not found" in failing(kubectl, "get", "fl", "a")


def test_apply_client_side_three_ways(kubectl: Run) -> None:
    assert "created" in kubectl("apply", "-f", "-", stdin=manifest("a", reference="b"))
    assert "unchanged" in kubectl("apply", "-f", "-", stdin=manifest("a", reference="b"))
    assert "configured" in kubectl("apply", "-f", "-", stdin=manifest("a", reference="c"))
    assert "configured" in kubectl("apply", "-f", "-", stdin=manifest("a"))
    assert kubectl("get", "fl", "a", "-o", "json")["spec"] == {"reference": "", "replicas": 1}


def test_apply_server_side_with_owners(kubectl: Run, ns: str) -> None:
    assert "serverside-applied" in kubectl("apply", "--server-side", "-f", "-", stdin=manifest("a", reference="b"))
    told = failing(
        kubectl, "apply", "--server-side", "--field-manager=other", "-f", "-", stdin=manifest("a", reference="c")
    )
    assert 'conflict with "kubectl": .spec.reference' in told
    kubectl(
        "apply",
        "--server-side",
        "--field-manager=other",
        "--force-conflicts",
        "-f",
        "-",
        stdin=manifest("a", reference="c"),
    )
    fields = json.loads(kubectl("get", "--raw", path(ns, "a")))["metadata"]["managedFields"]
    assert {entry["manager"] for entry in fields} == {"kubectl", "other"}


def test_diff_shows_what_would_change(wardle: RunningCluster, kubectl: Run, ns: str) -> None:
    kubectl("apply", "-f", "-", stdin=manifest("a", reference="b"))
    for flags in ([], ["--server-side", "--force-conflicts"]):
        told = subprocess.run(
            ["kubectl", "--kubeconfig", str(wardle.kubeconfig), "-n", ns, "diff", *flags, "-f", "-"],
            input=manifest("a", reference="c"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert told.returncode == 1, told.stderr
        assert "-  reference: b" in told.stdout
        assert "+  reference: c" in told.stdout


def test_explain_reads_the_docstrings(kubectl: Run) -> None:
    told = kubectl("explain", "flunder")
    assert "A flunder refers to another flunder." in told
    assert re.search(r"VERSION: +(wardle\.kubectl\.example\.com/)?v1\n", told)  # before v1.27 with the group
    told = kubectl("explain", "flunder.spec.reference")
    assert "What it refers to." in told
    assert "<string>" in told


def test_edit_saves_what_the_editor_made(wardle: RunningCluster, kubectl: Run, ns: str, tmp_path: Path) -> None:
    kubectl("create", "-f", "-", stdin=manifest("a", reference="b"))
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/reference: b/reference: edited/" "$1"\n')
    editor.chmod(0o755)
    subprocess.run(
        ["kubectl", "--kubeconfig", str(wardle.kubeconfig), "-n", ns, "edit", "fl", "a"],
        env={**os.environ, "KUBE_EDITOR": str(editor)},
        check=True,
        capture_output=True,
    )
    assert kubectl("get", "fl", "a", "-o", "jsonpath={.spec.reference}") == "edited"


def test_wait_and_watch_see_changes(wardle: RunningCluster, kubectl: Run, ns: str) -> None:
    kubectl("create", "-f", "-", stdin=manifest("a", reference="b"))
    command = ["kubectl", "--kubeconfig", str(wardle.kubeconfig), "-n", ns]
    watching = subprocess.Popen([*command, "get", "fl", "-w", "-o", "name"], stdout=subprocess.PIPE, text=True)
    waiting = subprocess.Popen(
        [*command, "wait", "fl/a", "--for=condition=Ready", "--timeout=30s"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert watching.stdout is not None
        assert watching.stdout.readline() == "flunder.wardle.kubectl.example.com/a\n"
        ready = json.loads(kubectl("get", "--raw", path(ns, "a")))
        ready["status"] = {"conditions": [{"type": "Ready", "status": "True"}]}
        kubectl("replace", "--raw", path(ns, "a") + "/status", "-f", "-", stdin=json.dumps(ready))
        assert watching.stdout.readline() == "flunder.wardle.kubectl.example.com/a\n"
        told, _ = waiting.communicate(timeout=30)
        assert told == "flunder.wardle.kubectl.example.com/a condition met\n"
    finally:
        for process in (watching, waiting):
            process.kill()
            process.communicate()


def test_scale_patch_and_replace(kubectl: Run) -> None:
    kubectl("create", "-f", "-", stdin=manifest("a"))
    kubectl("scale", "flunder/a", "--replicas=4")
    kubectl("patch", "fl", "a", "--type=json", "-p", '[{"op":"replace","path":"/spec/reference","value":"p"}]')
    assert kubectl("get", "fl", "a", "-o", "json")["spec"] == {"reference": "p", "replicas": 4}
    kubectl("replace", "-f", "-", stdin=manifest("a", reference="r"))
    assert kubectl("get", "fl", "a", "-o", "json")["spec"] == {"reference": "r", "replicas": 1}


def test_validation_before_and_at_the_server(kubectl: Run) -> None:
    told = failing(kubectl, "create", "-f", "-", stdin=manifest("a", colour="red"))
    assert re.search(r'unknown field "(spec\.)?colour"', told)  # kubectl itself says it before v1.27
    told = failing(kubectl, "create", "-f", "-", stdin=manifest("a", reference="x" * 21))
    assert "spec.reference: Too long: may not be more than 20 bytes" in told
    told = failing(kubectl, "create", "-f", "-", stdin=manifest("banned"))
    assert (
        'flunders.wardle.kubectl.example.com "banned" is forbidden: '
        "this name may not be used, please change the resource name" in told
    )
    assert "No resources found" not in kubectl("create", "--dry-run=server", "-f", "-", stdin=manifest("a"))
    assert kubectl("get", "fl", "-o", "name") == ""


def test_raw_streams_pass_the_aggregator_with_the_identity_of_the_user(kubectl: Run, ns: str) -> None:
    kubectl("create", "-f", "-", stdin=manifest("a"))
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    told = kubectl(
        "create", "--raw", "/apis/authentication.k8s.io/v1/selfsubjectreviews", "-f", "-", stdin=json.dumps(review)
    )
    user = json.loads(told)["status"]["userInfo"]["username"]
    assert kubectl("get", "--raw", path(ns, "a") + "/log") == f"a asked by {user}\n"


def test_rbac_of_the_core_counts_here(kubectl: Run, ns: str) -> None:
    kubectl("create", "-f", "-", stdin=manifest("a"))
    as_ann = ("--as", f"ann-{ns}")
    told = failing(kubectl, "get", "fl", *as_ann)
    assert f'User "ann-{ns}" cannot list resource "flunders" in API group "wardle.kubectl.example.com"' in told
    role: Obj = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "reader"},
        "rules": [{"apiGroups": ["wardle.kubectl.example.com"], "resources": ["flunders"], "verbs": ["get", "list"]}],
    }
    kubectl("apply", "-f", "-", stdin=json.dumps(role))
    kubectl("create", "rolebinding", "reader", "--role=reader", f"--user=bob-{ns}")
    as_bob = ("--as", f"bob-{ns}")
    assert kubectl("get", "fl", "-o", "name", *as_bob) == "flunder.wardle.kubectl.example.com/a\n"
    assert kubectl("auth", "can-i", "list", "flunders", *as_bob) == "yes\n"
    assert failing(kubectl, "auth", "can-i", "delete", "flunders", *as_bob) == ""
    assert "cannot delete resource" in failing(kubectl, "delete", "fl", "a", *as_bob)


def test_namespaces_that_are_absent_or_end_take_no_objects(wardle: RunningCluster, kubectl: Run, ns: str) -> None:
    told = failing(wardle.kubectl, "-n", "absent", "create", "-f", "-", stdin=manifest("a"))
    assert 'namespaces "absent" not found' in told
    kubectl("create", "-f", "-", stdin=manifest("a"))
    wardle.kubectl("delete", "namespace", ns, "--timeout=30s")
    assert "not found" in failing(kubectl, "get", "namespace", ns)


def test_policies_of_the_core_are_honoured(wardle: RunningCluster, kubectl: Run, ns: str) -> None:
    policy = f"no-red-{ns}"
    documents = [
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": policy},
            "spec": {
                "matchConstraints": {
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ns}},
                    "resourceRules": [
                        {
                            "apiGroups": ["wardle.kubectl.example.com"],
                            "apiVersions": ["*"],
                            "resources": ["flunders"],
                            "operations": ["CREATE"],
                        }
                    ],
                },
                "validations": [{"expression": "object.spec.reference != 'red'", "message": "red is taken"}],
            },
        },
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": policy},
            "spec": {"policyName": policy, "validationActions": ["Deny"]},
        },
    ]
    for document in documents:
        wardle.kubectl("apply", "-f", "-", stdin=json.dumps(document))
    try:
        told = ""
        for attempt in range(200):  # until the policy has reached the server
            try:
                kubectl("create", "-f", "-", stdin=manifest(f"a{attempt}", reference="red"))
            except subprocess.CalledProcessError as failure:
                told = failure.stderr
                break
        assert f"ValidatingAdmissionPolicy '{policy}' with binding '{policy}' denied request: red is taken" in told
        kubectl("create", "-f", "-", stdin=manifest("blue", reference="blue"))
    finally:
        wardle.kubectl("delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", policy)
