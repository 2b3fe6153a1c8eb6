"""What agents and servers tell each other in headers, and what is made of nonsense."""

from __future__ import annotations

import pytest

from bowsprit.konnectivity.negotiation import identity, introduction, peer_window, probe_interval
from bowsprit.net.egress.packets import PROBE_HEADER, WINDOW_HEADER


@pytest.mark.parametrize(
    ("announced", "window"),
    [
        ([], None),
        (["2097152"], 2_097_152),
        (["9999999999"], 64 * 1024 * 1024),
        (["0"], None),
        (["-1"], None),
        (["1e6"], None),
        (["²"], None),
        (["٣"], None),
        (["99999999999"], None),
        (["1", "2"], None),
    ],
)
def test_the_window_of_a_peer_of_ours(announced: list[str], window: int | None) -> None:
    assert peer_window([("agentid", "a"), *((WINDOW_HEADER, value) for value in announced)]) == window


@pytest.mark.parametrize(("announced", "seconds"), [("", 1.0), ("250", 0.25), ("1", 0.1), ("x", 1.0), ("60000", 60.0)])
def test_how_often_an_agent_of_ours_pings(announced: str, seconds: float) -> None:
    assert probe_interval([(PROBE_HEADER, announced)]) == seconds


def test_a_server_introduces_itself() -> None:
    assert introduction([("serverid", "s"), ("servercount", "+3")]) == ("s", 3)


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ([("servercount", "1")], "expected one server ID in the context, got []"),
        (
            [("serverid", "s"), ("serverid", "t"), ("servercount", "1")],
            "expected one server ID in the context, got [s t]",
        ),
        ([("serverid", "s")], "expected one server count, got 0"),
        ([("serverid", "s"), ("servercount", "1_0")], 'strconv.Atoi: parsing "1_0": invalid syntax'),
        ([("serverid", "s"), ("servercount", "9" * 20)], f'strconv.Atoi: parsing "{"9" * 20}": value out of range'),
    ],
)
def test_a_server_that_does_not_is_refused(headers: list[tuple[str, str]], text: str) -> None:
    with pytest.raises(ValueError) as raised:
        introduction(headers)
    assert str(raised.value) == text


def test_an_agent_says_who_it_is() -> None:
    agent_id, found = identity([("agentid", "a"), ("agentidentifiers", "host=h&default-route=true")])
    assert (agent_id, list(found.destinations), found.default_route) == ("a", ["h"], True)
    with pytest.raises(ValueError, match=r"expected one agent ID in the context, got \[a b\]"):
        identity([("agentid", "a"), ("agentid", "b")])
