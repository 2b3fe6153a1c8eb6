"""Runs the recorded kubectl session against a cluster and tells which answers are equal.

``python tests/cluster/kubectl_transcripts.py [-v] [NUMBER...]`` starts a cluster of its own and prints the differences.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "golden" / "apiserver" / "kubectl"
# Commands of the session that are not among the recordings, but whose effects later ones show; and what makes the nodes
# here end the pods that a stand-in for nodes ended there.
BETWEEN = {
    83: ["kubectl wait --for=condition=complete job/j1"],
    89: ["kubectl annotate pod p1 bowsprit.dev/exit-code=0"],
    94: ["kubectl wait --for=condition=complete job/manual"],
    66: ["kubectl apply -f bad.yaml --validate=false"],
    110: ["kubectl create clusterrole cr --verb=get --resource=nodes"],
}
_NODE = r"node-\d"
_REPLACEMENTS = [
    (r"https://127\.0\.0\.1:\d+", "https://SERVER"),
    (r"127\.0\.0\.1:\d+", "SERVER"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UID"),
    (r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}", "TIME"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
    (r"\bweb-[0-9a-z]{8,10}-[0-9a-z]{5}\b", "web-HASH-POD"),
    (r"\bweb-[0-9a-z]{8,10}\b", "web-HASH"),
    (r"\b(j1|manual)-[0-9a-z]{5}\b", r"\1-POD"),
    (r"kube-api-access-\w{5}", "kube-api-access-XXXXX"),
    (r"pod-template-hash=\w+", "pod-template-hash=HASH"),
    (r"\b10\.\d+\.\d+\.\d+\b", "IP"),
    (r"\b(172|192)\.\d+\.\d+\.\d+\b", "IP"),
    (r'(resourceVersion"?:\s*"?)\d+', r"\1RV"),
    (r"\bIP:\d+\b", "IP:PORT"),
    (rf"\b{_NODE}\b", "NODE"),
    (r"(?m)^(Waiting for .*\n)+", ""),
    (r"\b\d+[smhd](\d+[smhd])?\b", "AGE"),
    (r"\(x\d+ over AGE\)", ""),
    (r"[ \t]+", " "),
    (r"-{4,}", "----"),
    (r"(?m) +$", ""),
]
_COMPILED = [(re.compile(pattern), replacement) for pattern, replacement in _REPLACEMENTS]


@dataclass(frozen=True, slots=True)
class Step:
    """One recorded command."""

    number: int
    name: str
    command: str
    stdin: str
    stdout: str
    stderr: str
    code: int


def load_steps() -> list[Step]:
    """All recorded steps in order."""
    return [_parse(path) for path in sorted(FOLDER.glob("[0-9]*.txt"))]


def _parse(path: Path) -> Step:
    head, _, rest = path.read_text().partition("\n")
    stdin = ""
    if rest.startswith("--- stdin\n"):
        stdin, _, rest = rest.removeprefix("--- stdin\n").partition("--- stdout\n")
        rest = "--- stdout\n" + rest
    stdout, _, rest = rest.removeprefix("--- stdout\n").partition("--- stderr\n")
    stderr, _, code = rest.rpartition("--- exit ")
    number = int(path.name[:3])
    return Step(number, path.stem, head.removeprefix("$ "), stdin, stdout, stderr, int(code))


def write_inputs(folder: Path) -> None:
    """The files that the commands read."""
    name, lines = "", []
    for line in [*(FOLDER / "files.txt").read_text().splitlines(), "=== "]:
        if line.startswith("=== "):
            if name:
                (folder / name).write_text("\n".join(lines) + "\n")
            name, lines = line[4:].strip(), []
        else:
            lines.append(line)


def normalise(text: str, folder: Path) -> list[str]:
    """The text without what varies from run to run; lines of events are sorted and told once."""
    text = text.replace(str(folder), "DIR")
    for pattern, replacement in _COMPILED:
        text = pattern.sub(replacement, text)
    lines = text.splitlines()
    return sorted(set(lines)) if "AGE Normal" in text or " Normal " in text else lines


class Session:
    """Runs steps one after the other.

    Args:
        kubeconfig: an admin's kubeconfig of a fresh cluster; copied, because the session changes it.
        folder: a scratch folder.
    """

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        self.folder = folder
        own = folder / "kubeconfig"
        own.write_bytes(kubeconfig.read_bytes())
        self._environment = os.environ | {"KUBECONFIG": str(own), "KUBECACHEDIR": str(folder / "cache")}
        write_inputs(folder)
        current = self._run("kubectl config current-context").stdout.strip()
        self._run(f"kubectl config rename-context {current} c")

    def _run(self, command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            shell=True,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=self.folder,
            env=self._environment,
        )

    def differs(self, step: Step) -> str:
        """Run a step; "" when the answer is equal, else what is different."""
        for command in BETWEEN.get(step.number, ()):
            self._run(command)
        result = self._run(_shell(step.command), step.stdin)
        problems = []
        if result.returncode != step.code:
            problems.append(f"exit {result.returncode}, recorded {step.code}")
        for what, ours, recorded in (("stdout", result.stdout, step.stdout), ("stderr", result.stderr, step.stderr)):
            mine, theirs = normalise(ours, self.folder), normalise(recorded, Path("DIR"))
            if mine != theirs:
                problems.append(what)
                problems += [f"  - {line}" for line in theirs if line not in mine]
                problems += [f"  + {line}" for line in mine if line not in theirs]
        return "\n".join(problems)


def _shell(command: str) -> str:
    """The recorded command line with jsonpaths quoted for a shell."""
    return (
        re.sub(r"(?<!['\"])((?:jsonpath=)?\S*\{\.\S+)", lambda match: f"'{match[1]}'", command)
        if "'{" not in command
        else command
    )


def main() -> None:
    """Print the differences."""
    from bowsprit.cluster.config import ClusterConfig, NodeGroup
    from bowsprit.cluster.embedded import Cluster

    wanted = {int(argument) for argument in sys.argv[1:] if argument.isdigit()}
    steps = load_steps()
    equal = 0
    config = ClusterConfig(name="transcripts", store="memory", nodes=[NodeGroup(count=2)])
    with tempfile.TemporaryDirectory() as folder, Cluster(config) as cluster:
        session = Session(cluster.kubeconfig, Path(folder))
        for step in steps:
            difference = session.differs(step)
            equal += not difference
            if difference and (not wanted or step.number in wanted):
                print(f"{step.name}\n{difference if '-v' in sys.argv or wanted else ''}", flush=True)
    print(f"{equal} of {len(steps)} equal")


if __name__ == "__main__":
    main()
