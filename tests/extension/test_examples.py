"""The examples, served to a cluster with nodes and used with kubectl."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bowsprit.extension.loading import load_app
from bowsprit.testing.plugin import RunningCluster

EXAMPLES = Path(__file__).parents[2] / "examples"
Run = Callable[..., Any]


def example(name: str) -> Any:
    return load_app(f"{EXAMPLES / name / name}.py:app")


def refused(kubectl: Run, *arguments: str, stdin: str | None = None) -> str:
    with pytest.raises(subprocess.CalledProcessError) as failure:
        kubectl(*arguments, stdin=stdin)
    return str(failure.value.stderr)


@pytest.mark.parametrize("name", ["wardle", "metrics", "library"])
def test_an_example_is_short(name: str) -> None:
    assert len((EXAMPLES / name / f"{name}.py").read_text().splitlines()) <= 150


# -- wardle --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def wardle(extension: Callable[[Any], Any]) -> None:
    extension(example("wardle"))


def flunder(name: str, version: str = "v1alpha1", **spec: str) -> str:
    meta = {"name": name}
    return json.dumps(
        {"apiVersion": f"wardle.example.com/{version}", "kind": "Flunder", "metadata": meta, "spec": spec}
    )


def spec_of(kubectl: Run, ns: str, name: str, version: str) -> dict[str, str]:
    found = kubectl("get", f"flunders.{version}.wardle.example.com", name, "-n", ns, "-o", "json")
    spec: dict[str, str] = found["spec"]
    return spec


@pytest.mark.usefixtures("wardle")
def test_flunders_have_two_versions_of_the_same_reference(kubectl: Run, ns: str) -> None:
    kubectl("create", "-n", ns, "-f", "-", stdin=flunder("a", reference="other"))
    assert spec_of(kubectl, ns, "a", "v1alpha1") == {"reference": "other", "referenceType": "Flunder"}
    assert spec_of(kubectl, ns, "a", "v1beta1") == {"flunderReference": "other", "referenceType": "Flunder"}
    beta = flunder("b", "v1beta1", fischerReference="fritz", referenceType="Fischer")
    kubectl("create", "-n", ns, "-f", "-", stdin=beta)
    assert spec_of(kubectl, ns, "b", "v1alpha1") == {"reference": "fritz", "referenceType": "Fischer"}
    assert kubectl("get", "flunders", "-n", ns, "-o", "name").split() == [
        "flunder.wardle.example.com/a", "flunder.wardle.example.com/b",
    ]  # fmt: skip


@pytest.mark.usefixtures("wardle")
@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ({"flunderReference": "a", "fischerReference": "b", "referenceType": "Flunder"}, "at the same time"),
        ({"flunderReference": "a", "referenceType": "Fischer"}, "cannot be set if referenceType is not Flunder"),
        ({"fischerReference": "a"}, "cannot be set if referenceType is not Fischer"),
        ({"referenceType": "Fischer"}, "cannot be empty if referenceType is Fischer"),
        ({"referenceType": "Flunder"}, "cannot be empty if referenceType is Flunder"),
        ({"referenceType": "Plaice"}, 'supported values: "Flunder", "Fischer"'),
    ],
)
def test_a_reference_fits_its_type(kubectl: Run, ns: str, spec: dict[str, str], complaint: str) -> None:
    told = refused(kubectl, "create", "-n", ns, "-f", "-", stdin=flunder("a", "v1beta1", **spec))
    assert 'The Flunder "a" is invalid' in told or 'Flunder.wardle.example.com "a" is invalid' in told
    assert complaint in told


@pytest.mark.usefixtures("wardle")
def test_the_older_version_is_judged_too(kubectl: Run, ns: str) -> None:
    told = refused(kubectl, "create", "-n", ns, "-f", "-", stdin=flunder("a", referenceType="Fischer"))
    assert "cannot be empty if referenceType is Fischer" in told


@pytest.mark.usefixtures("wardle")
def test_a_fischer_keeps_flunders_away(kubectl: Run, ns: str) -> None:
    fischer = {
        "apiVersion": "wardle.example.com/v1alpha1",
        "kind": "Fischer",
        "metadata": {"name": f"keeper-{ns}"},
        "disallowedFlunders": ["bad"],
    }
    kubectl("create", "-f", "-", stdin=json.dumps(fischer))
    try:
        told = refused(kubectl, "create", "-n", ns, "-f", "-", stdin=flunder("bad"))
        assert 'flunders.wardle.example.com "bad" is forbidden' in told
        assert "this name may not be used, please change the resource name" in told
        kubectl("create", "-n", ns, "-f", "-", stdin=flunder("good"))
    finally:
        kubectl("delete", "fischer", f"keeper-{ns}")
    kubectl("create", "-n", ns, "-f", "-", stdin=flunder("bad"))


# -- metrics -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def metrics(extension: Callable[[Any], Any]) -> None:
    extension(example("metrics"))


@pytest.mark.usefixtures("metrics")
def test_top_shows_nodes_and_pods(cluster: RunningCluster, kubectl: Run, ns: str) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "web",
            "labels": {"app": "web"},
            "annotations": {"metrics.example.com/cpu": "250m", "metrics.example.com/memory": "64Mi"},
        },
        "spec": {"containers": [{"name": "main", "image": "web"}, {"name": "side", "image": "side"}]},
    }
    kubectl("create", "-n", ns, "-f", "-", stdin=json.dumps(pod))
    kubectl("wait", "-n", ns, "--for=condition=Ready", "pod/web", "--timeout=30s")
    heading, line = kubectl("top", "pods", "-n", ns, "-l", "app=web").splitlines()
    assert heading.split() == ["NAME", "CPU(cores)", "MEMORY(bytes)"]
    assert line.split() == ["web", "500m", "128Mi"]
    assert len(kubectl("top", "pods", "-n", ns, "--containers").splitlines()) == 3
    heading, *lines = kubectl("top", "nodes").splitlines()
    # kubectl wrote CPU% before v1.32
    assert heading.replace("(%)", "%").split() == ["NAME", "CPU(cores)", "CPU%", "MEMORY(bytes)", "MEMORY%"]
    nodes = kubectl("get", "nodes", "-o", "name").split()
    assert {f"node/{each.split()[0]}" for each in lines} == set(nodes)
    assert all(int(each.split()[1].removesuffix("m")) >= 80 for each in lines)
    one = kubectl("get", "--raw", f"/apis/metrics.k8s.io/v1beta1/namespaces/{ns}/pods/web")
    assert json.loads(one)["window"] == "30s"


@pytest.mark.usefixtures("metrics")
def test_metrics_can_only_be_read(kubectl: Run) -> None:
    listed = json.loads(kubectl("get", "--raw", "/apis/metrics.k8s.io/v1beta1"))
    assert {item["name"]: item["verbs"] for item in listed["resources"]} == {
        "nodes": ["get", "list"], "pods": ["get", "list"],
    }  # fmt: skip


# -- library -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database; the app is served to the end of the session and finds it by the environment."""
    path = tmp_path_factory.mktemp("library") / "library.db"
    connection = sqlite3.connect(path)
    connection.executescript((EXAMPLES / "library" / "library.sql").read_text())
    connection.close()
    os.environ["LIBRARY_DB"] = str(path)
    return path


