"""`bowsprit apiserver` as a process: flags, certificates, who gets in, and how it ends."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from bowsprit.controlplane.options import APIServerOptions, OptionsError
from bowsprit.pki.authority import Authority

_READY = "serving securely on "


class Process:
    """A running server."""

    def __init__(self, folder: Path, *flags: str) -> None:
        command = [sys.executable, "-m", "bowsprit", "apiserver", "run", "--secure-port=0", f"--cert-dir={folder}"]
        self.popen = subprocess.Popen([*command, *flags], stderr=subprocess.PIPE, text=True)
        assert self.popen.stderr is not None
        lines = []
        for line in self.popen.stderr:
            lines.append(line)
            if line.startswith(_READY):
                self.url = line.removeprefix(_READY).strip()
                return
        raise AssertionError("".join(lines))

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(20)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("clients")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Path:
    path = tmp_path_factory.mktemp("apiserver")
    (path / "ca.pem").write_bytes(authority.ca_pem)
    (path / "tokens.csv").write_text("admin-token,root,1,system:masters\n")
    return path


@pytest.fixture(scope="module")
def process(folder: Path) -> Iterator[Process]:
    made = Process(
        folder,
        f"--client-ca-file={folder / 'ca.pem'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=Node,RBAC",
        "--anonymous-auth",
    )
    yield made
    made.popen.kill()
    made.popen.wait()


def fetch(url: str, context: ssl.SSLContext, token: str = "", **more: Any) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urlopen(Request(url, headers=headers, **more), context=context, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except OSError as exc:
        if not hasattr(exc, "code"):
            raise
        return exc.code, json.loads(exc.read())  # type: ignore[attr-defined]


def trusting(folder: Path, client: tuple[Authority, str, list[str]] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=folder / "apiserver.crt")
    if client is not None:
        issuer, name, groups = client
        issuer.issue_client(name, groups).save(folder / "c.pem", folder / "c.key")
        context.load_cert_chain(folder / "c.pem", folder / "c.key")
    return context


REVIEW = json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).encode()


def who(process: Process, context: ssl.SSLContext, token: str = "") -> tuple[int, Any]:
    url = f"{process.url}/apis/authentication.k8s.io/v1/selfsubjectreviews"
    try:
        request = Request(url, REVIEW, {"Content-Type": "application/json"}, method="POST")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        with urlopen(request, context=context, timeout=10) as answer:
            return answer.status, json.loads(answer.read())["status"]["userInfo"]
    except OSError as exc:
        return exc.code, json.loads(exc.read())  # type: ignore[attr-defined]


def test_self_made_files_are_private_and_verify(process, folder):
    assert stat.S_IMODE((folder / "apiserver.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / "sa.key").stat().st_mode) == 0o600
    status, version = fetch(f"{process.url}/version", trusting(folder))
    assert (status, version["gitVersion"]) == (200, "v1.36.0")


def test_a_certificate_of_the_client_authority_is_a_user(process, folder, authority):
    status, user = who(process, trusting(folder, (authority, "alice", ["devs"])))
    assert status == 201
    assert (user["username"], user["groups"]) == ("alice", ["devs", "system:authenticated"])


def test_a_certificate_of_another_authority_is_401_not_a_broken_handshake(process, folder):
    status, answer = who(process, trusting(folder, (Authority.create("clients"), "root", ["system:masters"])))
    assert (status, answer["reason"], answer["message"]) == (401, "Unauthorized", "Unauthorized")


def test_a_token_is_a_user_and_nobody_is_anonymous(process, folder):
    assert who(process, trusting(folder), "admin-token")[1]["username"] == "root"
    status, answer = fetch(f"{process.url}/api/v1/namespaces", trusting(folder))
    assert status == 403
    assert answer["message"].startswith('namespaces is forbidden: User "system:anonymous" cannot list resource')
    assert fetch(f"{process.url}/api/v1/namespaces", trusting(folder), "wrong")[0] == 401


def test_an_issued_token_works_until_its_account_goes(process, folder):
    context, base = trusting(folder), f"{process.url}/api/v1/namespaces/default/serviceaccounts"

    def post(url: str, body: Any) -> tuple[int, Any]:
        headers = {"Content-Type": "application/json", "Authorization": "Bearer admin-token"}
        with urlopen(Request(url, json.dumps(body).encode(), headers), context=context, timeout=10) as answer:
            return answer.status, json.loads(answer.read())

    post(base, {"metadata": {"name": "robot"}})
    _, answer = post(f"{base}/robot/token", {"spec": {}})
    assert who(process, context, answer["status"]["token"])[1]["username"] == "system:serviceaccount:default:robot"


def test_the_issuer_publishes_its_keys(process, folder):
    context = trusting(folder)
    _, document = fetch(f"{process.url}/.well-known/openid-configuration", context, "admin-token")
    assert document["issuer"] == "https://kubernetes.default.svc"
    _, keys = fetch(f"{process.url}/openid/v1/jwks", context, "admin-token")
    assert [key["alg"] for key in keys["keys"]] == document["id_token_signing_alg_values_supported"]


def test_secrets_of_the_server_are_not_in_its_arguments(process):
    assert "admin-token" not in Path(f"/proc/{process.popen.pid}/cmdline").read_text()


def test_sigterm_ends_it_cleanly_and_the_port_is_free_again(tmp_path):
    made = Process(tmp_path)
    assert made.stop() == 0
    again = Process(tmp_path)
    assert again.stop(signal.SIGINT) == 0


def definition(group: str) -> dict[str, Any]:
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
    names = {"plural": "things", "kind": "Thing"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"things.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def test_a_restart_on_sqlite_keeps_objects_and_identity(tmp_path):
    (tmp_path / "t.csv").write_text("t,root,1,system:masters\n")
    flags = (f"--store=sqlite:{tmp_path / 'state.db'}", f"--token-auth-file={tmp_path / 't.csv'}")
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

    def uid(process: Process, path: str) -> str | None:
        _, found = fetch(f"{process.url}{path}", trusting(tmp_path), "t")
        return found["metadata"].get("uid")

    def uids(process: Process) -> list[str | None]:
        services = [f"/apis/apiregistration.k8s.io/v1/apiservices/v1.g{number}.example" for number in range(3)]
        return [uid(process, path) for path in ("/api/v1/namespaces/default", *services)]

    first = Process(tmp_path, *flags)
    for number in range(3):
        made = json.dumps(definition(f"g{number}.example")).encode()
        assert fetch(f"{first.url}{crds}", trusting(tmp_path), "t", data=made)[0] == 201
    deadline = time.monotonic() + 30
    while None in (before := uids(first)):
        assert time.monotonic() < deadline
    certificate = (tmp_path / "apiserver.crt").read_bytes()
    assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    second = Process(tmp_path, *flags)
    assert uids(second) == before
    assert (tmp_path / "apiserver.crt").read_bytes() == certificate
    assert second.stop() == 0


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--secure-port=70000"], "--secure-port 70000 must be between 0 and 65535"),
        (["--authorization-mode=Magic"], 'authorization-mode "Magic" is not a valid mode'),
        (["--enable-admission-plugins=Nope"], 'enable-admission-plugins plugin "Nope" is unknown'),
        (["--service-cluster-ip-range=10.0.0.0/33"], 'service-cluster-ip-range "10.0.0.0/33" is not a valid cidr'),
        (["--client-ca-file=/nope"], "open /nope: no such file or directory"),
        (["--anonymous-auth=maybe"], 'invalid argument "maybe" for "--anonymous-auth" flag'),
        (["--tls-cert-file=/etc/hostname"], "must be given together"),
        (["--store=tape"], "unknown store 'tape'"),
    ],
)
def test_wrong_flags_are_told(tmp_path, flags, text):
    command = [sys.executable, "-m", "bowsprit", "apiserver", f"--cert-dir={tmp_path}", "--secure-port=0", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_is_told(process, tmp_path):
    port = process.url.rpartition(":")[2]
    command = [sys.executable, "-m", "bowsprit", "apiserver", f"--cert-dir={tmp_path}", f"--secure-port={port}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr


def test_flags_of_a_cluster_file_are_read_as_on_the_command_line():
    options = APIServerOptions.from_flags(
        {"request-timeout": "1m30s", "authorization-mode": ["Node", "RBAC"], "anonymous-auth": False, "secure-port": 1}
    )
    assert (options.request_timeout, options.authorization_mode) == (90.0, ("Node", "RBAC"))
    assert (options.anonymous_auth, options.secure_port) == (False, 1)
    with pytest.raises(OptionsError, match="unknown flag: --nope"):
        APIServerOptions.from_flags({"nope": 1})


async def test_anonymous_is_off_where_everything_is_allowed():
    await asyncio.sleep(0)
    options = APIServerOptions.from_flags({"authorization-mode": "AlwaysAllow"})
    assert not options.anonymous
    assert os.path.basename(options.folder) == "apiserver"


def _table_row(item: Any) -> str:
    kind, shown = item.metadata["kind"], item.default
    if kind in ("list", "paths"):
        shown = ",".join(map(str, shown))
    elif kind == "bool":
        shown = str(shown).lower()
    elif kind == "duration":
        shown = f"{shown:g}s"
    value = f"`{shown}`" if shown not in (None, "") else ""
    return f"| `--{item.name.replace('_', '-')}` | {value} | {item.metadata['help']} |"


def test_the_documented_flags_are_the_real_ones():
    text = (Path(__file__).parents[2] / "docs" / "apiserver.md").read_text()
    documented = [line for line in text.splitlines() if line.startswith("| `--")]
    assert documented == [_table_row(item) for item in dataclasses.fields(APIServerOptions)]
