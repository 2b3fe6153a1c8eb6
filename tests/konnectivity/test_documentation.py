"""docs/konnectivity.md lists every flag with its default and every metric."""

from __future__ import annotations

from pathlib import Path

from bowsprit.konnectivity.agentmetrics import AgentMetrics
from bowsprit.konnectivity.agentoptions import AGENT_FLAGS
from bowsprit.konnectivity.goflags import KLOG_FLAGS, Flag
from bowsprit.konnectivity.metrics import PREFIX
from bowsprit.konnectivity.servermetrics import ServerMetrics
from bowsprit.konnectivity.serveroptions import SERVER_FLAGS
from bowsprit.machinery.time import format_duration

TEXT = (Path(__file__).parents[2] / "docs" / "konnectivity.md").read_text()


def row(flag: Flag) -> str:
    if flag.kind == "duration" and isinstance(flag.default, int):
        default = format_duration(flag.default)
    elif flag.default in ("", ()):
        default = ""
    else:
        default = str(flag.default).lower() if flag.kind == "bool" else str(flag.default)
    text = "Deprecated, no effect." if flag.deprecated else flag.help
    return f"| `--{flag.name}` | {default} | {text} |"


def test_every_flag_is_documented_with_its_default() -> None:
    for flags, title in ((SERVER_FLAGS, "## Server flags"), (AGENT_FLAGS, "## Agent flags")):
        section = TEXT.split(title)[1].split("\n## ")[0]
        for flag in flags:
            if flag not in KLOG_FLAGS and not flag.hidden:
                assert row(flag) in section


def test_every_metric_is_documented() -> None:
    for registry in (ServerMetrics().registry, AgentMetrics().registry):
        for family in registry.families:
            labels = "{" + ",".join(family.labels) + "}" if family.labels else ""
            assert f"`{family.name.removeprefix(PREFIX)}{labels}`" in TEXT, family.name
