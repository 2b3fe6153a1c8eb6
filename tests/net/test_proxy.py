"""Proxy selection by the environment, as Go's httpproxy does it."""

from __future__ import annotations

import pytest

from bowsprit.net.proxy import ProxyRules


def proxied(url: str, **environ: str) -> str | None:
    return ProxyRules.from_environment(environ).proxy_for(url)


def test_the_scheme_chooses_the_variable() -> None:
    environ = {"HTTP_PROXY": "http://plain:3128", "HTTPS_PROXY": "socks5://secure:1080"}
    assert proxied("http://example.com/", **environ) == "http://plain:3128"
    assert proxied("https://example.com/", **environ) == "socks5://secure:1080"


def test_upper_case_comes_first_and_a_bare_host_is_http() -> None:
    assert proxied("https://e.com", HTTPS_PROXY="up:1", https_proxy="low:1") == "http://up:1"
    assert proxied("https://e.com", https_proxy="low:1") == "http://low:1"
    assert proxied("https://e.com", ALL_PROXY="socks5h://all:1") is None  # curl reads it, Go does not
    assert proxied("http://e.com", HTTP_PROXY="http://p", REQUEST_METHOD="GET") is None


@pytest.mark.parametrize("host", ["localhost", "localhost:6443", "127.0.0.1:6443", "127.9.9.9", "[::1]:6443"])
def test_the_own_machine_is_never_proxied(host: str) -> None:
    assert proxied(f"https://{host}/", HTTPS_PROXY="http://p") is None


@pytest.mark.parametrize(
    ("no_proxy", "url", "exempt"),
    [
        ("*", "https://any.example", True),
        ("example.com", "https://example.com", True),
        ("example.com", "https://a.example.com", True),
        ("example.com", "https://notexample.com", False),
        (".example.com", "https://example.com", False),
        (".example.com", "https://a.example.com", True),
        ("*.example.com", "https://example.com", False),
        ("*.example.com", "https://a.example.com", True),
        ("EXAMPLE.com, 10.0.0.0/8", "https://10.1.2.3:6443", True),
        ("10.0.0.0/8", "https://11.1.2.3", False),
        ("10.1.2.3", "https://10.1.2.3", True),
        ("example.com:6443", "https://example.com:6443", True),
        ("example.com:6443", "https://example.com", False),
        ("example.com:443", "https://example.com", True),
        ("[fd00::1]:443", "https://[fd00::1]", True),
        ("fd00::/8", "https://[fd00::1]", True),
        ("not/a/network", "https://example.com", False),
    ],
)
def test_no_proxy(no_proxy: str, url: str, exempt: bool) -> None:
    assert (proxied(url, HTTPS_PROXY="http://p", NO_PROXY=no_proxy) is None) is exempt
