"""What a check has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

OK, WARN, FAIL, SKIP = "ok", "warn", "fail", "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    """`level` is ok, warn, fail or skip (could not be looked at); `hint` says what to do."""

    level: str
    message: str
    hint: str = ""

    def to_json(self, check: str) -> dict[str, Any]:
        """For scripts; `check` is the check's stable name."""
        made = {"check": check, "level": self.level, "message": self.message}
        return {**made, "hint": self.hint} if self.hint else made


def ok(message: str) -> Finding:
    """All is well."""
    return Finding(OK, message)


def warn(message: str, hint: str = "") -> Finding:
    """It works, but not as it should."""
    return Finding(WARN, message, hint)


def fail(message: str, hint: str = "") -> Finding:
    """It does not work."""
    return Finding(FAIL, message, hint)


def skip(message: str, hint: str = "") -> Finding:
    """It could not be looked at."""
    return Finding(SKIP, message, hint)
