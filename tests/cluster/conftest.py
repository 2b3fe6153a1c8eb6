"""The runner of the recorded session is a module of its own."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # kubectl_transcripts
