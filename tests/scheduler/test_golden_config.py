"""Configuration documents as kube-scheduler v1.36 answered them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from bowsprit.scheduler.config import ConfigError, check, load, read
from bowsprit.scheduler.core import SchedulerCore
from bowsprit.scheduler.driver.extenders import check_files
from bowsprit.scheduler.profile import ProfileError
from bowsprit.scheduler.registry import registry

FILE = Path(__file__).parents[1] / "golden" / "scheduler" / "config.jsonl.gz"
CASES = {case["id"]: case for case in map(json.loads, gzip.decompress(FILE.read_bytes()).splitlines())}
CONVERTED = ("version-v1beta2", "version-v1beta3")  # newer kube-schedulers refuse these; we convert them
FLAGS = ("bad-flag",)  # answered by the command line


def answer(case):
    gates = {}
    for flag in case.get("flags") or ():
        if flag.startswith("--feature-gates="):
            gates = {name: value == "true" for name, _, value in (g.partition("=") for g in flag[16:].split(","))}
    try:
        config, _ = read(case["config"], gates)
        if "--leader-elect=false" in (case.get("flags") or ()):
            config["leaderElection"]["leaderElect"] = False
        check(config, gates)
        try:
            check_files(config)
        except OSError as exc:
            return f"couldn't build extenders: open {exc.filename}: {exc.strerror.lower()}"
        SchedulerCore(config, registry(), lambda: 0.0, gates=gates)
    except (ConfigError, ProfileError) as exc:
        return str(exc)
    return config


@pytest.mark.parametrize("name", [name for name in CASES if name not in (*CONVERTED, *FLAGS)])
def test_documents_are_answered_as_recorded(name):
    case = CASES[name]
    assert answer(case) == (case["effective"] if case["result"] == "ok" else case["error"])


@pytest.mark.parametrize("name", CONVERTED)
def test_old_versions_are_converted_with_a_warning(name):
    config, warnings = load(CASES[name]["config"])
    assert config["apiVersion"] == "kubescheduler.config.k8s.io/v1"
    assert "is deprecated" in warnings[0]
    weights = {p["name"]: p["weight"] for p in config["profiles"][0]["plugins"]["multiPoint"]["enabled"]}
    assert weights["TaintToleration"] == (1 if name.endswith("2") else 3)
