"""Structured logs: one JSON object per line, with the members that Kubernetes components write (component-base/logs/json)."""

from __future__ import annotations

import json
import logging
import traceback

_LEVELS = {"WARNING": "warn", "ERROR": "error", "CRITICAL": "error", "INFO": "info", "DEBUG": "debug"}


class JSONFormatter(logging.Formatter):
    """``{"ts": milliseconds, "level": …, "logger": …, "msg": …}``, and `err` with the traceback of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "ts": round(record.created * 1000, 3),
            "level": _LEVELS.get(record.levelname, record.levelname.lower()),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["err"] = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        return json.dumps(line, ensure_ascii=False)
