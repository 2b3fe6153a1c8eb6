"""The recorded kubectl session, command by command: equal, or named in docs/compatibility.md with its reason."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from kubectl_transcripts import Session, load_steps

from bowsprit.cluster.config import ClusterConfig, NodeGroup
from bowsprit.cluster.embedded import Cluster

_COMPATIBILITY = Path(__file__).parents[2] / "docs" / "compatibility.md"
RECORDED_WITH = 32  # kubectl 1.32; others word much otherwise


def _named() -> set[str]:
    """The transcripts that the page says may differ."""
    return set(re.findall(r"^\| kubectl/(\S+) \|", _COMPATIBILITY.read_text(), re.MULTILINE))


def _kubectl_minor() -> int:
    said = subprocess.run(["kubectl", "version", "--client", "-o", "json"], capture_output=True, check=True, timeout=20)
    return int(re.sub(r"\D", "", json.loads(said.stdout)["clientVersion"]["minor"]))


@pytest.mark.timeout(300)
def test_kubectl_answers_as_recorded(tmp_path: Path) -> None:
    config = ClusterConfig(name="transcripts", store="memory", nodes=[NodeGroup(count=2)])
    steps = load_steps()
    with Cluster(config) as cluster:
        session = Session(cluster.kubeconfig, tmp_path)
        differences = {step.name: text for step in steps if (text := session.differs(step))}
    if abs(_kubectl_minor() - RECORDED_WITH) > 1:
        assert len(differences) <= 0.35 * len(steps)  # the rest is what kubectl itself says otherwise
        return
    surprises = "\n".join(f"{name}\n{text}" for name, text in differences.items() if name not in _named())
    assert not surprises
    assert len(differences) <= 0.15 * len(steps)


def test_every_named_transcript_exists() -> None:
    assert _named() <= {step.name for step in load_steps()}
