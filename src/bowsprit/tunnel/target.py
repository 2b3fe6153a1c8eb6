"""Where a tunnel leads: ``ssh://[user@]host[:port]``."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from bowsprit.tunnel.errors import TunnelError


@dataclass(frozen=True, slots=True)
class SshTarget:
    """An SSH server. An empty user and port 0 are left to ``~/.ssh/config`` and OpenSSH's defaults."""

    host: str
    user: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> SshTarget:
        """Read ``ssh://user@host:port`` or, as ssh itself takes it, ``user@host``.

        Raises:
            TunnelError: the text names no SSH server.
        """
        url = text if "://" in text else f"ssh://{text}"
        try:
            parts = urlsplit(url)
            port = parts.port or 0
        except ValueError as exc:
            raise _wrong(text, str(exc)) from exc
        if parts.scheme != "ssh":
            raise _wrong(text, f"the scheme is {parts.scheme!r}")
        if not parts.hostname:
            raise _wrong(text, "there is no host")
        if parts.password is not None:
            raise _wrong(
                text, "a password in the address would be seen by everyone on this machine; use a key or an agent"
            )
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise _wrong(text, "nothing may follow the host and port")
        if parts.hostname.startswith("-"):
            raise _wrong(text, "a host name cannot start with '-'")
        return cls(parts.hostname, unquote(parts.username or ""), port)

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{user}{host}{f':{self.port}' if self.port else ''}"


def _wrong(text: str, why: str) -> TunnelError:
    return TunnelError(
        f"{text!r} is not an SSH address: {why}", reason="InvalidTarget", hint="write ssh://user@host:port"
    )
