"""EgressSelectorConfiguration: upstream's rules and messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from bowsprit.net.egress.configuration import EgressConfigError, parse, read
from bowsprit.net.egress.httpconnect import UdsConnectDialer
from bowsprit.net.egress.selector import EgressSelector
from bowsprit.net.egress.tunnel import GrpcDialer

HEAD = "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections:\n"


def selection(name: str, protocol: str, transport: str = "") -> str:
    inside = f", transport: {transport}" if transport else ""
    return f"- {{name: {name}, connection: {{proxyProtocol: {protocol}{inside}}}}}\n"


def test_the_tutorials_file_selects_a_grpc_dialer(tmp_path: Path) -> None:
    file = tmp_path / "egress.yaml"
    file.write_text(HEAD + selection("cluster", "GRPC", "{uds: {udsName: /run/k.sock}}"))
    selector = EgressSelector.from_file(file)
    assert isinstance(selector.dialer("cluster"), GrpcDialer)
    assert selector.dialer("etcd") is None
    with pytest.raises(KeyError):
        selector.dialer("master")


def test_http_connect_over_uds_and_direct() -> None:
    text = HEAD + selection("Cluster", "HTTPConnect", "{uds: {udsName: /s}}") + selection("etcd", "Direct")
    selector = EgressSelector(parse(text.encode()))
    assert isinstance(selector.dialer("cluster"), UdsConnectDialer)
    assert selector.dialer("etcd") is None


def test_master_is_controlplane_and_v1alpha1_is_read() -> None:
    text = HEAD.replace("v1beta1", "v1alpha1") + selection("master", "Direct")
    assert list(parse(text.encode())) == ["controlplane"]


def test_no_file_selects_nothing() -> None:
    assert EgressSelector.from_file("").dialer("cluster") is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (selection("cluster", "Direct", "{uds: {udsName: /s}}"),
         'service.connection.transport: Invalid value: "direct": Transport config should be absent for direct connect'),
        (selection("cluster", "GRPC"), "service.connection.transport: Required value: transport must be set for GRPC"),
        (selection("cluster", "GRPC", '{tcp: {url: "https://x"}}'),
         "service.connection.uds: Required value: UDS must be set with GRPC"),
        (selection("cluster", "HTTPConnect", "{}"), "service.connection.tcp: Required value: One of TCP or UDS must be set"),
        (selection("cluster", "HTTPConnect", '{uds: {udsName: ""}}'),
         'service.connection.udsName: Invalid value: "nil": UDSName should be present for UDS connections'),
        (selection("cluster", "HTTPConnect", '{tcp: {url: "ftp://x"}}'),
         'service.connection.url: Invalid value: "ftp://x": supported connection protocols are http:// and https://'),
        (selection("cluster", "HTTPConnect", '{tcp: {url: "https://x"}}'),
         "service.connection.tlsConfig: Required value: TLSConfig must be present when using HTTPS"),
        (selection("cluster", "HTTPConnect", '{tcp: {url: "https://x", tlsConfig: {clientKey: /nope}}}'),
         'service.connection.tlsConfig.clientCert: Invalid value: "nil": Using TLS requires clientCert'),
        (selection("cluster", "HTTPConnect", '{tcp: {url: "http://x", tlsConfig: {}}}'),
         "TLSConfig config should not be present when using HTTP"),
        (selection("cluster", "UDP"), 'service.connection.protocol: Unsupported value: "UDP"'),
        (selection("cluster", "Direct") * 2, 'service.connection[1]: Duplicate value: "cluster"'),
        (selection("nodes", "Direct"), 'service.connection: Unsupported value: "nodes"'),
        ("- {name: cluster, conection: {}}\n", 'strict decoding error: unknown field "egressSelections[0].conection"'),
        ("- {name: cluster, name: etcd, connection: {proxyProtocol: Direct}}\n", "strict decoding error:"),
        ("- {name: 5, connection: {proxyProtocol: Direct}}\n", "cannot unmarshal number"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_upstreams_words(body: str, message: str) -> None:
    with pytest.raises(EgressConfigError) as raised:
        parse((HEAD + body).encode())
    assert message in str(raised.value)


def test_other_kinds_versions_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EgressConfigError, match='invalid service configuration object "Pod"'):
        parse(b"apiVersion: v1\nkind: Pod\n")
    with pytest.raises(EgressConfigError, match="is registered for version"):
        parse(HEAD.replace("v1beta1", "v1").encode())
    with pytest.raises(EgressConfigError, match=r"unable to read egress selector configuration .*no such file"):
        read(tmp_path / "absent")
    file = tmp_path / "egress.yaml"
    file.write_text("kind: Pod")
    with pytest.raises(EgressConfigError, match=r'egress\.yaml: invalid service configuration object "Pod"'):
        read(file)
