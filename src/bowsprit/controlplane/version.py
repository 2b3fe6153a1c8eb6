"""The version that this API server speaks, as `/version` tells it (upstream version.Info)."""

from __future__ import annotations

import platform

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}

VERSION = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.0",  # kubectl compares it with its own
    "gitCommit": "0" * 40,
    "gitTreeState": "",
    "buildDate": "",
    "goVersion": f"python{platform.python_version()}",
    "compiler": platform.python_implementation(),
    "platform": f"{platform.system().lower()}/{_MACHINES.get(platform.machine(), platform.machine())}",
}
