"""`comfykeep serve` as a process of its own, as systemd would run it."""

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.contract.sockets import PATIENCE

COMFYKEEP = Path(sys.executable).with_name("comfykeep")
NOTIFIED = 4096


class Serving:
    """A process that serves; `said` is its log so far, `told` what it told systemd."""

    def __init__(self, process: asyncio.subprocess.Process, systemd: socket.socket) -> None:
        self.process = process
        self.said: list[str] = []
        self.told: list[str] = []
        self.url = ""
        self._systemd = systemd
        self._news = asyncio.Condition()
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._listen())]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def says(self, pattern: str) -> re.Match[str]:
        """Wait for a line of the log; what matched."""
        return await self._until(self.said, pattern)

    async def tells(self, pattern: str) -> re.Match[str]:
        """Wait for a word to systemd."""
        return await self._until(self.told, pattern)

    async def ends(self) -> int:
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()

    async def close(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        await asyncio.wait_for(self._tasks[0], PATIENCE)
        self._tasks[1].cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _until(self, lines: list[str], pattern: str) -> re.Match[str]:
        def found() -> re.Match[str] | None:
            return next((match for line in lines if (match := re.search(pattern, line))), None)

        try:
            async with asyncio.timeout(PATIENCE), self._news:
                await self._news.wait_for(lambda: found() or self.process.returncode is not None)
        except TimeoutError:
            pass
        match = found()
        assert match, f"no {pattern!r} in:\n" + "\n".join(lines)
        return match

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            await self._note(self.said, line.decode().rstrip())
        await self.process.wait()
        await self._note(self.said, "(ended)")

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            for assignment in (await loop.sock_recv(self._systemd, NOTIFIED)).decode().splitlines():
                await self._note(self.told, assignment)

    async def _note(self, lines: list[str], line: str) -> None:
        async with self._news:
            lines.append(line)
            self._news.notify_all()


@asynccontextmanager
async def serving(
    folder: Path, upstream: str, text: str = "", *, command: Sequence[str] = (str(COMFYKEEP),)
) -> AsyncIterator[Serving]:
    """Serve a ComfyUI with a configuration of `text` besides addresses and journal, which are in `folder`.

    `command` is what starts comfykeep.
    """
    write_config(folder, upstream, text)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(0.0)
        address = folder / "notify"
        address.unlink(missing_ok=True)
        systemd.bind(str(address))
        process = await asyncio.create_subprocess_exec(
            *command,
            "serve",
            "--config",
            str(folder / "proxy.toml"),
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "NOTIFY_SOCKET": str(address)},
        )
        served = Serving(process, systemd)
        try:
            served.url = (await served.says(r"listening on (http://\S+),"))[1]
            yield served
        finally:
            await served.close()


def write_config(folder: Path, upstream: str, text: str) -> None:
    head = f'[upstream]\nurl = "{upstream}"\n[journal]\npath = "{folder}/journal.sqlite3"\n'
    (folder / "proxy.toml").write_text(head + text)
