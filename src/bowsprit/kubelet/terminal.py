"""A line-by-line shell over the streams of an exec or attach: enough to look around in a simulated container."""

from __future__ import annotations

from collections.abc import Callable

from bowsprit.kubelet.commands import Result, output
from bowsprit.kubelet.upgrade import STDERR, STDOUT, Channels

_PROMPT = b"/ # "
_LONGEST_LINE = 64 << 10


async def converse(channels: Channels, execute: Callable[[str], Result], *, tty: bool) -> int:
    """Run the lines of standard input until it ends or one says ``exit``; gives the exit code."""
    shell = _Shell(channels, execute, tty=tty)
    await shell.prompt()
    while not shell.over:
        data = await channels.read()
        if not data:
            if shell.line and not tty:
                await shell.run()
            break
        await shell.take(data)
    return shell.code


class _Shell:
    def __init__(self, channels: Channels, execute: Callable[[str], Result], *, tty: bool) -> None:
        self._channels = channels
        self._execute = execute
        self._tty = tty
        self.line = bytearray()
        self.code = 0
        self.over = False

    async def prompt(self) -> None:
        if self._tty and not self.over:
            await self._channels.write(STDOUT, _PROMPT)

    async def take(self, data: bytes) -> None:
        """The line discipline of a terminal: echo, backspace, ^C, ^D."""
        for byte in data:
            if self.over:
                return
            if byte in b"\r\n":
                await self._echo(b"\r\n")
                await self.run()
                await self.prompt()
            elif self._tty and byte in b"\x7f\x08":
                if self.line:
                    self.line.pop()
                    await self._echo(b"\b \b")
            elif self._tty and byte == 3:
                self.line.clear()
                await self._echo(b"^C\r\n")
                await self.prompt()
            elif self._tty and byte == 4:
                self.over = not self.line
            elif len(self.line) < _LONGEST_LINE:
                self.line.append(byte)
                await self._echo(bytes([byte]))

    async def run(self) -> None:
        """Run the line."""
        text, self.line = self.line.decode("utf-8", "replace").strip(), bytearray()
        if not text:
            return
        result = self._execute(text)
        self.over = text.split()[0] == "exit"
        self.code = result.code
        out, err = output(result), result.stderr.encode()
        if self._tty:
            out, err = (out + err).replace(b"\n", b"\r\n"), b""
        await self._channels.write(STDOUT, out)
        await self._channels.write(STDERR, err)

    async def _echo(self, data: bytes) -> None:
        if self._tty:
            await self._channels.write(STDOUT, data)
