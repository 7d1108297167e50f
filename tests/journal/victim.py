"""A process that writes to a journal as fast as it can until it is killed, and says what it did as it does it.

Lines on standard output, each written before the next step begins::

    try N       prompt N is about to be accepted
    accepted N  `accept` returned
    running N   its update was awaited
    ended N     and so was this one
"""

import asyncio
import os
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from proxy.journal import Journal
from proxy.journal_records import Sync, Update
from tests.journal.support import body_of, record

CLIENTS = 8


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def client(journal: Journal, numbers: Iterator[int]) -> None:
    """Accept prompts; every other one is run, of these every other one ends."""
    while True:
        number = next(numbers)
        say("try", number)
        await journal.accept(record(number, body=body_of(number)))
        say("accepted", number)
        if number % 2:
            await journal.update(Update(prompt_id=f"p{number}", state="running", attempts=1))
            say("running", number)
        if number % 4 == 1:
            await journal.update(Update(prompt_id=f"p{number}", finished=float(number), history=body_of(number)))
            say("ended", number)


async def main(path: str, sync: str) -> None:
    """Run until killed."""
    async with await Journal.open(Path(path), Sync(sync)) as journal, asyncio.TaskGroup() as clients:
        numbers = count((await journal.load()).next_sequence)
        for _ in range(CLIENTS):
            clients.create_task(client(journal, numbers))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
