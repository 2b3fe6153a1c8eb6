"""Command lines as recorded: exit code and message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from konnectivity_transcripts import load

from bowsprit.konnectivity import goflags
from bowsprit.konnectivity.agent import AgentError, ProxyAgent
from bowsprit.konnectivity.agentoptions import AGENT_FLAGS, AgentOptions
from bowsprit.konnectivity.goflags import FlagError, HelpRequestedError
from bowsprit.konnectivity.server import ProxyServer, ServerError
from bowsprit.konnectivity.serveroptions import SERVER_FLAGS, OptionsError, ServerOptions
from bowsprit.machinery.goformat import quote
from bowsprit.pki.authority import Authority

CASES = load("flags")


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    authority = Authority.create("flags")
    (tmp_path / "ca.crt").write_bytes(authority.ca_pem)
    authority.issue_server("server", ["localhost"], ["127.0.0.1"]).save(tmp_path / "srv.crt", tmp_path / "srv.key")
    authority.issue_client("agent").save(tmp_path / "ag.crt", tmp_path / "ag.key")
    (tmp_path / "bad.pem").write_text("this is no PEM\n")
    (tmp_path / "empty").write_text("")
    monkeypatch.chdir(tmp_path)
    for name in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


async def start(program: str, arguments: list[str], warnings: list[str]) -> None:
    """Run as far as the recorded program got: free ports instead of the recorded ones once the flags are valid."""
    if program == "server":
        options = ServerOptions.from_flags(goflags.parse(SERVER_FLAGS, arguments, warnings.append))
        try:
            options.validate()
        except OptionsError as exc:
            raise ServerError(f"failed to validate server options with {exc}") from exc
        options.agent_port = options.admin_port = options.health_port = 0
        server = ProxyServer(options, validate=False)
        await server.start()
        await server.stop(force=True)
        return
    agent_options = AgentOptions.from_flags(goflags.parse(AGENT_FLAGS, arguments, warnings.append))
    try:
        agent_options.validate()
    except OptionsError as exc:
        raise AgentError(f"failed to validate agent options with {exc}") from exc
    agent_options.admin_server_port = 0
    if agent_options.health_server_port < 65536:
        agent_options.health_server_port = 0
    agent = ProxyAgent(agent_options, validate=False)
    await agent.start()
    await agent.stop()


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["id"]))
async def test_command_lines_end_as_recorded(case: dict[str, Any], directory: Path) -> None:
    texts = [line["text"] for line in case["stderr"] if "text" in line]
    warnings: list[str] = []
    if case["exitCode"] is None:
        await start(case["program"], case["args"], warnings)
        return
    with pytest.raises((FlagError, ServerError, AgentError)) as raised:
        await start(case["program"], case["args"], warnings)
    assert f"Error: {raised.value}" == texts[-1].rstrip("\n")
    assert warnings == texts[:-1]


def test_all_flags_have_an_option_or_are_klogs() -> None:
    for flags, options in ((SERVER_FLAGS, ServerOptions), (AGENT_FLAGS, AgentOptions)):
        fields = set(options.__dataclass_fields__)
        names = {flag.field for flag in flags}
        assert fields <= names
        own = {flag.field for flag in flags if flag not in goflags.KLOG_FLAGS}
        assert own - fields <= {"warn_on_channel_limit"}
        defaults = options()
        for flag in flags:
            if flag.field in fields and not flag.target:
                assert getattr(defaults, flag.field) == flag.default, flag.name


def test_the_go_projects_tests_pass_every_flag_with_a_value() -> None:
    shown = {
        "bool": "false", "klog-bool": "true", "int": "7", "uint": "1800", "Level": "4", "severity": "2", "float32": "0",
        "duration": "1h0m0s", "strings": "[]", "selector": "a=b", "traceLocation": "a.go:1",
    }  # fmt: skip
    for flags in (SERVER_FLAGS, AGENT_FLAGS):
        arguments = [f"--{flag.name}={shown.get(flag.kind, '')}" for flag in flags]
        values = goflags.parse(flags, arguments, lambda line: None)
        assert values["keepalive_time"] == 3_600_000_000_000


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("--server-port=0x", 'strconv.ParseInt: parsing "0x": invalid syntax'),
        ("--kubeconfig-qps=1e50", 'strconv.ParseFloat: parsing "1e50": value out of range'),
        ("--kubeconfig-qps= 5", 'strconv.ParseFloat: parsing " 5": invalid syntax'),
        ("--keepalive-time=1m-1s", 'time: unknown unit "m-" in duration "1m-1s"'),
        ('--cipher-suites="a', 'parse error on line 1, column 3: extraneous or missing " in quoted-field'),
        ('--cipher-suites="a"b', 'parse error on line 1, column 3: extraneous or missing " in quoted-field'),
        ('--cipher-suites=a"b', 'parse error on line 1, column 2: bare " in non-quoted-field'),
        ("--skip-headers=yes", "parse error"),
        ("--log-file-max-size=-1", "parse error"),
        ("--log-file-max-size=99999999999999999999", "value out of range"),
        ("--stderrthreshold=nope", 'strconv.ParseInt: parsing "nope": invalid syntax'),
        ("--log-backtrace-at=a:1", "syntax error: expect file.go:234"),
        ("--log-backtrace-at=a.go:0", "negative or zero value for level"),
        ("--vmodule=a", "syntax error: expect comma-separated list of filename=N"),
        ("--vmodule=a=-1", "negative value for vmodule level"),
    ],
)
def test_bad_values_are_refused_in_gos_words(argument: str, reason: str) -> None:
    name, _, value = argument.partition("=")
    with pytest.raises(FlagError) as raised:
        goflags.parse(SERVER_FLAGS, [argument], lambda line: None)
    assert str(raised.value) == f"invalid argument {quote(value)} for {quote(name)} flag: {reason}"


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("--server-count=1_000", 1000),
        ("--server-count=0x10", 16),
        ("--server-count=070", 56),
        ("--kubeconfig-qps=0x1p3", 8.0),
        ("--cipher-suites=", ()),
        ('--cipher-suites="a,b",c\nd', ("a,b", "c")),
        ("--cipher-suites=[]", ("[]",)),
        ("--stderrthreshold=warning", 1),
        ("--vmodule=a=1,,b*=0", "a=1,,b*=0"),
    ],
)
def test_values_are_read_as_go_reads_them(argument: str, value: object) -> None:
    name = argument.partition("=")[0].removeprefix("--").replace("-", "_")
    assert goflags.parse(SERVER_FLAGS, [argument], lambda line: None)[name] == value


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["-hv"], "flag needs an argument: 'v' in -v"),
        (["-x"], "unknown shorthand flag: 'x' in -x"),
        (["-hx=1"], "unknown shorthand flag: 'x' in -x=1"),
        (["--help", "--nope"], "unknown flag: --nope"),
        (["--"], ""),
        (["--help=false", "-v3", "-v=4", "-v", "5", "word"], ""),
    ],
)
def test_letters_and_help(arguments: list[str], reason: str) -> None:
    if not reason:
        assert goflags.parse(SERVER_FLAGS, arguments, lambda line: None)["v"] in (4, 5)
        return
    with pytest.raises(FlagError) as raised:
        goflags.parse(SERVER_FLAGS, arguments, lambda line: None)
    assert str(raised.value) == reason


def test_help_shows_flags_and_no_secret_ones() -> None:
    with pytest.raises(HelpRequestedError):
        goflags.parse(AGENT_FLAGS, ["--help"], lambda line: None)
    text = goflags.usage("proxy-agent", AGENT_FLAGS)
    assert "--proxy-server-host string" in text
    assert "--lease-label " not in text


def test_a_value_may_be_the_next_argument() -> None:
    values = goflags.parse(
        SERVER_FLAGS, ["--mode", "http-connect", "-v", "6", "--enable-profiling", "x"], lambda line: None
    )
    assert (values["mode"], values["v"], values["enable_profiling"]) == ("http-connect", 6, True)


@pytest.mark.parametrize(
    ("cert", "key", "message"),
    [
        ("bad.pem", "srv.key", "tls: failed to find any PEM data in certificate input"),
        (
            "srv.key",
            "srv.key",
            "tls: failed to find certificate PEM data in certificate input, but did find a private key; "
            "PEM inputs may have been switched",
        ),
        ("srv.crt", "ca.crt", "tls: found a certificate rather than a key in the PEM for the private key"),
        ("srv.crt", "bad.pem", "tls: failed to find any PEM data in key input"),
        ("srv.crt", "ag.key", "tls: private key does not match public key"),
    ],
)
async def test_unusable_pairs_are_refused_in_gos_words(cert: str, key: str, message: str, directory: Path) -> None:
    arguments = ["--uds-name=x.sock", "--server-port=0", f"--cluster-cert={cert}", f"--cluster-key={key}"]
    with pytest.raises(ServerError) as raised:
        await start("server", arguments, [])
    assert (
        str(raised.value) == f"failed to run the agent server: failed to load X509 key pair {cert} and {key}: {message}"
    )
    with pytest.raises(AgentError) as refused:
        await start("agent", ["--ca-cert=ca.crt", f"--agent-cert={cert}", f"--agent-key={key}"], [])
    assert (
        str(refused.value)
        == f"failed to run proxy connection with failed to load X509 key pair {cert} and {key}: {message}"
    )


async def test_old_tls_is_warned_of(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    arguments = ["--uds-name=x.sock", "--server-port=0", "--cluster-cert=srv.crt", "--cluster-key=srv.key"]
    await start("server", [*arguments, "--tls-min-version=VersionTLS11"], [])
    assert "--tls-min-version=VersionTLS11 is below TLS 1.2 and is considered insecure (RFC 8996)" in caplog.text
