"""Router and tunnel joined by queues, under random interleavings: nothing leaks, no byte is lost or strays."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bowsprit.konnectivity.backends import Backends, Strategy
from bowsprit.konnectivity.identifiers import Identifiers
from bowsprit.konnectivity.links import HIGH_WATER, Backend, DialFailure, Frontend, Link
from bowsprit.konnectivity.router import Router
from bowsprit.konnectivity.tunnel import Endpoint, Tunnel
from bowsprit.net.egress import packets
from bowsprit.net.egress.packets import Packet, PacketType

WINDOW = 2500


class Silent:
    def dial_failed(self, failure: DialFailure) -> None: ...

    def dialled(self, seconds: float) -> None: ...

    def frontend_wrote(self, seconds: float) -> None: ...

    def connection_ended(self, seconds: float) -> None: ...


class Timer:
    def cancel(self) -> None: ...


@dataclass
class Wire:
    """One direction of the agent's stream."""

    queue: deque[bytes] = field(default_factory=deque)
    held: bool = False
    retired: bool = False

    @property
    def backlog(self) -> int:
        return sum(map(len, self.queue))

    def send(self, packet: Packet) -> None:
        self.queue.append(packet.encode())

    def send_data(self, connect_id: int, data: bytes | memoryview) -> None:
        self.queue.append(packets.data_header(connect_id, len(data)) + bytes(data))

    def hold(self, on: bool) -> None:
        self.held = on

    def retire(self) -> None:
        self.retired = True


class Client:
    """An HTTP CONNECT client."""

    half_close = True

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.frontend = Frontend(self, tunnel=True)
        self.sent = b""
        self.got = b""
        self.waiting: deque[tuple[Link, bytes]] = deque()
        self.stalled = False
        self.paused = False
        self.up = False
        self.over = False
        self.left = False  # it went by itself, and does not want the rest
        self.eof_sent = False
        self.refusal: DialFailure | None = None

    @property
    def backlog(self) -> int:
        return sum(len(data) for _, data in self.waiting)

    def established(self, packet: Packet) -> None:
        self.up = True

    def refused(self, failure: DialFailure, packet: Packet) -> None:
        self.refusal = failure
        self.over = True

    def deliver(self, link: Link, packet: Packet) -> None:
        self.waiting.append((link, packet.data))
        self.flush()

    def flush(self) -> None:
        while self.waiting and not self.stalled:
            link, data = self.waiting.popleft()
            self.got += data
            self.world.router.delivered(link, len(data))

    def send(self, packet: Packet) -> None:
        self.over = True

    def end_of_data(self) -> None: ...

    def closed(self, packet: Packet) -> None:
        self.over = True

    def accepted(self, size: int) -> None:
        if not any(link.queue for link in self.frontend.links.values()):
            self.paused = False

    def write(self, size: int) -> None:
        if self.up and not self.over and not self.paused and not self.eof_sent:
            data = self.world.pattern(self.number, len(self.sent), size)
            self.sent += data
            if not self.world.router.frontend_bytes(self.frontend, memoryview(data)):
                self.paused = True


class Target:
    """An endpoint's connection."""

    def __init__(self, world: World, endpoint: Endpoint) -> None:
        self.world = world
        self.endpoint = endpoint
        self.number = int(endpoint.address.rpartition(":")[2])
        self.got = b""
        self.sent = b""
        self.waiting: deque[bytes] = deque()
        self.stalled = False
        self.paused = False
        self.finishing = False
        self.gone = False
        self.eof_sent = False

    @property
    def backlog(self) -> int:
        return sum(map(len, self.waiting))

    def write(self, data: bytes) -> None:
        self.waiting.append(data)
        self.flush()

    def flush(self) -> None:
        while self.waiting and not self.stalled:
            data = self.waiting.popleft()
            self.got += data
            self.world.tunnel.consumed(self.endpoint, len(data))
        if self.finishing and not self.waiting:
            self.lose()

    def write_eof(self) -> None: ...

    def finish(self) -> None:
        self.finishing = True
        self.flush()

    def abort(self) -> None:
        self.waiting.clear()
        self.lose()

    def lose(self) -> None:
        if not self.gone:
            self.gone = True
            self.world.tunnel.lost(self.endpoint)

    def pause(self, on: bool) -> None:
        self.paused = on

    def speak(self, size: int) -> None:
        if not (self.gone or self.paused or self.eof_sent or self.finishing):
            data = self.world.pattern(self.number + 128, len(self.sent), size)
            self.sent += data
            self.world.tunnel.endpoint_data(self.endpoint, memoryview(data))


