"""proxy-server and proxy-agent as processes: flags, klog lines on stderr, signals, exit codes."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import uvloop

from bowsprit.konnectivity import goflags
from bowsprit.konnectivity.agent import AgentError, ProxyAgent
from bowsprit.konnectivity.agentoptions import AGENT_FLAGS, AgentOptions
from bowsprit.konnectivity.goflags import Flag, FlagError, HelpRequestedError
from bowsprit.konnectivity.govalues import Value
from bowsprit.konnectivity.server import ProxyServer, ServerError
from bowsprit.konnectivity.serveroptions import SERVER_FLAGS, ServerOptions

log = logging.getLogger("bowsprit.konnectivity")

_SERVER_TEXT = "A gRPC proxy server, receives requests from the API server and forwards to the agent."
_AGENT_TEXT = "A gRPC agent, Connects to the proxy and then allows traffic to be forwarded to it."
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class _KlogFormatter(logging.Formatter):
    """``I1123 10:45:13.123456   12345 server.py:44] message``."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%m%d %H:%M:%S", time.localtime(record.created))
        micro = int(record.created % 1 * 1e6)
        head = f"{record.levelname[0]}{moment}.{micro:06d} {os.getpid():7d} {record.filename}:{record.lineno}]"
        text = f"{head} {record.getMessage()}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def run_server(arguments: Sequence[str]) -> int:
    """The server until it is told to stop; answers the exit code."""
    return _run("proxy-server", _SERVER_TEXT, SERVER_FLAGS, arguments, _serve, ServerError)


def run_agent(arguments: Sequence[str]) -> int:
    """The agent until it is told to stop; answers the exit code."""
    return _run("proxy-agent", _AGENT_TEXT, AGENT_FLAGS, arguments, _attend, AgentError)


def _run(
    program: str,
    text: str,
    flags: Sequence[Flag],
    arguments: Sequence[str],
    main: Callable[[dict[str, Value]], Coroutine[Any, Any, int]],
    failure: type[Exception],
) -> int:
    _log_to_stderr(2)
    try:
        values = goflags.parse(flags, arguments, lambda line: print(line, file=sys.stderr))
        verbosity = values["v"]
        _log_to_stderr(verbosity if isinstance(verbosity, int) else 4)
        return uvloop.run(main(values))
    except HelpRequestedError:
        print(f"{text}\n\n{goflags.usage(program, flags)}", end="")
        return 0
    except (FlagError, failure) as exc:
        print(f"Error: {exc}\n{goflags.usage(program, flags)}", file=sys.stderr)
        log.error("error: %s", exc)
        return 1
    except KeyboardInterrupt:
        return 130


def _log_to_stderr(verbosity: int) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_KlogFormatter())
    root = logging.getLogger()
    for old in list(root.handlers):  # ours of the first call, and that of the command line: one line per event
        if isinstance(old, logging.StreamHandler) and old.stream is sys.stderr:
            root.removeHandler(old)
    root.addHandler(handler)
    level = logging.DEBUG if verbosity >= 6 else logging.INFO if verbosity >= 1 else logging.WARNING
    logging.getLogger("bowsprit").setLevel(level)


async def _serve(values: dict[str, Value]) -> int:
    server = ProxyServer(ServerOptions.from_flags(values))
    signalled = _signals()
    await server.start()
    log.info("server %r: agents on port %d, health on port %d", server.server_id, server.agent_port, server.health_port)
    await signalled.get()
    log.info("Shutting down server.")
    stopping = asyncio.ensure_future(server.stop())
    again = asyncio.ensure_future(signalled.get())
    done, _ = await asyncio.wait({stopping, again}, return_when=asyncio.FIRST_COMPLETED)
    again.cancel()
    if stopping not in done:
        stopping.cancel()
        return 1  # second signal: upstream exits with 1
    return 0


async def _attend(values: dict[str, Value]) -> int:
    """The first signal drains, then the agent ends by itself (upstream's waits for a second one for ever)."""
    agent = ProxyAgent(AgentOptions.from_flags(values))
    signalled = _signals()
    await agent.start()
    log.info(
        "agent %r: server at %s:%d", agent.agent_id, agent.options.proxy_server_host, agent.options.proxy_server_port
    )
    await signalled.get()
    log.info("draining %d connections", agent.connections)
    draining = asyncio.ensure_future(agent.drain())
    again = asyncio.ensure_future(signalled.get())
    await asyncio.wait({draining, again}, return_when=asyncio.FIRST_COMPLETED)
    for task in (draining, again):
        task.cancel()
    log.info("Shutting down agent.")
    await agent.stop()
    return 0


def _signals() -> asyncio.Queue[int]:
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=16)
    loop = asyncio.get_running_loop()

    def received(number: int) -> None:
        if not queue.full():
            queue.put_nowait(number)

    for number in _SIGNALS:
        loop.add_signal_handler(number, received, number)
    return queue
