"""Every command that takes a kubeconfig goes through its proxy-url, or the environment's proxy, as kubectl does.

The API server is called by a name that only the proxies know, so a command that gets an answer has gone through one.
"""

from __future__ import annotations

import os
import ssl
from urllib.parse import urlsplit

import pytest
import trustme
import yaml
from commands import Shell
from proxies import Proxy

from bowsprit.cli.main import main

NAME = "api.proxied.invalid"
SCHEMES = ("socks5", "socks5h", "http", "https")


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path_factory.getbasetemp() / "proxy-ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with Proxy(context).running() as running:
        yield running


@pytest.fixture
def user(cluster, proxy, tmp_path, tmp_path_factory):
    """A user's shell, and a function that writes the kubeconfig with a proxy-url."""
    shell = Shell(tmp_path, tmp_path / "config")
    shell.environ["SSL_CERT_FILE"] = str(tmp_path_factory.getbasetemp() / "proxy-ca.pem")
    document = yaml.safe_load(cluster.kubeconfig.read_text())
    entry = document["clusters"][0]["cluster"]
    port = urlsplit(entry["server"]).port
    entry |= {"server": f"https://{NAME}:{port}", "tls-server-name": "localhost"}

    def write(proxy_url: str = "") -> str:
        entry["proxy-url"] = proxy_url
        (tmp_path / "config").write_text(yaml.safe_dump(document))
        return f"{NAME}:{port}"

    proxy.take()
    return shell, write


@pytest.fixture
def explain(user, monkeypatch, capfd):
    """Run ``bowsprit scheduler explain`` for a pod that does not exist; its error, which the API server knows."""
    shell, _ = user
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name in ("HOME", "KUBECONFIG", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, shell.environ[name])

    def run(**environ: str) -> str:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as caught:
            main(["scheduler", "explain", "no-such-pod"])
        assert caught.value.code == 1
        return capfd.readouterr().err

    return run


@pytest.mark.parametrize("scheme", SCHEMES)
def test_proxy_url(user, explain, proxy, scheme):
    _, write = user
    target = write(proxy.url(scheme))
    error = explain(NO_PROXY="*", HTTPS_PROXY="http://localhost:1")  # the kubeconfig's word counts
    assert 'pods "no-such-pod" not found' in error
    assert proxy.take() == {scheme.removesuffix("h"): {target}}


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy"])
def test_the_environment_s_proxy(user, explain, proxy, variable):
    _, write = user
    target = write()
    error = explain(**{variable: proxy.url("socks5h"), "HTTP_PROXY": "http://localhost:1"})
    assert 'pods "no-such-pod" not found' in error
    assert proxy.take() == {"socks5": {target}}


def test_no_proxy_exempts(user, explain, proxy):
    _, write = user
    write()
    error = explain(HTTPS_PROXY=proxy.url("http"), NO_PROXY=".proxied.invalid")
    assert f"lookup {NAME}" in error
    assert proxy.take() == {}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("socks4://localhost:1", "must be one of http, https, socks5, socks5h"),
        ("socks5://", "no host"),
        ("http://localhost:1", "refused"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named(user, explain, url, words):
    _, write = user
    write(url)
    error = explain()
    assert words in error.lower()
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("command", "sign"),
    [
        (["controller-manager", "--leader-elect=false", "--secure-port=0"], ""),
        (["scheduler", "run", "--leader-elect=false", "--secure-port=0"], ""),
        (["tunnel", "check"], "The whole way works."),
    ],
)
def test_long_running_commands(user, proxy, command, sign):
    shell, write = user
    target = write(proxy.url("socks5"))
    where = ["--kubeconfig", shell.environ["KUBECONFIG"]]
    with shell.running(*command, *where) as running:
        if sign:
            running.expect(sign)
        else:
            running.until(lambda: len(proxy.targets["socks5"]) >= 3)
    assert proxy.take() == {"socks5": {target}}
