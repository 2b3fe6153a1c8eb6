"""`bowsprit up` and its relatives as a user calls them: real processes, the real kubectl."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from eventually import eventually

EXAMPLES = Path(__file__).parents[2] / "examples"
STATEFUL_SET = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: c, image: pg, volumeMounts: [{name: data, mountPath: /data}]}]}
  volumeClaimTemplates:
  - {metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}
"""


class Home:
    """A user's home folder with nothing in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kubeconfig = folder / ".kube" / "config"
        ours = {"HOME": str(folder), "KUBECACHEDIR": str(folder / "cache")}
        hidden = ("KUBECONFIG", "BOWSPRIT_HOME", "BOWSPRIT_CLUSTER", "XDG_STATE_HOME")
        self.environment = {key: value for key, value in os.environ.items() if key not in hidden} | ours

    def bowsprit(self, *arguments: str, code: int = 0, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        done = self._run([sys.executable, "-m", "bowsprit", *arguments], stdin)
        assert done.returncode == code, done.stderr + done.stdout
        return done

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        done = self._run(["kubectl", *arguments], stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _run(self, command: list[str], stdin: str | None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, check=False, timeout=90, env=self.environment
        )

    def components(self, name: str = "dev") -> dict[str, Any]:
        (state,) = json.loads(self.bowsprit("status", "--name", name, "-o", "json").stdout)
        return {component["name"]: component for component in state["components"]} | {"phase": state["phase"]}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Deletes every cluster at the end."""
    own = Home(tmp_path)
    yield own
    for line in own.bowsprit("get", "clusters", "-o", "name").stdout.split():
        own.bowsprit("delete", "--yes", "--name", line.removeprefix("cluster/"))


def test_what_was_stored_survives_down_and_kill(home: Home) -> None:
    said = home.bowsprit("up")
    assert "cluster/dev started: https://127.0.0.1:" in said.stdout
    assert "3 simulated nodes Ready" in said.stderr
    home.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=20s")
    home.kubectl("apply", "-f", "-", stdin=STATEFUL_SET)
    home.kubectl("rollout", "status", "statefulset/db", "--timeout=30s")
    assert home.kubectl("get", "pvc", "-o", "jsonpath={.items[*].status.phase}") == "Bound Bound"
    uid = home.kubectl("get", "statefulset", "db", "-o", "jsonpath={.metadata.uid}")

    assert "already running" in home.bowsprit("up").stdout
    before = home.components()["apiserver"]
    os.kill(before["pid"], signal.SIGKILL)
    eventually(lambda: home.components()["apiserver"]["pid"] not in (0, before["pid"]))
    eventually(lambda: home.components()["phase"] == "Running")
    assert home.components()["apiserver"]["lastExit"] == "killed by SIGKILL"
    assert home.kubectl("get", "statefulset", "db", "-o", "jsonpath={.metadata.uid}") == uid

    assert home.bowsprit("down").stdout == "cluster/dev stopped; state kept\n"
    assert home.components() == {"phase": "Stopped"}
    assert home.bowsprit("down").stdout == "cluster/dev was not running; state kept\n"
    home.bowsprit("up")
    assert home.kubectl("get", "statefulset", "db", "-o", "jsonpath={.metadata.uid}") == uid


def test_components_end_when_their_supervisor_is_killed(home: Home) -> None:
    home.bowsprit("up", "--nodes", "1", "--store", "memory")
    running = home.components()
    pids = [component["pid"] for name, component in running.items() if name != "phase"]
    (state,) = json.loads(home.bowsprit("status", "--name", "dev", "-o", "json").stdout)
    os.kill(state["supervisorPID"], signal.SIGKILL)
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    assert home.components()["phase"] == "Stopped"
    home.bowsprit("up")
    assert home.components()["phase"] == "Running"


def test_kubeconfig_is_merged_by_kubectls_rules_and_left_as_it_was(home: Home) -> None:
    other = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "other", "cluster": {"server": "https://192.0.2.1"}}],
        "users": [{"name": "other", "user": {"token": "x"}}],
        "contexts": [{"name": "other", "context": {"cluster": "other", "user": "other"}}],
        "current-context": "other",
    }
    home.kubeconfig.parent.mkdir()
    home.kubeconfig.write_text(yaml.safe_dump(other))

    home.bowsprit("up", "--name", "a", "--nodes", "0", "--no-switch")
    assert home.kubectl("config", "current-context") == "other\n"
    assert home.kubectl("--context", "bowsprit-a", "get", "ns", "default", "-o", "name") == "namespace/default\n"
    home.bowsprit("up", "--name", "b", "--nodes", "0")
    assert home.kubectl("config", "current-context") == "bowsprit-b\n"
    assert oct(home.kubeconfig.stat().st_mode & 0o777) == "0o600"

    home.bowsprit("delete", "--yes", "--name", "b")
    home.bowsprit("delete", "--yes", "--name", "a")
    left = yaml.safe_load(home.kubeconfig.read_text())
    assert {key: left.get(key) for key in ("clusters", "users", "contexts")} == {
        key: other[key] for key in ("clusters", "users", "contexts")
    }
    assert "bowsprit" not in home.kubeconfig.read_text()
    assert not list((home.folder / ".local/state/bowsprit/clusters").iterdir())


