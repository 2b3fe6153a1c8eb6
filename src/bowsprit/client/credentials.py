"""Credentials that change while a client lives: token files and exec plugins (client.authentication.k8s.io/v1)."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bowsprit.client.config import RestConfig
from bowsprit.client.errors import ConfigError
from bowsprit.machinery.objects import Obj

TOKEN_FILE_PERIOD = 60.0  # seconds between reads (client-go transport.NewCachedFileTokenSource)
EXEC_TIMEOUT = 60.0
_MAX_EXEC_OUTPUT = 1024 * 1024
_EXEC_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")


@dataclass(frozen=True, slots=True)
class ExecCredential:
    """What a plugin answered."""

    token: str = field(default="", repr=False)
    certificate: bytes = field(default=b"", repr=False)
    key: bytes = field(default=b"", repr=False)
    expires: float | None = None


class TokenFile:
    """A bearer token in a file, read again every minute; the last good one is kept when a read fails."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._token = ""
        self._read_at = float("-inf")

    def token(self) -> str:
        """The current token; raises ConfigError if there never was one."""
        if self._clock() - self._read_at >= TOKEN_FILE_PERIOD:
            try:
                self._token = self._path.read_text(encoding="utf-8").strip() or self._token
                self._read_at = self._clock()
            except OSError as exc:
                if not self._token:
                    raise ConfigError(f'failed to read token file "{self._path}": {exc.strerror}') from exc
        return self._token


class ExecPlugin:
    """Runs the plugin when there is no credential yet, when it has expired, or when the server refused it."""

    def __init__(self, config: Obj, now: Callable[[], datetime]) -> None:
        self._config = config
        self._now = now
        self._current: ExecCredential | None = None
        self._lock = asyncio.Lock()
        version = config.get("apiVersion") or ""
        if version not in _EXEC_VERSIONS:
            raise ConfigError(f'exec plugin: invalid apiVersion "{version}"', hint=f"use {_EXEC_VERSIONS[0]}")
        if not config.get("command"):
            raise ConfigError("exec plugin: no command")
        if config.get("interactiveMode") == "Always" and not sys.stdin.isatty():
            raise ConfigError("exec plugin cannot support interactive mode: standard input is not a terminal")

    async def credential(self, *, refused: ExecCredential | None = None) -> ExecCredential:
        """A usable credential; ``refused`` is the one that got a 401 and must be replaced."""
        async with self._lock:
            current = self._current
            expired = current is not None and current.expires is not None and self._now().timestamp() >= current.expires
            if current is None or expired or current is refused:
                current = self._current = await self._run()
            return current

    async def _run(self) -> ExecCredential:
        command, arguments = self._config["command"], self._config.get("args") or []
        environment = dict(os.environ)
        for item in self._config.get("env") or []:
            environment[item["name"]] = item.get("value") or ""
        spec: Obj = {"interactive": False}
        if self._config.get("_cluster"):
            spec["cluster"] = self._config["_cluster"]
        info = {"kind": "ExecCredential", "apiVersion": self._config["apiVersion"], "spec": spec}
        environment["KUBERNETES_EXEC_INFO"] = json.dumps(info)
        try:
            process = await asyncio.create_subprocess_exec(
                command,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                env=environment,
                limit=_MAX_EXEC_OUTPUT,
            )
        except OSError as exc:
            hint = self._config.get("installHint") or ""
            raise ConfigError(f"exec: executable {command} failed: {exc.strerror}", hint=hint) from exc
        assert process.stdout is not None
        try:
            async with asyncio.timeout(EXEC_TIMEOUT):
                output = await _read_bounded(process.stdout, command)
                code = await process.wait()
        except BaseException as exc:
            if process.returncode is None:
                process.kill()
                await process.wait()
            if isinstance(exc, TimeoutError):
                raise ConfigError(f"exec: executable {command} gave no answer within {EXEC_TIMEOUT:.0f}s") from exc
            raise
        if code != 0:
            raise ConfigError(f"exec: executable {command} failed with exit code {code}")
        return parse_exec_credential(output, self._config["apiVersion"])


async def _read_bounded(stream: asyncio.StreamReader, command: str) -> bytes:
    output = bytearray()
    while chunk := await stream.read(65536):
        output += chunk
        if len(output) > _MAX_EXEC_OUTPUT:
            raise ConfigError(f"exec: executable {command} wrote more than {_MAX_EXEC_OUTPUT} bytes")
    return bytes(output)


def parse_exec_credential(output: bytes, api_version: str) -> ExecCredential:
    """Read a plugin's standard output; raises ConfigError."""
    try:
        document = json.loads(output)
    except ValueError as exc:
        raise ConfigError(f"exec plugin: decoding stdout: {exc}") from exc
    if not isinstance(document, dict) or document.get("kind") != "ExecCredential":
        raise ConfigError("exec plugin: stdout is no ExecCredential")
    if document.get("apiVersion") != api_version:
        raise ConfigError(
            f"exec plugin is configured to use API version {api_version}, plugin returned version {document.get('apiVersion')}"
        )
    status = document.get("status")
    if not isinstance(status, dict):
        raise ConfigError("exec plugin didn't return a status field")
    token, certificate, key = (
        status.get("token") or "",
        status.get("clientCertificateData") or "",
        status.get("clientKeyData") or "",
    )
    if not token and not (certificate and key):
        raise ConfigError("exec plugin didn't return a token or cert/key pair")
    if bool(certificate) != bool(key):
        raise ConfigError("exec plugin returned only certificate or key, not both")
    expires = None
    if stamp := status.get("expirationTimestamp"):
        try:
            moment = datetime.fromisoformat(stamp)
            expires = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except ValueError as exc:
            raise ConfigError(f"exec plugin: expirationTimestamp {stamp!r}: {exc}") from exc
    return ExecCredential(token, certificate.encode(), key.encode(), expires)


def basic_auth(username: str, password: str) -> str:
    """The value of an Authorization header."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def token_source(config: RestConfig, clock: Callable[[], float]) -> Callable[[], str]:
    """Where the bearer token comes from: a source, else the file, else the inline token."""
    if config.token_source is not None:
        return config.token_source
    if config.token_file is not None:
        return TokenFile(config.token_file, clock).token
    return lambda: config.token
