"""The pytest plugin, used as in its documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

EXAMPLE = """
def test_web(ns, kubectl):
    kubectl("create", "deployment", "web", "--image=nginx", "--replicas=2", "-n", ns)
    kubectl("rollout", "status", "deployment/web", "-n", ns, "--timeout=30s")
    pods = kubectl("get", "pods", "-n", ns, "-o", "json")["items"]
    assert [pod["status"]["phase"] for pod in pods] == ["Running", "Running"]
"""


def test_the_documented_example(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(EXAMPLE)
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_tests_share_a_cluster_unless_they_ask_for_their_own(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        seen = []

        def test_one(cluster, ns):
            seen.append((cluster.kubeconfig, ns))

        def test_two(cluster, ns):
            assert cluster.kubeconfig == seen[0][0]
            assert ns != seen[0][1]

        @pytest.mark.cluster(nodes=5)
        def test_own(cluster, kubectl):
            assert cluster.kubeconfig != seen[0][0]
            assert len(kubectl("get", "nodes", "-o", "json")["items"]) == 5
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=3)


def test_another_cluster_may_be_given(pytester: pytest.Pytester, kubeconfig: Path) -> None:
    pytester.makepyfile(
        f"""
        from pathlib import Path

        def test_foreign(cluster, ns, kubectl):
            assert cluster.kubeconfig == Path({str(kubeconfig)!r})
            assert kubectl("get", "namespace", ns, "-o", "name").strip() == f"namespace/{{ns}}"
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", f"--bowsprit-url={kubeconfig}")
    result.assert_outcomes(passed=1)


def test_failures_of_kubectl_carry_its_words(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import subprocess
        import pytest

        def test_fails(kubectl):
            with pytest.raises(subprocess.CalledProcessError) as failed:
                kubectl("get", "pod", "ghost")
            assert 'pods "ghost" not found' in failed.value.stderr
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
