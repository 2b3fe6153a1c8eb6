"""Which proxy a URL goes through, from the environment, by the rules of Go's ``golang.org/x/net/http/httpproxy``.

``HTTPS_PROXY``/``HTTP_PROXY`` by the URL's scheme, upper case before lower case; ``NO_PROXY`` exempts; localhost and loopback
addresses are never proxied. ``ALL_PROXY`` is for curl: Go's HTTP client does not read it, and neither do we.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class _Exemption:
    """One entry of NO_PROXY: a network, or a domain suffix (with the domain itself or not), perhaps with a port."""

    network: Network | None = None
    suffix: str = ""
    host_too: bool = False
    port: str = ""

    def matches(self, host: str, port: str, address: Address | None) -> bool:
        if self.port and self.port != port:
            return False
        if self.network is not None:
            return address is not None and address in self.network
        return host.endswith(self.suffix) or (self.host_too and host == self.suffix[1:])


@dataclass(frozen=True, slots=True)
class ProxyRules:
    """The proxy settings of an environment."""

    http: str = ""
    https: str = ""
    exempt_all: bool = False
    exemptions: tuple[_Exemption, ...] = ()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> ProxyRules:
        """Read the variables. HTTP_PROXY is ignored in CGI programs (a request header could set it)."""

        def variable(name: str) -> str:
            return environ.get(name) or environ.get(name.lower()) or ""

        http = "" if environ.get("REQUEST_METHOD") else variable("HTTP_PROXY")
        exempt_all, exemptions = _parse_no_proxy(variable("NO_PROXY"))
        return cls(http, variable("HTTPS_PROXY"), exempt_all, exemptions)

    def proxy_for(self, url: str) -> str | None:
        """The proxy's URL for a request to ``url``, or None for a direct connection."""
        parts = urlsplit(url)
        proxy = {"http": self.http, "https": self.https}.get(parts.scheme, "")
        host = (parts.hostname or "").rstrip(".")
        port = str(parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0))
        if not proxy or not host or self._exempt(host, port):
            return None
        return proxy if "://" in proxy else f"http://{proxy}"

    def _exempt(self, host: str, port: str) -> bool:
        address = _address(host)
        if host == "localhost" or (address is not None and address.is_loopback):
            return True
        return self.exempt_all or any(rule.matches(host, port, address) for rule in self.exemptions)


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _parse_no_proxy(value: str) -> tuple[bool, tuple[_Exemption, ...]]:
    rules: list[_Exemption] = []
    for entry in value.lower().split(","):
        entry = entry.strip()
        if entry == "*":
            return True, ()
        if not entry:
            continue
        if "/" in entry:
            try:
                rules.append(_Exemption(network=ipaddress.ip_network(entry, strict=False)))
            except ValueError:
                pass  # as upstream: an entry that is no network exempts nothing
            continue
        host, port = _split_port(entry)
        address = _address(host)
        if address is not None:
            rules.append(_Exemption(network=ipaddress.ip_network(address), port=port))
        elif host:
            host = host.removeprefix("*") if host.startswith("*.") else host
            dotted = host.startswith(".")
            rules.append(_Exemption(suffix=host if dotted else f".{host}", host_too=not dotted, port=port))
    return False, tuple(rules)


def _split_port(entry: str) -> tuple[str, str]:
    if entry.startswith("["):
        host, _, rest = entry[1:].partition("]")
        return host, rest.removeprefix(":")
    if entry.count(":") == 1:
        host, _, port = entry.partition(":")
        return host, port
    return entry, ""