class World:
    def __init__(self, extended: bool, buffer_limit: int = 1 << 20) -> None:
        window = WINDOW if extended else None
        self.timers: list[Callable[[], None]] = []

        def schedule(delay: float, action: Callable[[], None]) -> Timer:
            self.timers.append(action)
            return Timer()

        backends = Backends([Strategy.DEFAULT], lambda options: options[0])
        self.router = Router(
            backends, Silent(), clock=lambda: 0.0, schedule=schedule, window=WINDOW, buffer_limit=buffer_limit
        )
        self.to_agent, self.to_server = Wire(), Wire()
        self.backend = Backend(self.to_agent, "a", Identifiers(), 0.0, window)
        self.router.agent_connected(self.backend)
        self.pending: list[Endpoint] = []
        self.tunnel = Tunnel(
            self.to_server, self.pending.append, schedule, peer_window=window, window=WINDOW, buffer_limit=buffer_limit
        )
        self.clients: list[Client] = []
        self.targets: dict[int, Target] = {}

    @staticmethod
    def pattern(number: int, offset: int, size: int) -> bytes:
        return bytes((number * 7 + offset + index) % 251 for index in range(size))

    def dial(self) -> None:
        client = Client(self, len(self.clients))
        self.clients.append(client)
        packet = Packet(PacketType.DIAL_REQ, protocol="tcp", address=f"h:{client.number}", random=client.number + 1)
        self.router.dial(client.frontend, packet.random, packet.address, packet)

    def answer(self, good: bool) -> None:
        if self.pending:
            endpoint = self.pending.pop(0)
            if good:
                target = self.targets[int(endpoint.address.rpartition(":")[2])] = Target(self, endpoint)
                self.tunnel.dialled(endpoint, target)
            else:
                self.tunnel.dial_failed(endpoint, "connection refused")

    def deliver(self, to_agent: bool) -> bool:
        wire = self.to_agent if to_agent else self.to_server
        if not wire.queue:
            return False
        packet = packets.decode(wire.queue.popleft())
        if to_agent:
            self.tunnel.packet(packet)
            self.router.agent_writable(self.backend)
        else:
            self.router.agent_packet(self.backend, packet)
            self.tunnel.writable()
        return True

    def settle(self) -> None:
        for each in (*self.clients, *self.targets.values()):
            each.stalled = False
            each.flush()
        while self.deliver(True) or self.deliver(False) or self.pending or self.timers:
            self.answer(True)
            timers, self.timers = self.timers, []
            for timer in timers:
                timer()

    def act(self, what: str, index: int, size: int) -> None:
        client = self.clients[index % len(self.clients)] if self.clients else None
        target = self.targets.get(client.number) if client else None
        if what == "dial":
            self.dial()
        elif what in ("answer", "refuse"):
            self.answer(what == "answer")
        elif what in ("to_agent", "to_server"):
            for _ in range(1 + index % 5):
                self.deliver(what == "to_agent")
        elif client is not None and what in ("write", "burst"):
            for _ in range(3 if what == "burst" else 1):
                client.write(size)
        elif client is not None and what == "client_stall":
            client.stalled = not client.stalled
            client.flush()
        elif client is not None and what == "client_eof" and client.up and not client.over and not client.eof_sent:
            client.eof_sent = True
            self.router.frontend_eof(client.frontend)
            client.over = client.left = not client.frontend.links
        elif client is not None and what == "client_gone" and not client.over:
            client.over = client.left = True
            self.router.frontend_gone(client.frontend)
        elif target is not None and not target.gone:
            if what in ("speak", "shout"):
                for _ in range(3 if what == "shout" else 1):
                    target.speak(size)
            elif what == "target_stall":
                target.stalled = not target.stalled
                target.flush()
            elif what == "target_eof" and not target.eof_sent:
                target.eof_sent = True
                self.tunnel.endpoint_eof(target.endpoint)
            elif what == "target_lost":
                target.lose()


