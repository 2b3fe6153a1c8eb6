"""Everyday commands with the kubectl at hand and with Debian's old one (1.20)."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

OLD = Path(__file__).parents[2] / "build" / "kubectl-1.20" / "usr" / "bin" / "kubectl"
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "nginx:1", ports: [{containerPort: 80}]}]}
"""
MISSPELT = DEPLOYMENT.replace("replicas: 2", "replicaz: 2")
DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boats.sea.example.com}
spec:
  group: sea.example.com
  scope: Namespaced
  names: {plural: boats, kind: Boat, shortNames: [bt]}
  versions:
  - name: v1
    served: true
    storage: true
    additionalPrinterColumns: [{name: Masts, type: integer, jsonPath: .spec.masts}]
    schema:
      openAPIV3Schema:
        type: object
        description: Something that floats.
        properties:
          spec: {type: object, properties: {masts: {type: integer, minimum: 0, description: How many masts.}}}
"""
BOAT = "apiVersion: sea.example.com/v1\nkind: Boat\nmetadata: {name: gorch}\nspec: {masts: 3}\n"
CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap"


class Kubectl(Protocol):
    """Runs kubectl in the test's namespace and returns stdout."""

    def __call__(self, *arguments: str, stdin: str | None = None, code: int = 0) -> str: ...


