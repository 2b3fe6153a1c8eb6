"""What holds for every test."""

from __future__ import annotations

import signal

# A shell's background job ignores SIGINT, and every process that it starts would do so too; tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)