ACTIONS = [
    *("burst", "shout", "write", "speak", "answer", "to_agent", "to_server") * 3,
    *("client_gone", "client_stall", "target_stall") * 2,
    *("dial", "refuse", "client_eof", "target_eof", "target_lost"),
]
STEPS = st.lists(
    st.tuples(st.sampled_from(ACTIONS), st.integers(0, 3), st.sampled_from([1, 600, 1500, 3000])),
    min_size=15,
    max_size=80,
)


def check_streams(world: World) -> None:
    for client in world.clients:
        target = world.targets.get(client.number)
        if target is not None:
            assert client.sent.startswith(target.got)
            assert target.sent.startswith(client.got)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(
    [*[("burst", 0, 1)] * 11, ("burst", 0, 1500), ("shout", 0, 1500), ("client_gone", 0, 1), ("target_lost", 0, 1)],
    True,
)  # both ends go while each still has more for the other than the other has granted
@given(STEPS, st.booleans())
def test_no_leak_no_lost_byte_no_cross_talk(steps: list[tuple[str, int, int]], extended: bool) -> None:
    world = World(extended)
    for _ in range(2):
        world.dial()
    world.settle()
    for step in steps:
        world.act(*step)
        check_streams(world)
        for target in world.targets.values():
            if extended:
                assert target.endpoint.unwritten <= WINDOW + 3000
    lost = {number for number, target in world.targets.items() if target.gone or target.eof_sent}
    world.settle()
    check_streams(world)
    for client in world.clients:
        target = world.targets.get(client.number)
        if target is None or not client.up:
            continue
        # Both ends were let go on to the end: what one said before it went, and the other waited for, has arrived.
        if client.number not in lost:
            assert target.got == client.sent
        if not client.left:
            assert client.got == target.sent
    for client in world.clients:
        if not client.over:
            client.over = True
            world.router.frontend_gone(client.frontend)
    world.settle()
    assert not world.router.dials
    assert not world.backend.links
    assert not world.backend.dials
    assert not world.tunnel.endpoints
    assert not world.tunnel.dialling
    assert all(target.gone for target in world.targets.values())


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS, st.booleans())
def test_losing_the_agent_ends_everything_at_once(steps: list[tuple[str, int, int]], extended: bool) -> None:
    world = World(extended)
    for step in steps:
        world.act(*step)
    world.to_agent.queue.clear()
    world.to_server.queue.clear()
    world.router.agent_gone(world.backend)
    world.tunnel.end()
    for endpoint in world.pending:
        world.tunnel.dialled(endpoint, Target(world, endpoint))
    for target in world.targets.values():
        target.stalled = False
        target.flush()
    assert all(client.over for client in world.clients)
    assert not world.router.dials
    assert not world.backend.links
    assert not world.tunnel.endpoints
    assert len(world.router.backends) == 0
    check_streams(world)


@settings(max_examples=50, deadline=None)
@given(STEPS)
def test_a_stalled_client_never_stops_the_others(steps: list[tuple[str, int, int]]) -> None:
    world = World(extended=True)
    world.dial()
    world.settle()
    stalled = world.clients[0]
    stalled.stalled = True
    for _ in range(30):
        world.targets[0].speak(1000)
        while world.deliver(True) or world.deliver(False):
            pass
    assert stalled.frontend.links[1].undelivered <= WINDOW + 1000
    world.dial()
    while world.deliver(True) or world.deliver(False) or world.pending:
        world.answer(True)
    for _, _, size in steps:
        world.clients[1].write(size)
        world.targets[1].speak(size)
        while world.deliver(True) or world.deliver(False):
            pass
    assert world.targets[1].got == world.clients[1].sent
    assert world.clients[1].got == world.targets[1].sent


