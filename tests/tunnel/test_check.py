"""``bowsprit tunnel check``: every step broken once, and named."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest
import trustme
import yaml

from bowsprit.cli.main import main
from bowsprit.net.ports import free_port
from bowsprit.tunnel.check import WayCheck
from bowsprit.tunnel.link import SshLink
from bowsprit.tunnel.listener import SocksListener
from bowsprit.tunnel.target import SshTarget

STEPS = ["kubeconfig", "dns", "tcp", "hostkey", "auth", "proxy", "socks", "tls", "readyz", "login", "watch", "exec"]


@pytest.fixture
async def way(sshd, cluster, tmp_path):
    """A context that leads through a tunnel to the cluster; a function changes its cluster entry."""
    link = SshLink(sshd.options())
    await link.start()
    listener = SocksListener(link, port=0)
    await listener.start()
    document = yaml.safe_load(cluster.kubeconfig.read_text())
    entry = document["clusters"][0]["cluster"]
    entry["proxy-url"] = f"socks5://localhost:{listener.port}"
    path = tmp_path / "kubeconfig"

    def write(user: dict | None = None, **changes: object):
        entry.update(changes)
        if user is not None:
            document["users"][0]["user"] = user
        path.write_text(yaml.safe_dump(document))
        return path

    write()
    yield write
    await listener.stop()
    await link.stop()


async def walk(kubeconfig, ssh=None, context=None):
    return [result async for result in WayCheck(context, kubeconfig, ssh).run()]


async def broken(kubeconfig, ssh=None, context=None):
    """The step at which the way breaks; those before it must be fine, and none comes after it."""
    results = await walk(kubeconfig, ssh, context)
    assert [result.step for result in results] == STEPS[: len(results)]
    assert all(result.outcome in ("ok", "skip") for result in results[:-1]), results
    assert results[-1].outcome == "fail"
    assert results[-1].message
    return results[-1]


async def test_the_whole_way_works(way, sshd, kubectl, ns):
    kubectl("run", "target", "--image=nginx", "-n", ns)
    kubectl("wait", "pod/target", "--for=condition=Ready", "-n", ns, "--timeout=60s")
    results = await walk(way(), sshd.options())
    assert [(result.step, result.outcome) for result in results] == [(step, "ok") for step in STEPS]


async def test_kubeconfig(way):
    assert (await broken(way(), context="nope")).step == "kubeconfig"
    assert (await broken(way(**{"proxy-url": f"socks4://localhost:{free_port()}"}))).step == "kubeconfig"


async def test_dns(way, sshd):
    target = SshTarget("no-such-host.invalid", "a", 22)
    result = await broken(way(), sshd.options(target=target))
    assert (result.step, "no-such-host.invalid" in result.message) == ("dns", True)
    way(server="https://no-such-host.invalid:6443")
    path = way(**{"proxy-url": ""})
    assert (await broken(path)).step == "dns"


async def test_tcp(way, sshd):
    result = await broken(way(), sshd.options(target=SshTarget("127.0.0.1", "a", free_port())))
    assert (result.step, "refused" in result.message) == ("tcp", True)
    result = await broken(way(**{"proxy-url": f"socks5://localhost:{free_port()}"}))
    assert (result.step, "bowsprit tunnel open" in result.hint) == ("tcp", True)


async def test_hostkey(way, sshd):
    sshd.trust(sshd.client_key.with_suffix(".pub").read_text())
    result = await broken(way(), sshd.options())
    assert (result.step, "HAS CHANGED" in result.message) == ("hostkey", True)


async def test_auth(way, sshd):
    (sshd.folder / "authorized_keys").write_text("")
    assert (await broken(way(), sshd.options())).step == "auth"


async def test_proxy(way, sshd):
    path = way(**{"proxy-url": f"socks5://localhost:{free_port()}"})
    result = await broken(path, sshd.options())
    assert (result.step, "bowsprit tunnel open" in result.hint) == ("proxy", True)


async def test_socks(way, sshd):
    result = await broken(way(server=f"https://localhost:{free_port()}"), sshd.options())
    assert (result.step, "refused" in result.message.lower()) == ("socks", True)
    result = await broken(way(server="https://no-such-name.invalid:6443"), sshd.options())
    assert (result.step, "from the SSH server" in result.hint) == ("socks", True)


async def test_tls(way, echo):
    path = way(server=f"https://localhost:{echo.port}")
    assert (await broken(path)).step == "tls"
    ca = trustme.CA()
    with pretender(ca.issue_cert("localhost"), b"") as port:
        result = await broken(way(server=f"https://localhost:{port}"))
        assert (result.step, "certificate-authority" in result.hint) == ("tls", True)


async def test_readyz(way):
    ca = trustme.CA()
    trusted = {"certificate-authority-data": base64(ca.cert_pem.bytes())}
    with pretender(ca.issue_cert("localhost"), b"HTTP/1.1 500 Oh\r\nContent-Length: 4\r\n\r\nfail") as port:
        result = await broken(way(server=f"https://localhost:{port}", **trusted))
        assert (result.step, "500" in result.message) == ("readyz", True)


async def test_login(way):
    result = await broken(way(user={"token": "wrong"}))
    assert (result.step, "credentials" in result.message) == ("login", True)


WATCH_CUT = {"/readyz": (200, b"ok"), "/apis/authentication": (201, b'{"status":{"userInfo":{"username":"u"}}}')}


async def test_watch(way):
    ca = trustme.CA()
    trusted = {"certificate-authority-data": base64(ca.cert_pem.bytes())}
    with pretender(ca.issue_cert("localhost"), WATCH_CUT) as port:
        result = await broken(way(server=f"https://localhost:{port}", **trusted))
        assert (result.step, "without an event" in result.message) == ("watch", True)


async def test_exec(way):
    ca = trustme.CA()
    trusted = {"certificate-authority-data": base64(ca.cert_pem.bytes())}
    pod = b'{"metadata":{},"items":[{"metadata":{"name":"p","namespace":"n"}}]}'
    event = b'{"type":"ADDED","object":{"metadata":{"name":"a"}}}\n'
    answers = WATCH_CUT | {"/exec": (502, b"no upgrades"), "/pods": (200, pod), "/namespaces?": (200, event)}
    with pretender(ca.issue_cert("localhost"), answers) as port:
        result = await broken(way(server=f"https://localhost:{port}", **trusted))
        assert (result.step, "502" in result.message) == ("exec", True)


async def test_the_command_says_it_in_words_and_in_json(way, sshd, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("BOWSPRIT_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))
    path = str(way())
    options = ["-i", str(sshd.client_key), "--known-hosts", str(sshd.known_hosts), "--kubeconfig", path]

    def command(*arguments):
        with pytest.raises(SystemExit) as caught:
            main(["tunnel", "check", *arguments])
        return caught.value.code

    assert await asyncio.to_thread(command, "--ssh", str(sshd.target), *options) == 0
    shown = capsys.readouterr().out
    assert " ✓ hostkey " in shown
    assert shown.endswith("The whole way works.\n")
    (sshd.folder / "authorized_keys").write_text("")
    assert await asyncio.to_thread(command, "--ssh", str(sshd.target), *options) == 1
    shown = capsys.readouterr().out
    assert " ✗ auth " in shown
    assert shown.endswith("The way breaks at auth.\n")
    assert await asyncio.to_thread(command, "--ssh", str(sshd.target), "-o", "json", *options) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], told["steps"][-1]["step"], told["steps"][-1]["outcome"]) == (False, "auth", "fail")


def base64(data: bytes) -> str:
    return __import__("base64").b64encode(data).decode()


@contextlib.contextmanager
def pretender(certificate: trustme.LeafCert, answers: bytes | dict[str, tuple[int, bytes]]) -> Iterator[int]:
    """Something that is not quite an API server: answers by a part of the path, the first that fits; else 200 and nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(head: str) -> bytes:
        if isinstance(answers, bytes):
            return answers
        status, body = next((found for part, found in answers.items() if part in head.split()[1]), (200, b""))
        kind = "Content-Type: application/json\r\n"
        return f"HTTP/1.1 {status} X\r\n{kind}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as secure:
            head = secure.recv(65536).decode()
            if head:
                secure.sendall(answer(head))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
