"""kubectl's rules for reading and writing kubeconfig files."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest
import yaml

from bowsprit.client.kubeconfig import Kubeconfig, KubeconfigError, kubeconfig_paths, render
from bowsprit.client.kubeconfig_edit import KubeconfigFile, write_document


def document(name: str, **cluster: object) -> dict[str, object]:
    made = render(name, server=f"https://{name}.example:6443", token=f"token-{name}")
    made["clusters"][0]["cluster"].update(cluster)
    return made


def put(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path


def test_an_explicit_file_is_the_only_one(tmp_path: Path) -> None:
    one, two = put(tmp_path / "one", document("one")), put(tmp_path / "two", document("two"))
    config = Kubeconfig.load(one, {"KUBECONFIG": str(two), "HOME": str(tmp_path)})
    assert list(config.contexts) == ["one"]
    with pytest.raises(KubeconfigError, match="does not exist"):
        Kubeconfig.load(tmp_path / "absent", {})


def test_files_of_the_list_merge_and_the_first_wins(tmp_path: Path) -> None:
    first = put(tmp_path / "first", {**document("a"), "current-context": ""})
    second = put(tmp_path / "second", document("b"))
    overlap = document("a")
    overlap["clusters"][0]["cluster"]["server"] = "https://other"  # type: ignore[index]
    third = put(tmp_path / "third", overlap)
    config = Kubeconfig.load(environ={"KUBECONFIG": f"{first}:{tmp_path / 'missing'}:{second}:{third}:{first}"})
    assert set(config.contexts) == {"a", "b"}
    assert config.current_context == "b"
    assert config.rest_config("a").server == "https://a.example:6443"


def test_without_the_variable_the_file_in_the_home_folder_counts(tmp_path: Path) -> None:
    assert kubeconfig_paths(None, {"HOME": str(tmp_path)}) == [tmp_path / ".kube" / "config"]
    assert Kubeconfig.load(environ={"HOME": str(tmp_path)}).contexts == {}


def test_relative_paths_are_relative_to_their_file(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "ca.pem").write_bytes(b"the CA")
    content = document(
        "a", **{"certificate-authority": "ca.pem", "tls-server-name": "api", "proxy-url": "socks5://h:1"}
    )
    config = Kubeconfig.load(put(tmp_path / "conf" / "config", content)).rest_config()
    assert (config.ca_data, config.tls_server_name, config.proxy_url) == (b"the CA", "api", "socks5://h:1")
    assert config.token == "token-a"
    assert "token-a" not in repr(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"certificate-authority-data": "%%"}, "not base64"),
        ({"certificate-authority": "/absent.pem"}, "unable to read"),
        ({"server": ""}, "no server"),
        ({"insecure-skip-tls-verify": True, "certificate-authority-data": base64.b64encode(b"x").decode()}, "insecure"),
    ],
)
def test_unusable_clusters_are_explained(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(KubeconfigError, match=message):
        Kubeconfig.load(put(tmp_path / "config", document("a", **change))).rest_config()


@pytest.mark.parametrize("text", ["- a list", "a: [", "clusters: 3", "clusters: [{name: x, cluster: 5}]"])
def test_files_that_are_no_kubeconfig_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(KubeconfigError):
        Kubeconfig.load(tmp_path / "config")


def test_asking_for_an_unknown_context_lists_the_known_ones(tmp_path: Path) -> None:
    config = Kubeconfig.load(put(tmp_path / "config", document("a")))
    with pytest.raises(KubeconfigError) as caught:
        config.rest_config("b")
    assert "a" in caught.value.hint


def test_a_new_stanza_goes_to_the_first_existing_file_else_the_last(tmp_path: Path) -> None:
    missing, existing, last = tmp_path / "missing", put(tmp_path / "existing", document("mine")), tmp_path / "last"
    environ = {"KUBECONFIG": f"{missing}:{existing}:{last}"}
    assert KubeconfigFile(environ=environ).set_context("new", {"server": "https://n"}, {"token": "t"}) == existing
    assert not missing.exists()
    assert not last.exists()
    environ = {"KUBECONFIG": f"{missing}:{last}"}
    assert KubeconfigFile(environ=environ).set_context("new", {"server": "https://n"}, {"token": "t"}) == last
    assert Kubeconfig.load(environ=environ).current_context == "new"
    assert stat.S_IMODE(last.stat().st_mode) == 0o600


def test_a_stanza_changes_where_it_lives(tmp_path: Path) -> None:
    first, second = put(tmp_path / "first", document("a")), put(tmp_path / "second", document("b"))
    before = first.read_text()
    file = KubeconfigFile(environ={"KUBECONFIG": f"{first}:{second}"})
    assert file.set_context("b", {"server": "https://moved"}, {"token": "t"}, switch=False) == second
    assert first.read_text() == before
    assert yaml.safe_load(second.read_text())["clusters"] == [{"name": "b", "cluster": {"server": "https://moved"}}]


def test_removing_leaves_other_stanzas_alone(tmp_path: Path) -> None:
    path = put(tmp_path / "config", {**document("theirs"), "preferences": {"colors": True}, "x-unknown": 1})
    theirs = yaml.safe_load(path.read_text())
    file = KubeconfigFile(path)
    file.set_context("ours", {"server": "https://o"}, {"token": "t"})
    assert yaml.safe_load(path.read_text())["current-context"] == "ours"
    assert file.remove_context("ours") == [path]
    assert yaml.safe_load(path.read_text()) == {**theirs, "current-context": ""}
    assert file.remove_context("ours") == []


def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    real = put(tmp_path / "real", document("a"))
    link = tmp_path / "link"
    link.symlink_to(real)
    KubeconfigFile(link).set_context("b", {"server": "https://b"}, {})
    assert link.is_symlink()
    assert "b" in Kubeconfig.load(real).contexts


def test_a_lock_is_waited_for_and_then_named(tmp_path: Path) -> None:
    path = put(tmp_path / "config", document("a"))
    lock = tmp_path / "config.lock"
    lock.touch()
    waits: list[float] = []
    with pytest.raises(KubeconfigError, match=r"config\.lock"):
        KubeconfigFile(path, sleep=waits.append).set_context("b", {}, {})
    assert len(waits) == 10

    def release(delay: float) -> None:
        lock.unlink(missing_ok=True)

    KubeconfigFile(path, sleep=release).set_context("b", {"server": "https://b"}, {})
    assert not lock.exists()


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = put(tmp_path / "config", document("a"))
    before = path.read_bytes()
    with pytest.raises(yaml.YAMLError):
        write_document(path, {"a": object()})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["config"]


def test_a_copied_context_shares_the_user_and_changes_the_cluster(tmp_path: Path) -> None:
    first, second = put(tmp_path / "first", document("a")), put(tmp_path / "second", document("b"))
    environ = {"KUBECONFIG": f"{first}:{second}"}
    file = KubeconfigFile(environ=environ)
    assert file.copy_context("b", "b-socks", {"proxy-url": "socks5://localhost:1080"}) == second
    config = Kubeconfig.load(environ=environ)
    assert config.contexts["b-socks"] == {"cluster": "b-socks", "user": "b"}
    assert config.rest_config("b-socks").proxy_url == "socks5://localhost:1080"
    assert config.current_context == "a"
    file.copy_context("b", "b-socks", {"proxy-url": "socks5://localhost:1081"}, switch=True)
    assert Kubeconfig.load(environ=environ).current_context == "b-socks"
    with pytest.raises(KubeconfigError, match="not ours"):
        file.copy_context("b", "a", {"proxy-url": "socks5://localhost:1080"})
    file.remove_context("b-socks")
    assert set(Kubeconfig.load(environ=environ).users) == {"a", "b"}


def test_a_cluster_change_can_be_undone(tmp_path: Path) -> None:
    path = put(tmp_path / "config", document("a"))
    before = yaml.safe_load(path.read_text())
    file = KubeconfigFile(path)
    previous = file.change_cluster("a", {"proxy-url": "socks5://localhost:1080"})
    assert previous == {"proxy-url": None}
    assert Kubeconfig.load(path).rest_config().proxy_url == "socks5://localhost:1080"
    file.change_cluster("a", previous)
    assert yaml.safe_load(path.read_text()) == before