def test_data_queued_for_want_of_credit_arrives_although_the_client_has_left() -> None:
    world = World(extended=True)
    world.dial()
    world.settle()
    world.targets[0].stalled = True
    for _ in range(3):
        world.clients[0].write(2000)
    assert world.clients[0].paused
    world.act("client_gone", 0, 1)
    assert world.backend.links[1].queue
    world.settle()
    assert world.targets[0].got == world.clients[0].sent
    assert not world.backend.links


def test_what_an_endpoint_said_before_it_died_arrives_although_it_had_no_credit() -> None:
    world = World(extended=True)
    world.dial()
    world.settle()
    world.clients[0].stalled = True
    for _ in range(3):
        world.targets[0].speak(2000)
    assert world.targets[0].paused
    world.targets[0].lose()
    world.settle()
    assert world.clients[0].got == world.targets[0].sent
    assert not world.tunnel.endpoints


def test_slow_peers_are_not_cut_while_they_take_something() -> None:
    """Behind plain programs, which cannot be told to hold one connection back."""
    world = World(extended=False, buffer_limit=5000)
    world.dial()
    world.settle()
    client, target = world.clients[0], world.targets[0]
    client.stalled = target.stalled = True
    for _ in range(3):
        target.speak(3000)
        client.write(3000)
    while world.deliver(True) or world.deliver(False):
        pass
    assert world.to_agent.held
    assert world.to_server.held
    for taken in (client, target):
        # One byte goes, though the port has not reported it: what is left of the first item stays queued.
        first = taken.waiting[0]
        taken.waiting[0] = (first[0], first[1][1:]) if isinstance(first, tuple) else first[1:]
    timers, world.timers = world.timers, []
    for timer in timers:
        timer()
    while world.deliver(True) or world.deliver(False):
        pass
    assert not client.over
    assert not target.gone

    for timer in world.timers:
        timer()
    while world.deliver(True) or world.deliver(False):
        pass
    assert client.over
    assert target.gone
    assert not world.to_agent.held
    assert not world.backend.links


def test_an_agent_that_takes_nothing_is_avoided_and_then_retired() -> None:
    world = World(extended=False)
    world.dial()
    world.settle()
    for _ in range(3):
        world.clients[0].write(HIGH_WATER)
    assert world.clients[0].paused
    other = Backend(Wire(), "b", Identifiers(), 0.0, None)
    other.links = dict.fromkeys(range(5), world.backend.links[1])
    world.router.agent_connected(other)
    assert world.router.backends.pick("h:1") is other

    world.deliver(True)
    world.clients[0].write(HIGH_WATER)
    (timer,) = world.timers
    timer()  # it has taken something
    assert not world.to_agent.retired
    _, timer = world.timers
    timer()
    assert world.to_agent.retired
    assert "agent 'a' retired" in world.router.last_errors[-1]


def test_what_an_endpoint_says_at_once_waits_until_a_plain_servers_client_knows_of_the_dial() -> None:
    world = World(extended=False)
    world.dial()
    world.dial()
    world.deliver(True)
    world.deliver(True)
    world.answer(True)
    world.answer(True)
    for target in world.targets.values():
        target.speak(100)
    world.targets[1].eof_sent = True
    world.tunnel.endpoint_eof(world.targets[1].endpoint)
    assert [packets.decode(raw).type for raw in world.to_server.queue] == [PacketType.DIAL_RSP, PacketType.DIAL_RSP]
    while world.deliver(False):
        pass
    world.clients[0].write(1)  # it knows
    world.deliver(True)
    assert [packets.decode(raw).type for raw in world.to_server.queue] == [PacketType.DATA]
    for timer in world.timers:
        timer()
    assert [packets.decode(raw).type for raw in world.to_server.queue] == [
        PacketType.DATA,
        PacketType.DATA,
        PacketType.CLOSE_RSP,
    ]
    world.settle()
    assert world.clients[0].got == world.targets[0].sent
    assert world.clients[1].got == world.targets[1].sent
