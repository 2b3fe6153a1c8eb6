"""`bowsprit scheduler`: configuration errors, manifests, simulate, explain."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import yaml

from bowsprit.cli.controller_manager import client_config
from bowsprit.cli.main import main
from bowsprit.scheduler.config import default_config, load
from bowsprit.scheduler.explain import explain_pod, render

GOLDEN = Path(__file__).parents[1] / "golden" / "scheduler"
HEAD = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"


def run(capsys, *args):
    with pytest.raises(SystemExit) as stop:
        main(["scheduler", *map(str, args)])
    found = capsys.readouterr()
    return stop.value.code, found.out, found.err


def scenarios(*names):
    lines = gzip.decompress((GOLDEN / "scenarios-04.jsonl.gz").read_bytes()).splitlines()
    return [scenario for scenario in map(json.loads, lines) if scenario["id"] in names]


def test_a_wrong_configuration_ends_with_upstreams_message(capsys, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(HEAD + "parallelism: 0\n")
    code, _, err = run(capsys, "--config", file)
    assert code == 1
    assert "parallelism: Invalid value: 0: should be an integer value greater than zero" in err
    file.write_text(HEAD + "profiles:\n- plugins:\n    filter:\n      enabled: [{name: NoSuchPlugin}]\n")
    code, _, err = run(capsys, "run", "--config", file)
    assert code == 1
    assert 'FilterPlugin "NoSuchPlugin" does not exist' in err


def test_the_address_of_the_server_needs_no_kubeconfig(monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    flags = {"kubeconfig": None, "master": "http://127.0.0.1:8080/", "kube_api_qps": 50.0, "kube_api_burst": 100}
    assert client_config(flags, "kube-scheduler").server == "http://127.0.0.1:8080"


def test_an_unknown_flag_is_refused_as_upstream_does(capsys):
    code, _, err = run(capsys, "--algorithm-provider=x")
    assert (code, err.strip()) == (1, "Error: unknown flag: --algorithm-provider")


def test_the_configuration_is_written_with_defaults_and_flags(capsys, tmp_path):
    target = tmp_path / "out.yaml"
    code, _, err = run(capsys, "--write-config-to", target, "--leader-elect=false", "--leader-elect-resource-name=mine")
    assert (code, err) == (0, "")
    config, _ = load(target.read_text())
    assert config["leaderElection"]["leaderElect"] is False
    assert config["leaderElection"]["resourceName"] == "mine"
    assert config["profiles"] == default_config()["profiles"]


def test_manifests_of_a_second_scheduler(capsys):
    code, out, _ = run(capsys, "manifests", "--name", "night", "--replicas", "2")
    documents = list(yaml.safe_load_all(out))
    assert code == 0
    kinds = [document["kind"] for document in documents]
    assert kinds[0] == "ServiceAccount"
    assert kinds[-1] == "Deployment"
    text = next(d for d in documents if d["kind"] == "ConfigMap")["data"]["night-config.yaml"]
    config, warnings = load(text)
    assert not warnings
    assert config["profiles"][0]["schedulerName"] == "night"
    assert config["leaderElection"]["resourceName"] == "night"
    container = documents[-1]["spec"]["template"]["spec"]["containers"][0]
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": 10259, "scheme": "HTTPS"}
    rules = next(d for d in documents if d["kind"] == "Role")["rules"]
    assert rules[1]["resourceNames"] == ["night"]


def test_the_documented_v1beta2_configuration_is_taken_with_a_warning(capsys, tmp_path):
    file = tmp_path / "my-scheduler-config.yaml"
    file.write_text(
        "apiVersion: kubescheduler.config.k8s.io/v1beta2\nkind: KubeSchedulerConfiguration\n"
        "profiles:\n  - schedulerName: my-scheduler\nleaderElection:\n  leaderElect: false\n"
    )
    code, _, err = run(capsys, "--config", file, "--write-config-to", tmp_path / "out.yaml")
    assert code == 0
    assert "kubescheduler.config.k8s.io/v1beta2 KubeSchedulerConfiguration is deprecated" in err


def test_simulate_prints_one_line_per_scenario(capsys, tmp_path):
    wanted = scenarios("hand-taint-all", "hand-wrong-scheduler", "hand-zero-allocatable")
    assert wanted
    file = tmp_path / "scenarios.jsonl"
    file.write_text("".join(json.dumps({k: v for k, v in s.items() if k != "result"}) + "\n" for s in wanted))
    code, out, _ = run(capsys, "simulate", "-f", file, "-o", "jsonl", "--scores")
    answers = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [answer["id"] for answer in answers] == [scenario["id"] for scenario in wanted]
    for answer, scenario in zip(answers, wanted, strict=True):
        for got, want in zip(answer["result"], scenario["result"], strict=True):
            assert (got["node"], got.get("scores")) == (want["node"], want.get("scores"))


def test_simulate_compares_two_configurations(capsys, tmp_path):
    node = {"status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}}}
    pod = {"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]}}
    used = {"metadata": {"name": "r", "namespace": "d", "uid": "r"}, "spec": {**pod["spec"], "nodeName": "b"}}
    scenario = {
        "id": "two",
        "nodes": [{**node, "metadata": {"name": name}} for name in "ab"],
        "existing_pods": [used],
        "objects": [],
        "pods": [{**pod, "metadata": {"name": "p", "namespace": "d", "uid": "p"}}],
    }
    (tmp_path / "s.jsonl").write_text(json.dumps(scenario))
    (tmp_path / "a.yaml").write_text(HEAD)
    strategy = "{type: MostAllocated}"
    packed = f"profiles:\n- pluginConfig:\n  - name: NodeResourcesFit\n    args: {{scoringStrategy: {strategy}}}\n"
    (tmp_path / "b.yaml").write_text(HEAD + packed)
    files = [tmp_path / name for name in ("s.jsonl", "a.yaml", "b.yaml")]
    code, out, _ = run(capsys, "simulate", "-f", files[0], "--compare", files[1], "--config", files[2])
    assert code == 0
    assert out.splitlines()[1].split() == ["POD", "BEFORE", "AFTER", "MESSAGE"]
    assert out.splitlines()[2].split() == ["d/p", "a", "b"]


def test_a_broken_scenario_is_refused_with_its_line(capsys, tmp_path):
    (tmp_path / "s.jsonl").write_text('{"id": "a", "nodes": []}\n{"id"\n')
    code, _, err = run(capsys, "simulate", "-f", tmp_path / "s.jsonl", "-o", "jsonl")
    assert code == 1
    assert "line 2" in err


def test_explain_names_reasons_scores_and_the_smallest_change():
    def node(name, cpu, **spec):
        status = {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "10"}}
        return {"metadata": {"name": name}, "spec": spec, "status": status}

    taint = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}
    container = {"name": "c", "image": "x", "resources": {"requests": {"cpu": "3"}}}
    pod = {"metadata": {"name": "p", "namespace": "d", "uid": "p"}, "spec": {"containers": [container]}}
    snapshot = {
        "nodes": [node("small", "2"), node("tainted", "1", taints=[taint])],
        "objects": [],
        "existing_pods": [],
        "pods": [pod],
    }
    found = explain_pod(snapshot, "d", "p", default_config())
    plugins = {entry["node"]: [v["plugin"] for v in entry["rejections"]] for entry in found["nodes"]}
    assert plugins == {"small": ["NodeResourcesFit"], "tainted": ["TaintToleration", "NodeResourcesFit"]}
    assert found["change"] == {"node": "small", "steps": ["free 1000m cpu on small, or request 2000m"]}
    assert "Insufficient cpu" in render(found, wide=False)
    snapshot["nodes"].append(node("large", "8"))
    found = explain_pod(snapshot, "d", "p", default_config())
    assert found["best"] == "large"
    assert explain_pod(snapshot, "d", "other", default_config()) is None
