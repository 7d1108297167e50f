"""Clients as they are: they submit, listen and cancel, and try again when a connection breaks.

Each keeps an account of every prompt: when it was told that the prompt was taken, whether it asked for its end, and
what it heard of it.
"""

import asyncio
import json
import random
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from bench import workflows
from bench.errors import BenchError

BACKLOG = 5
"""Prompts that a client has under way at most."""
_AGAIN = 0.03
"""Seconds until a client whose connection broke tries again."""
_CANCELLED_SHARE = 0.1
_FAILING_SHARE = 0.1
_ENDS = frozenset({"execution_success", "execution_error", "execution_interrupted"})
_OK = 200


@dataclass(slots=True)
class Account:
    """One prompt as its client knows it. Times in Unix seconds.

    Attributes:
        sound: it succeeds when it is run; the others fail.
        accepted: its client was told that it was taken.
        cancelled: its client was told that it is, or may be, taken out.
        heard: the events that told of an end, with the moments.
    """

    prompt_id: str
    sound: bool
    accepted: bool = False
    cancelled: bool = False
    heard: list[tuple[str, float]] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class Span:
    """A socket that was open from `since` to `until`, in Unix seconds."""

    since: float
    until: float


class Client:
    """One client with one socket; `work` it in a task and tell it to `finish`."""

    def __init__(self, url: str, session: aiohttp.ClientSession, chance: random.Random) -> None:
        self.accounts: dict[str, Account] = {}
        self.spans: list[Span] = []
        self._id = uuid.UUID(int=chance.getrandbits(128)).hex
        self._url = url
        self._session = session
        self._chance = chance
        self._closing = asyncio.Event()
        self._room = asyncio.Event()

    def finish(self) -> None:
        """Submit nothing more."""
        self._closing.set()
        self._room.set()

    async def work(self) -> None:
        """Submit and cancel until told to finish."""
        while not self._closing.is_set():
            open_accounts = [each for each in self.accounts.values() if not each.ended.is_set()]
            if len(open_accounts) < BACKLOG:
                await self._submit()
            elif self._chance.random() < _CANCELLED_SHARE:
                await self._cancel(self._chance.choice(open_accounts))
            else:
                self._room.clear()
                await self._room.wait()

    async def _submit(self) -> None:
        account = Account(
            str(uuid.UUID(int=self._chance.getrandbits(128), version=4)), self._chance.random() >= _FAILING_SHARE
        )
        self.accounts[account.prompt_id] = account
        prompt = _prompt(account, self._chance)
        body = {"prompt": prompt, "client_id": self._id, "prompt_id": account.prompt_id}
        answer = await self._insist("/prompt", body)
        if json.loads(answer)["prompt_id"] != account.prompt_id:
            raise BenchError(f"the answer to {account.prompt_id} is another's: {answer}")
        account.accepted = True

    async def _cancel(self, account: Account) -> None:
        account.cancelled = True
        if self._chance.random() < 0.5:  # noqa: PLR2004 - one way or the other
            await self._insist("/queue", {"delete": [account.prompt_id]})
        else:
            await self._insist("/interrupt", {"prompt_id": account.prompt_id})
        await self._look_after([account])

    async def _insist(self, path: str, body: Mapping[str, Any]) -> str:
        """POST until there is an answer.

        Raises:
            BenchError: when it is a refusal.
        """
        while True:
            try:
                async with self._session.post(self._url + path, json=body) as response:
                    text = await response.text()
                    if response.status == _OK:
                        return text
                    if response.status < 500:  # noqa: PLR2004 - the first status for which we are not to blame
                        raise BenchError(f"POST {path} was refused with {response.status}: {text}")
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(_AGAIN)

    async def listen(self) -> None:
        """Follow the events for ever; whenever the socket was closed, look up what may have been missed."""
        while True:
            try:
                async with self._session.ws_connect(f"{self._url}/ws?clientId={self._id}", max_msg_size=0) as socket:
                    since = time.time()
                    await self._look_after(list(self.accounts.values()))
                    try:
                        async for message in socket:
                            if message.type is aiohttp.WSMsgType.TEXT:
                                self._take(json.loads(message.data))
                    finally:
                        self.spans.append(Span(since, time.time()))
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(_AGAIN)

    def _take(self, event: Mapping[str, Any]) -> None:
        kind, data = str(event.get("type")), event.get("data") or {}
        account = self.accounts.get(str(data.get("prompt_id")))
        if account is not None and kind in _ENDS:
            account.heard.append((kind, time.time()))
            self._close(account)

    async def _look_after(self, accounts: Sequence[Account]) -> None:
        """Ask for what events did not tell."""
        for account in accounts:
            if account.accepted and not account.ended.is_set() and await self._is_over(account):
                self._close(account)

    async def _is_over(self, account: Account) -> bool:
        try:
            async with self._session.get(f"{self._url}/history/{account.prompt_id}") as response:
                if account.prompt_id in json.loads(await response.text()):
                    return True
            async with self._session.get(f"{self._url}/queue") as response:
                queue = json.loads(await response.text())
        except (aiohttp.ClientError, ValueError):
            return False
        listed = {item[1] for items in queue.values() for item in items}
        return account.cancelled and account.prompt_id not in listed

    def _close(self, account: Account) -> None:
        account.ended.set()
        self._room.set()


def _prompt(account: Account, chance: random.Random) -> dict[str, Any]:
    """A workflow that saves a file under the prompt's id, or fails."""
    prompt = chance.choice((workflows.sdxl, workflows.flux, workflows.sd15_with_lora))(chance.getrandbits(32))
    shown = next(node for node in prompt.values() if node["class_type"] == "PreviewImage")
    images = shown["inputs"]["images"]
    if account.sound:
        shown.update(class_type="SaveImage", inputs={"images": images, "filename_prefix": account.prompt_id})
    else:
        prompt["900"] = {"class_type": "FakeRaise", "inputs": {"value": images, "mode": "error"}}
        shown["inputs"]["images"] = ["900", 0]
    for node in prompt.values():
        if node["class_type"] == "EmptyLatentImage":
            node["inputs"].update(width=512, height=512)
    return prompt