@pytest.fixture(params=["kubectl", str(OLD)], ids=["current", "1.20"])
def run(request: pytest.FixtureRequest, kubeconfig: Path, ns: str, tmp_path: Path) -> Kubectl:
    """One of the two; stdout, with stderr after it where the command is expected to fail."""
    environment = os.environ | {"KUBECONFIG": str(kubeconfig), "KUBECACHEDIR": str(tmp_path), "HOME": str(tmp_path)}
    environment |= {"EDITOR": "sed -i s/replicas:.1/replicas:\\ 3/", "KUBE_EDITOR": ""}

    def kubectl(*arguments: str, stdin: str | None = None, code: int = 0) -> str:
        done = subprocess.run(
            [request.param, "-n", ns, *arguments],
            input=stdin, env=environment, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == code, done.stderr + done.stdout
        return done.stdout + (done.stderr if code else "")

    return kubectl


def test_a_deployments_life(run: Kubectl) -> None:
    assert "created" in run("apply", "-f", "-", stdin=DEPLOYMENT)
    run("rollout", "status", "deployment/web", "--timeout=30s")
    assert "unchanged" in run("apply", "-f", "-", stdin=DEPLOYMENT)
    assert "nginx:2" in run("diff", "-f", "-", stdin=DEPLOYMENT.replace("nginx:1", "nginx:2"), code=1)
    assert "configured" in run("apply", "-f", "-", stdin=DEPLOYMENT.replace("nginx:1", "nginx:2"))
    run("rollout", "status", "deployment/web", "--timeout=30s")
    assert run("get", "deploy", "-o", "wide").split("\n")[1].split()[:2] == ["web", "2/2"]
    run("rollout", "undo", "deployment/web")
    run("rollout", "status", "deployment/web", "--timeout=30s")
    assert run("get", "deploy", "web", "-o", "jsonpath={..image}") == "nginx:1"
    assert "3" in run("rollout", "history", "deployment/web")
    run("scale", "deployment/web", "--replicas=1")
    run("wait", "--for=condition=Available", "deployment/web", "--timeout=30s")
    run("edit", "deployment/web")
    assert run("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "3"
    described = run("describe", "deployment", "web")
    assert "ScalingReplicaSet" in described
    run("set", "image", "deployment/web", "web=nginx:3")
    run("expose", "deployment", "web", "--port=80")
    run("autoscale", "deployment", "web", "--max=5")
    run("delete", "deployment,service,hpa", "web")
    assert run("get", "deploy", "-o", "name") == ""


def test_mistakes_are_told(run: Kubectl) -> None:
    assert "replicaz" in run("apply", "-f", "-", stdin=MISSPELT, code=1)
    assert "spec.replicas" in run("apply", "-f", "-", stdin=DEPLOYMENT.replace("replicas: 2", "replicas: -1"), code=1)
    assert "(NotFound)" in run("get", "pod", "ghost", code=1)
    assert "already exists" in run("create", "serviceaccount", "default", code=1)
    assert "the server doesn't have a resource type" in run("get", "ships", code=1)


def test_labels_annotations_and_patches(run: Kubectl) -> None:
    run("create", "configmap", "cfg", "--from-literal=a=1", "--from-literal=b=2")
    run("label", "configmap", "cfg", "tier=front")
    run("annotate", "configmap", "cfg", "note=hello")
    assert "--overwrite" in run("label", "configmap", "cfg", "tier=back", code=1)
    run("patch", "configmap", "cfg", "-p", '{"data":{"a":"3"}}')
    run("patch", "configmap", "cfg", "--type=merge", "-p", '{"data":{"b":null}}')
    run("patch", "configmap", "cfg", "--type=json", "-p", '[{"op":"add","path":"/data/c","value":"4"}]')
    assert json.loads(run("get", "cm", "cfg", "-o", "json"))["data"] == {"a": "3", "c": "4"}
    assert run("get", "cm", "-l", "tier in (front)", "-o", "name") == "configmap/cfg\n"
    run("replace", "-f", "-", stdin=f"{CONFIG_MAP}\nmetadata: {{name: cfg}}\ndata: {{z: z}}")
    assert run("get", "cm", "cfg", "-o", "jsonpath={.data}") == '{"z":"z"}'


def test_server_side_apply(run: Kubectl) -> None:
    mine = f"{CONFIG_MAP}\nmetadata: {{name: s}}\ndata: {{a: mine}}"
    run("apply", "--server-side", "--field-manager=one", "-f", "-", stdin=mine)
    theirs = mine.replace("mine", "theirs")
    assert "conflict" in run("apply", "--server-side", "--field-manager=two", "-f", "-", stdin=theirs, code=1)
    run("apply", "--server-side", "--field-manager=two", "--force-conflicts", "-f", "-", stdin=theirs)
    assert run("get", "cm", "s", "-o", "jsonpath={.data.a}") == "theirs"


def test_explain_and_a_kind_of_ones_own(run: Kubectl) -> None:
    assert "selector" in run("explain", "deployment.spec")
    run("apply", "-f", "-", stdin=DEFINITION)
    run("wait", "--for=condition=Established", "crd/boats.sea.example.com", "--timeout=20s")
    run("apply", "-f", "-", stdin=BOAT)
    assert run("get", "bt").split("\n")[1].split()[:2] == ["gorch", "3"]
    assert "How many masts." in run("explain", "boat.spec")
    assert "spec.masts" in run("apply", "-f", "-", stdin=BOAT.replace("masts: 3", "masts: -3"), code=1)
    run("delete", "boat", "gorch")
    run("delete", "crd", "boats.sea.example.com")


def test_who_may_do_what(run: Kubectl, ns: str) -> None:
    run("create", "serviceaccount", "robot")
    run("create", "role", "reader", "--verb=get,list", "--resource=pods")
    run("create", "rolebinding", "robot-reads", "--role=reader", f"--serviceaccount={ns}:robot")
    robot = f"--as=system:serviceaccount:{ns}:robot"
    assert run("auth", "can-i", "list", "pods", robot) == "yes\n"
    assert "no" in run("auth", "can-i", "delete", "pods", robot, code=1)
    assert "forbidden" in run("get", "secrets", robot, code=1)
    assert run("get", "pods", robot) == ""


def test_a_watch_tells_what_happens(run: Kubectl, kubectl: Callable[..., Any], ns: str) -> None:
    run("run", "one", "--image=nginx", "--restart=Never")
    run("wait", "--for=condition=Ready", "pod/one", "--timeout=30s")
    seen = run("get", "pods", "-w", "--request-timeout=1s", "-o", "name")
    assert seen.splitlines()[0] == "pod/one"
    assert "simulated" in run("logs", "one")
    run("delete", "pod", "one", "--timeout=30s")


def test_a_token_opens_the_api(kubectl: Callable[..., Any], ns: str) -> None:
    """Only newer ones have `create token`."""
    if "create token" not in kubectl("create", "--help") and "token " not in kubectl("create", "--help"):
        document = '{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{}}'
        path = f"/api/v1/namespaces/{ns}/serviceaccounts/default/token"
        token = json.loads(kubectl("create", "--raw", path, "-f", "-", stdin=document))["status"]["token"]
    else:
        token = kubectl("create", "token", "default", "-n", ns).strip()
    said = kubectl("--token", token, "get", "--raw", "/version")
    assert json.loads(said)["major"] == "1"
