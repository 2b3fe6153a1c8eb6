"""Flags are read as kube-scheduler reads them."""

from __future__ import annotations

import pytest

from bowsprit.cli.main import main
from bowsprit.scheduler.config import load
from bowsprit.scheduler.featuregates import parse_gates


def run(capsys, *args):
    with pytest.raises(SystemExit) as stop:
        main(["scheduler", *map(str, args)])
    return stop.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (
            "--leader-elect=maybe",
            'invalid argument "maybe" for "--leader-elect" flag: strconv.ParseBool: parsing "maybe": invalid syntax',
        ),
        ("--secure-port=x", 'invalid argument "x" for "--secure-port" flag: strconv.ParseInt: parsing "x"'),
        ("--kube-api-qps=a", 'invalid argument "a" for "--kube-api-qps" flag: strconv.ParseFloat: parsing "a"'),
        ("-v=x", 'invalid argument "x" for "-v, --v" flag: strconv.ParseUint: parsing "x": invalid syntax'),
        ("--bind-address=zz", 'invalid argument "zz" for "--bind-address" flag: failed to parse IP: "zz"'),
        ("--leader-elect-lease-duration=abc", 'flag: time: invalid duration "abc"'),
        ("--vmodule=x", '"x" does not have the pattern=N format'),
        ("--secure-port=99999", "--secure-port 99999 must be between 1 and 65535, inclusive."),
        ("--secure-port=-1", "--secure-port -1 must be between 0 and 65535, inclusive."),
        ("--emulated-version=9.9", "emulation version 9.9 is not between [1.33, 1.36.0]"),
        ("--show-hidden-metrics-for-version=1.30", "must be omitted or have the value '1.35'"),
        ("--logging-format=xml", 'format: Invalid value: "xml": Unsupported log format'),
        ("--write-config-to=/nowhere/x", "open /nowhere/x: no such file or directory"),
        ("--master=:::", "server ':::': the scheme must be https or http"),
    ],
)
def test_wrong_values_are_refused(capsys, flag, message):
    code, err = run(capsys, flag, "--secure-port=0") if "secure-port" not in flag else run(capsys, flag)
    assert code == 1
    assert message in err


def test_switches_need_no_value(capsys, tmp_path):
    target = tmp_path / "out.yaml"
    code, err = run(capsys, "--leader-elect", "--leader-elect-lease-duration=60s", "--write-config-to", target)
    assert (code, err) == (0, "")
    election = load(target.read_text())[0]["leaderElection"]
    assert (election["leaderElect"], election["leaseDuration"]) == (True, "1m0s")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["A"], "missing bool value for A"),
        (["A=x"], 'invalid value of A=x, err: strconv.ParseBool: parsing "x": invalid syntax'),
        (["wardle:A=true"], "component not registered: wardle"),
        (["A=true,kube:B=true"], "do not mix use"),
        (["SchedulerQueueingHints=false"], "feature is locked to true"),
        (["GangScheduling=true"], "depends on features that are disabled: [GenericWorkload]"),
    ],
)
def test_wrong_gates_are_refused(texts, message):
    with pytest.raises(ValueError, match=r"[a-z]") as refused:
        parse_gates(texts)
    assert message in str(refused.value)


def test_gates_may_be_given_several_times():
    assert parse_gates(["A=true", "B=F"]) == {"A": True, "B": False}
    assert parse_gates(["kube:A=1", "kube:GenericWorkload=t,kube:GangScheduling=true"]) == {
        "A": True, "GenericWorkload": True, "GangScheduling": True,
    }  # fmt: skip


def test_unknown_gates_are_named(capsys, tmp_path):
    code, err = run(capsys, "--feature-gates=Foo=true", "--write-config-to", tmp_path / "out.yaml")
    assert code == 0
    assert "feature gate Foo changes nothing here" in err
