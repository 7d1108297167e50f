"""One life of the simulated ComfyUI process: from start to exit, crash or kill."""

import asyncio
import logging
from collections.abc import Callable

from aiohttp import web

from .executor import Executor
from .machine import Machine
from .memory import Killed
from .middleware import middlewares
from .nodes.base import Classes
from .prompt_queue import PromptQueue
from .sockets import Sockets
from .worker import work

_log = logging.getLogger(__name__)


def _whole(number: float) -> float:
    """The number as JSON shows it where the flag was not given: ComfyUI's default is an int, the flag a float."""
    return int(number) if number.is_integer() else number


class Process:
    """Queue, worker and sockets; everything in it is lost when it ends.

    Args:
        machine: where it runs.
        classes: the node classes.
        on_exit: called with the reason when the process exits by itself.
    """

    def __init__(self, machine: Machine, classes: Classes, on_exit: Callable[[str], None]) -> None:
        self.machine = machine
        self.classes = classes
        self.port = 0
        self.numbers = 0
        """Counts the prompts that came without a number."""
        self.features = {
            "supports_preview_metadata": True,
            "supports_model_type_tags": True,
            "max_upload_size": _whole(machine.config.max_upload_mb * 1024 * 1024),
            "extension": {"manager": {"supports_v4": True}},
            "node_replacements": True,
            "assets": False,
        }
        self.sockets = Sockets(self.features, self.queue_info)
        self.executor = Executor(machine, classes, self.sockets)
        self.queue = PromptQueue(self.sockets.send_status, self._interrupt)
        self.ended = asyncio.Event()
        """Set when the worker has ended, for whatever reason."""
        self._on_exit = on_exit
        self._tasks: list[asyncio.Task[None]] = []

    def queue_info(self) -> dict[str, object]:
        """What GET /prompt answers."""
        return {"exec_info": {"queue_remaining": self.queue.remaining()}}

    def _interrupt(self) -> None:
        self.executor.interrupt.wanted = True

    @property
    def worker_alive(self) -> bool:
        """Whether prompts are still run; the web server does not need it."""
        return bool(self._tasks) and not self._tasks[0].done()

    def start(self) -> None:
        """Start worker and publish loop."""
        worker = asyncio.create_task(self._guarded_work(), name="simulated worker")
        publisher = asyncio.create_task(self.sockets.publish(), name="simulated publish loop")
        publisher.add_done_callback(self._published)
        self._tasks = [worker, publisher]

    async def _guarded_work(self) -> None:
        try:
            await work(self.queue, self.executor, self.sockets, self.machine)
        except Killed as death:
            self._on_exit(str(death))
        except Exception:  # noqa: BLE001  # what kills a worker thread goes to its log and no further
            _log.exception("the simulated worker died")
        finally:
            self.ended.set()

    def _published(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._on_exit(f"publish loop: {task.exception()}")

    async def stop(self) -> None:
        """End worker and publish loop."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def application(self) -> web.Application:
        """An empty application with ComfyUI's middlewares."""
        limit = round(self.machine.config.max_upload_mb * 1024 * 1024)
        return web.Application(client_max_size=limit, middlewares=middlewares(self.machine.config))