def test_cluster_file(home: Home, tmp_path: Path) -> None:
    text = """
apiVersion: bowsprit.dev/v1alpha1
kind: Cluster
name: lab
store: memory
nodes:
- {count: 1, prefix: small, cpu: "2", memory: 4Gi, labels: {size: small}}
- {count: 1, prefix: big, cpu: "64", taints: [{key: big, effect: NoSchedule}]}
components:
  apiserver: {flags: {disable-admission-plugins: ServiceAccount}}
  controllerManager: {flags: {controllers: "*,-job-controller"}}
  scheduler:
    config:
      apiVersion: kubescheduler.config.k8s.io/v1
      kind: KubeSchedulerConfiguration
      profiles: [{schedulerName: default-scheduler}, {schedulerName: second}]
"""
    own = tmp_path / "lab.conf"
    said = home.bowsprit("up", "-f", "-", "--kubeconfig", str(own), "-o", "json", stdin=text)
    steps = [json.loads(line) for line in said.stdout.splitlines()]
    assert next(step["step"] for step in steps if step["ok"]) == "apiserver"
    assert not home.kubeconfig.exists()
    home.environment["KUBECONFIG"] = str(own)
    cpu = home.kubectl("get", "nodes", "-o", "jsonpath={range .items[*]}{.metadata.name}={.status.capacity.cpu} {end}")
    assert cpu == "big-1=64 small-1=2 "
    home.kubectl("run", "web", "--image=x", "--overrides", '{"spec":{"schedulerName":"second"}}')
    home.kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=20s")
    assert home.kubectl("get", "pod", "web", "-o", "jsonpath={.spec.nodeName}{.spec.volumes}") == "small-1"
    home.kubectl("create", "job", "idle", "--image=x")
    assert "job-controller" not in home.bowsprit("logs", "controller-manager", "--name", "lab").stdout
    assert home.kubectl("get", "pods", "-l", "job-name=idle", "-o", "name") == ""


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["up", "--name", "Bad Name"], 1, "reason: InvalidName"),
        (["up", "--port", "99999"], 2, "99999 is not in the range"),
        (["up", "--store", "etcd"], 2, "is not memory, sqlite or sqlite:PATH"),
        (["up", "--wait", "soon"], 2, "is not a duration"),
        (["up", "-f", "/nonexistent.yaml"], 1, "reason: ConfigUnreadable"),
        (["down", "--name", "ghost"], 1, "reason: ClusterNotFound"),
        (["delete", "--yes", "--name", "ghost"], 1, "hint: start it with: bowsprit up --name ghost"),
        (["logs", "apiserver", "--name", "ghost"], 1, "reason: ClusterNotFound"),
        (["get", "kubeconfig", "--name", "ghost"], 1, "reason: ClusterNotFound"),
        (["get", "planets"], 2, "No such command"),
        (["upp"], 2, "No such command"),
    ],
)
def test_wrong_input_is_told_and_changes_nothing(home: Home, arguments: list[str], code: int, words: str) -> None:
    said = home.bowsprit(*arguments, code=code)
    assert words in said.stderr
    assert said.stdout == ""
    assert not home.kubeconfig.exists()
    assert home.bowsprit("get", "clusters").stdout == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: Cluster\nnodez: 3\n", "nodez: unknown field"),
        ("kind: Pod\n", "kind"),
        ("kind: Cluster\nnodes: [{count: -1}]\n", "nodes[0].count: Input should be"),
        ("kind: Cluster\ncomponents: {controllerManager: {flags: {nope: 1}}}\n", "unknown flag: nope"),
        ("kind: Cluster\ncomponents: {apiserver: {flags: {nope: 1}}}\n", "unknown flag: --nope"),
        ("{", "is not YAML"),
    ],
)
def test_a_bad_cluster_file_is_told(home: Home, text: str, words: str) -> None:
    said = home.bowsprit("up", "-f", "-", stdin=f"apiVersion: bowsprit.dev/v1alpha1\n{text}", code=1)
    assert words in said.stderr
    states = json.loads(home.bowsprit("status", "-o", "json").stdout)
    assert all(state["phase"] == "Stopped" for state in states)  # nothing goes on failing in the background


def test_a_taken_port_is_told(home: Home) -> None:
    home.bowsprit("up", "--name", "a", "--nodes", "0", "--store", "memory")
    (state,) = json.loads(home.bowsprit("status", "-o", "json").stdout)
    port = state["server"].rpartition(":")[2]
    assert "reason: PortInUse" in home.bowsprit("up", "--name", "b", "--port", port, code=1).stderr


def test_a_damaged_database_is_told_and_kept(home: Home) -> None:
    home.bowsprit("up", "--nodes", "0")
    home.bowsprit("down")
    database = home.folder / ".local/state/bowsprit/clusters/dev/state.db"
    damaged = b"not a database" * 1000
    database.write_bytes(damaged)
    said = home.bowsprit("up", code=1)
    assert "error: apiserver keeps failing" in said.stderr
    assert "hint: bowsprit logs apiserver --name dev" in said.stderr
    assert "damaged" in home.bowsprit("logs", "apiserver").stdout
    assert database.read_bytes() == damaged


def test_the_example_application(home: Home) -> None:
    home.bowsprit("up")
    home.kubectl("apply", "-f", str(EXAMPLES / "bookshop"))
    home.kubectl("wait", "--for=condition=Established", "crd/books.shop.example.com", "--timeout=20s")
    home.kubectl("apply", "-f", str(EXAMPLES / "bookshop" / "books"))
    home.kubectl("-n", "bookshop", "rollout", "status", "deployment/web", "--timeout=30s")
    home.kubectl("-n", "bookshop", "wait", "--for=condition=complete", "job/import-catalogue", "--timeout=30s")
    assert "Dune" in home.kubectl("-n", "bookshop", "get", "books")
    reader = ["--as", "system:serviceaccount:bookshop:web", "-n", "bookshop"]
    assert "yes" in home.kubectl("auth", "can-i", "list", "books.shop.example.com", *reader)
    home.kubectl("delete", "namespace", "bookshop", "--timeout=30s")