@pytest.fixture
def library(database: Path, extension: Callable[[Any], Any]) -> Path:
    extension(example("library"))
    return database


def book(name: str, **spec: Any) -> str:
    meta = {"name": name, "namespace": "default"}
    document = {"apiVersion": "library.example.com/v1", "kind": "Book", "metadata": meta, "spec": spec}
    return json.dumps(document)


def test_rows_are_objects(library: Path, kubectl: Run) -> None:
    lines = kubectl("get", "books", "-A", "--no-headers").splitlines()
    assert ["harbour", "978-0142437247", "Moby-Dick", "Herman", "Melville", "2"] in [line.split()[:6] for line in lines]
    assert kubectl("get", "bk", "--field-selector=spec.author=Mary Shelley", "-o", "name").split() == [
        "book.library.example.com/978-0486282114"
    ]
    assert "A. Reader" in kubectl("get", "members")


def test_what_is_created_is_a_row_and_what_is_not_written_cannot_be_done(library: Path, kubectl: Run) -> None:
    kubectl("create", "-f", "-", stdin=book("978-1", title="Emma", author="Jane Austen"))
    with sqlite3.connect(library) as connection:
        found = connection.execute("SELECT title, copies FROM books WHERE isbn = '978-1'").fetchall()
    assert found == [("Emma", 1)]
    assert "already exists" in refused(kubectl, "create", "-f", "-", stdin=book("978-1", title="x", author="y"))
    assert "does not allow this method" in refused(kubectl, "delete", "book", "978-1")
    assert kubectl("auth", "can-i", "create", "books").strip() == "yes"
    told = refused(kubectl, "create", "--validate=false", "-f", "-", stdin=book("978-2", author="y"))
    assert "spec.title: Required value" in told


def test_changes_of_other_programs_reach_watchers(library: Path, cluster: RunningCluster) -> None:
    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
    command = ["kubectl", "get", "books", "-n", "elsewhere", "--no-headers", "--watch", "--output-watch-events"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as watching:
        deadline = threading.Timer(30.0, watching.kill)
        deadline.start()
        try:
            assert watching.stdout is not None
            with sqlite3.connect(library) as connection:
                connection.execute("INSERT INTO books VALUES ('elsewhere', '978-3', 'Evelina', 'Burney', 1778, 1)")
            assert watching.stdout.readline().split()[0] == "ADDED"
            with sqlite3.connect(library) as connection:
                connection.execute("UPDATE books SET copies = 5 WHERE isbn = '978-3'")
            assert watching.stdout.readline().split()[0] == "MODIFIED"
            with sqlite3.connect(library) as connection:
                connection.execute("DELETE FROM books WHERE isbn = '978-3'")
            assert watching.stdout.readline().split()[0] == "DELETED"
        finally:
            deadline.cancel()
            watching.kill()
