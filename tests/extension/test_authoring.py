"""From nothing to a served kind: `extension new`, finding an app, `extension run --dev`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from bowsprit.cli.errors import CommandError
from bowsprit.cli.extension import extension
from bowsprit.cli.main import cli
from bowsprit.extension.errors import ExtensionError
from bowsprit.extension.loading import load_app, source_of
from bowsprit.testing.plugin import RunningCluster

HELLO = '''
from bowsprit.extension import App, Kind, Model

app = App("{group}")


class GreetingSpec(Model):
    text: str = "hello"
    """What to say."""


@app.kind(short_names=["gr"], columns={{"Text": ".spec.text"}})
class Greeting(Kind):
    """A greeting."""

    spec: GreetingSpec = GreetingSpec()
'''


def write(folder: Path, name: str, group: str) -> Path:
    file = folder / name
    file.write_text(HELLO.format(group=group))
    return file


# -- finding an app --------------------------------------------------------------------------------------------------------


def test_a_hello_world_kind_has_at_most_25_lines() -> None:
    assert len(HELLO.strip().splitlines()) <= 25


@pytest.mark.parametrize("spec", ["hello_by_name:app", "hello_by_name.py:app"])
def test_apps_are_found_by_module_and_by_file(tmp_path: Path, spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "hello_by_name.py", "a.example.com")
    monkeypatch.syspath_prepend(str(tmp_path))
    app = load_app(spec, search=tmp_path)
    assert [(each.plural, each.kind) for each in app.resources] == [("greetings", "Greeting")]
    assert source_of(spec, search=tmp_path) == tmp_path / "hello_by_name.py"
    sys.modules.pop("hello_by_name")


def test_apps_are_found_in_the_folder_that_new_makes(tmp_path: Path) -> None:
    (tmp_path / "my-kind").mkdir()
    write(tmp_path / "my-kind", "my_kind.py", "a.example.com")
    assert load_app("my-kind:app", search=tmp_path).name == "a"
    sys.modules.pop("my_kind")


@pytest.mark.parametrize(
    ("source", "spec", "reason", "told"),
    [
        ("", "hello", "InvalidSpec", "does not name an app"),
        ("", "absent_module:app", "ModuleNotFound", "absent_module"),
        ("", "absent.py:app", "ModuleNotFound", "absent.py"),
        ("x = 1", "broken_a:app", "AppNotFound", "no attribute 'app'"),
        ("app = 1", "broken_b:app", "AppNotFound", "a int, not an App"),
        ("import absent_too", "broken_c:app", "ImportFailed", "No module named 'absent_too'"),
        ("app = (", "broken_d:app", "ImportFailed", "SyntaxError"),
        (
            "from bowsprit.extension import App\napp = App('a.example.com')",
            "broken_e:app",
            "InvalidExtension",
            "serves no kind",
        ),
    ],
)
def test_what_cannot_be_loaded_says_why(tmp_path: Path, source: str, spec: str, reason: str, told: str) -> None:
    (tmp_path / f"{spec.partition(':')[0]}.py").write_text(source) if source else None
    with pytest.raises(ExtensionError) as caught:
        load_app(spec, search=tmp_path)
    assert caught.value.reason == reason
    assert told in caught.value.message


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("x = 1\nclass Y(:\n    pass", 2),
        ("import json\n\njson.loads('{')", 3),
        ("from bowsprit.extension import Kind\nclass X: ...\nclass Thing(Kind):\n    x: X", 3),
    ],
)
def test_what_cannot_be_imported_names_the_authors_own_line(tmp_path: Path, source: str, line: int) -> None:
    file = tmp_path / "broken_here.py"
    file.write_text(source)
    with pytest.raises(ExtensionError) as caught:
        load_app("broken_here.py:app", search=tmp_path)
    assert caught.value.hint == f"see {file}:{line}"


# -- new -------------------------------------------------------------------------------------------------------------------


def test_new_makes_four_files_that_serve_and_pass_their_test(
    core: RunningCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = CliRunner()
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(extension, ["new", "my-greeting", "--group", "g.example.com", "--kind", "Greeting"])
    assert result.exit_code == 0
    made = tmp_path / "my-greeting"
    assert sorted(path.name for path in made.iterdir()) == [
        "Containerfile",
        "my_greeting.py",
        "pyproject.toml",
        "test_my_greeting.py",
    ]
    app = load_app("my-greeting:app", search=tmp_path)
    assert [(each.group, each.kind) for each in app.resources] == [("g.example.com", "Greeting")]
    sys.modules.pop("my_greeting")
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--bowsprit-url", str(core.kubeconfig), str(made)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert tested.returncode == 0, tested.stdout
    assert "2 passed" in tested.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["My"], "is no name"),
        (["class"], "cannot be called"),
        (["json"], "cannot be called"),
        (["ok", "--group", "nodot"], "has no dot"),
        (["ok", "--kind", "lower"], "CamelCase"),
    ],
)
def test_new_refuses_names_that_cannot_be_used(
    tmp_path: Path, arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = CliRunner()
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(extension, ["new", *arguments])
    assert isinstance(result.exception, CommandError)
    assert told in result.exception.message


def test_new_leaves_folders_with_content_alone(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine")
    result = CliRunner().invoke(extension, ["new", str(tmp_path / "taken")])
    assert isinstance(result.exception, CommandError)
    assert result.exception.reason == "AlreadyExists"


def test_the_group_lists_commands_without_importing_them() -> None:
    told = CliRunner().invoke(cli, ["extension", "--help"]).output
    for name in ("new", "run", "manifests", "install", "uninstall", "rotate-certs", "doctor"):
        assert f"  {name} " in told


# -- run -------------------------------------------------------------------------------------------------------------------


@contextmanager
def running(
    folder: Path, *arguments: str, kubeconfig: Path
) -> Iterator[tuple[subprocess.Popen[str], Callable[[str], str]]]:
    """`bowsprit extension run …` and a function that waits for a line on its stderr."""
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    log = folder / "stderr"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "bowsprit", "extension", "run", *arguments],
            cwd=folder,
            stderr=stderr,
            env=environment,
            text=True,
        )

    def wait_for(text: str) -> str:
        deadline = time.monotonic() + 40
        while text not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        return log.read_text()

    try:
        yield process, wait_for
    finally:
        process.terminate()
        process.wait(30)


def api_services(core: RunningCluster, group: str) -> list[str]:
    listed = core.kubectl("get", "apiservices", "-o", "json")["items"]
    return [item["metadata"]["name"] for item in listed if item["spec"].get("group") == group]


def test_dev_registers_reloads_and_leaves_nothing(core: RunningCluster, tmp_path: Path) -> None:
    group = "dev.example.com"
    source = write(tmp_path, "devhello.py", group)
    with running(tmp_path, "devhello:app", "--dev", kubeconfig=core.kubeconfig) as (process, wait_for):
        wait_for("is served from this host")
        core.kubectl("apply", "-f", "-", stdin=json.dumps(greeting(group, "one")))
        assert core.kubectl("get", "gr", "one", "-n", "default", "-o", "jsonpath={.spec.text}") == "hello"
        source.write_text(source.read_text().replace('"hello"', '"moin"'))
        wait_for("serving again")
        core.kubectl("apply", "-f", "-", stdin=json.dumps(greeting(group, "two")))
        assert core.kubectl("get", "gr", "two", "-n", "default", "-o", "jsonpath={.spec.text}") == "moin"
        good = source.read_text()
        source.write_text("this is no Python")
        wait_for("waiting for a change of devhello.py")
        assert api_services(core, group) == []
        source.write_text(good + "\n")
        deadline = time.monotonic() + 30
        while not api_services(core, group):
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert api_services(core, group) == []
    assert "devhello" not in core.kubectl("get", "services,endpointslices", "-A", "-o", "name")


def greeting(group: str, name: str) -> dict[str, object]:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": f"{group}/v1", "kind": "Greeting", "metadata": metadata}


def test_run_serves_until_it_is_told_to_end_and_logs_json(core: RunningCluster, tmp_path: Path) -> None:
    write(tmp_path, "plainhello.py", "plain.example.com")
    arguments = (
        "plainhello:app",
        "--secure-port",
        "0",
        "--bind-address",
        "127.0.0.1",
        "--without-admission",
        "--logging-format",
        "json",
    )
    with running(tmp_path, *arguments, kubeconfig=core.kubeconfig) as (process, wait_for):
        told = wait_for("serving plain.example.com/v1 on 127.0.0.1:")
        line = json.loads(next(line for line in told.splitlines() if line.startswith("{")))
        assert (line["level"], line["logger"]) == ("warn", "bowsprit.extension")
        assert "are off: so was asked" in line["msg"]
        process.terminate()
        assert process.wait(30) == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nothere:app"], "ModuleNotFound"),
        (["fine:app", "--kubeconfig", "absent"], "NoCluster"),
        (["fine:app", "--tls-cert-file", "x"], "InvalidOption"),
        (["fine:app", "--store", "paper"], "StoreFailed"),
        (["fine:app", "--store", "paper", "--dev"], "NotStarted"),
    ],
)
def test_run_fails_with_a_reason(core: RunningCluster, tmp_path: Path, arguments: list[str], reason: str) -> None:
    write(tmp_path, "fine.py", "fine.example.com")
    told = subprocess.run(
        [sys.executable, "-m", "bowsprit", "extension", "run", *arguments],
        cwd=tmp_path,
        env={**os.environ, "KUBECONFIG": str(core.kubeconfig)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert told.returncode == 1
    assert f"reason: {reason}" in told.stderr
    assert "Traceback" not in told.stderr
