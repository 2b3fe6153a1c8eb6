"""The kubelet's HTTPS endpoint: logs, exec, and who may ask."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import pytest
from kubelet_pods import NOW, pod

from bowsprit.kubelet.commands import output, run
from bowsprit.kubelet.files import LARGEST, FileError, Files
from bowsprit.kubelet.logs import LogError, LogOptions, lines, render, selected
from bowsprit.kubelet.spdy import Data, FrameReader, FrameWriter, data_frame

Obj = dict[str, Any]


def text(subject: Obj, **query: str) -> str:
    options = LogOptions.from_query(query, NOW)
    chosen = selected(list(lines(subject, "web", options, NOW)), options)
    return b"".join(render(*line, timestamps=options.timestamps) for line in chosen).decode()


def test_a_log_has_its_start_its_lines_and_its_end() -> None:
    started = "container web started (simulated, image nginx)\n"
    assert text(pod(log="hello\nworld")) == started + "hello\nworld\n"
    ticking = pod(**{"log-every": "20s"})
    assert text(ticking) == started + "line 1\nline 2\nline 3\n"
    assert text(ticking, tailLines="1") == "line 3\n"
    assert text(ticking, sinceSeconds="25") == "line 2\nline 3\n"
    assert text(ticking, tailLines="1", timestamps="true") == "2026-01-01T12:01:00.000000000Z line 3\n"
    ended = {"terminated": {"startedAt": "2026-01-01T12:00:00Z", "finishedAt": "2026-01-01T12:00:05Z", "exitCode": 3}}
    assert text(pod(ended)) == started + "container web exited with code 3\n"
    assert text(pod({"waiting": {"reason": "CrashLoopBackOff"}}, ended)).endswith("code 3\n")
    assert text(pod(last=ended), previous="true").endswith("code 3\n")


def test_logs_that_cannot_be_had_say_why() -> None:
    with pytest.raises(LogError, match="is waiting to start: ContainerCreating"):
        text(pod({"waiting": {"reason": "ContainerCreating"}}))
    with pytest.raises(LogError, match="previous terminated container"):
        text(pod(), previous="true")
    with pytest.raises(LogError, match="tailLines"):
        text(pod(), tailLines="x")
    with pytest.raises(LogError, match="not available"):
        lines(pod(), "other", LogOptions(), NOW)


@pytest.mark.parametrize(
    ("command", "stdout", "code"),
    [
        (["echo", "a", "b"], "a b\n", 0),
        (["echo", "-n", "a"], "a", 0),
        (["/bin/hostname"], "p\n", 0),
        (["printenv", "COLOUR"], "red\n", 0),
        (["printenv", "NOPE"], "", 1),
        (["false"], "", 1),
        (["cat", "/etc/hostname"], "p\n", 0),
        (["sh", "-c", "echo one; echo two && false && echo three"], "one\ntwo\n", 1),
        (["sh", "-c", "exit 7; echo no"], "", 7),
        (["sh", "-c", "echo a | cat"], "", 2),
        (["sh", "-c", "'"], "", 2),
        (["nginx", "-t"], "", 126),
        ([], "", 126),
    ],
)
def test_the_few_programs(command: list[str], stdout: str, code: int) -> None:
    result = run(command, pod(), "web", NOW)
    assert (output(result).decode(), result.code) == (stdout, code)
    assert bool(result.stderr) == (code in (2, 126))


async def test_only_the_control_plane_may_ask(kubelet: Any) -> None:
    for organization, code in ((None, 401), ("system:nodes", 401), ("kubeadm:cluster-admins", 200)):
        async with kubelet.session(organization) as client:
            assert (await client.get("/containerLogs/default/p/web")).status == code
            assert (await client.get("/healthz")).status == 200


async def test_logs_over_https(kubelet: Any) -> None:
    async with kubelet.session("system:masters") as client:
        answer = await client.get("/containerLogs/default/p/web", params={"tailLines": "1"})
        assert await answer.text() == "hello\n"
        limited = await client.get("/containerLogs/default/p/web", params={"limitBytes": "9"})
        assert await limited.text() == "container"
        assert (await client.get("/containerLogs/default/nope/web")).status == 404
        assert (await client.get("/containerLogs/default/p/nope")).status == 400
        assert (await client.get("/portForward/default/p")).status == 400
        assert (await client.get("/exec/default/p/web")).status == 400
        assert (await (await client.get("/pods")).json())["items"][0]["metadata"]["name"] == "p"


async def test_exec_over_websocket(kubelet: Any) -> None:
    async with kubelet.session("system:masters") as client:

        async def execute(*command: str, stdin: bytes | None = None) -> tuple[bytes, bytes, Obj]:
            params = [("command", word) for word in command] + ([("input", "1")] if stdin is not None else [])
            channels: dict[int, bytes] = {}
            async with client.ws_connect(
                "/exec/default/p/web", params=params, protocols=["v5.channel.k8s.io"]
            ) as socket:
                if stdin is not None:
                    await socket.send_bytes(b"\0" + stdin)
                    await socket.send_bytes(b"\xff\0")
                async for message in socket:
                    channels[message.data[0]] = channels.get(message.data[0], b"") + message.data[1:]
            return channels.get(1, b""), channels.get(2, b""), json.loads(channels[3])

        assert await execute("echo", "hi") == (b"hi\n", b"", {"metadata": {}, "status": "Success"})
        out, err, status = await execute("nginx")
        assert (out, err) == (b"", b'exec: "nginx": executable file not found in $PATH\n')
        assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "126"}]
        assert (await execute("cat", stdin=b"typed"))[0] == b"typed"


async def test_exec_of_a_client_that_sends_text(kubelet: Any) -> None:
    async with kubelet.session("system:masters") as client:
        query = {"command": "cat", "input": "1"}
        async with client.ws_connect("/exec/default/p/web", params=query, protocols=["v4.channel.k8s.io"]) as socket:
            await socket.send_str("\0typed")
            assert (await socket.receive()).data == b"\1typed"


async def test_ports_are_forwarded_over_websockets(kubelet: Any) -> None:
    request = b"GET /x HTTP/1.1\r\n\r\n"
    async with kubelet.session("system:masters") as client:
        query = [("port", "8080"), ("port", "81")]
        async with client.ws_connect("/portForward/default/p", params=query, protocols=["v4.channel.k8s.io"]) as socket:
            begun = [(await socket.receive()).data for _ in range(4)]
            assert begun == [b"\0\x90\x1f", b"\1\x90\x1f", b"\2\x51\0", b"\3\x51\0"]
            await socket.send_bytes(b"\0" + request)
            answers = {data[0]: data[1:] for data in [(await socket.receive()).data for _ in range(2)]}
            assert answers[0].endswith(b"port 8080: GET /x\n")
            assert b"connection refused" in answers[3]
        tunnel = "SPDY/3.1+portforward.k8s.io"
        async with client.ws_connect("/portForward/default/p", protocols=[tunnel]) as socket:
            assert socket.protocol == tunnel
            writer, reader, got = FrameWriter(), FrameReader(), b""
            for number, sort in ((1, "error"), (3, "data")):
                headers = {"streamType": sort, "port": "8080", "requestID": "0"}
                await socket.send_bytes(writer.syn_stream(number, headers))
            await socket.send_bytes(data_frame(3, request))
            while not got.endswith(b"GET /x\n"):
                got += b"".join(f.data for f in reader.feed((await socket.receive()).data) if isinstance(f, Data))


async def test_files_are_copied_into_containers_and_out_again(kubelet: Any) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("note")
        member.size = 5
        archive.addfile(member, io.BytesIO(b"hello"))
    async with kubelet.session("system:masters") as client:

        async def execute(*command: str, stdin: bytes = b"") -> tuple[bytes, int]:
            query = [*(("command", word) for word in command), ("input", "1")]
            out, code = b"", -1
            async with client.ws_connect(
                "/exec/default/p/web", params=query, protocols=["v5.channel.k8s.io"]
            ) as socket:
                for start in range(0, len(stdin), 4096):
                    await socket.send_bytes(b"\0" + stdin[start : start + 4096])
                await socket.send_bytes(b"\xff\0")
                async for message in socket:
                    if message.data[0] == 1:
                        out += message.data[1:]
                    elif message.data[0] == 3:
                        status = json.loads(message.data[1:])
                        code = int(status["details"]["causes"][0]["message"]) if "details" in status else 0
            return out, code

        assert await execute("tar", "-xmf", "-", "-C", "/tmp/in", stdin=packed.getvalue()) == (b"", 0)
        assert await execute("cat", "/tmp/in/note") == (b"hello", 0)
        assert await execute("ls", "/tmp/in") == (b"note\n", 0)
        out, _ = await execute("tar", "cf", "-", "/tmp/in")
        with tarfile.open(fileobj=io.BytesIO(out)) as archive:
            assert archive.getnames() == ["tmp/in", "tmp/in/note"]
        assert (await execute("tar", "xf", "-", "-C", "/", stdin=b"no archive" * 100))[1] == 1
        assert (await execute("test", "-d", "/tmp/nowhere"))[1] == 1
        assert (await execute("sh", stdin=b"hostname\nexit 4\n")) == (b"p\n", 4)


def test_containers_have_little_room_and_no_way_out() -> None:
    files = Files("p")
    with pytest.raises(FileError, match="No space left"):
        files.write("/tmp/large", b"x" * (LARGEST + 1))
    files.write("../../tmp/../etc/passwd", b"x")
    assert files.names("/etc") == ["hostname", "passwd"]
    assert files.remove("/etc")
    assert not files.is_file("/etc/hostname")
