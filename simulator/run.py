"""Runs the nodes of one prompt.

Behaviour and order of events from ComfyUI execution.py, `execute`.
"""

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from .cache import Cache, CacheEntry
from .call import Interrupt, NodeCall
from .config import NodeStart
from .events import Events
from .graph import DynamicPrompt, ExecutionBlocker, is_link
from .invoke import Gathered, Returned, blocker_in, gather, merge_results, merge_returns, slices, start
from .machine import Machine
from .memory import DeviceOutOfMemoryError
from .nodes.base import Classes, Interrupted, Node
from .progress import Progress
from .topology import ExecutionList

_OOM_TIPS = (
    "This error means you ran out of memory on your GPU.\n\n"
    "TIPS: If the workflow worked before you might have accidentally set the batch_size to a large number."
)


PREVIEW_METHODS = ("none", "auto", "latent2rgb", "taesd")


class Result(Enum):
    """How it went with a node."""

    DONE = 0
    FAILED = 1
    PENDING = 2
    """It waits for more inputs, for the nodes it expanded into, or for its own coroutine."""


@dataclass(frozen=True)
class Failure:
    """Why a node failed."""

    node_id: str
    """The submitted node."""
    interrupted: bool = False
    message: str = ""
    type: str = ""
    traceback: tuple[str, ...] = ()
    inputs: Any = None


class Site:
    """What prompts run with.

    Args:
        machine: where they run.
        classes: the node classes.
        events: where clients are told.
        interrupt: the flag that stops them.
    """

    def __init__(self, machine: Machine, classes: Classes, events: Events, interrupt: Interrupt) -> None:
        self.machine = machine
        self.classes = classes
        self.events = events
        self.interrupt = interrupt
        self.preview_method = machine.config.preview_method

    def choose_previews(self, wanted: Any) -> None:
        """Take a prompt's own preview method, where it names a known one (ComfyUI latent_preview.py)."""
        known = wanted in PREVIEW_METHODS
        self.preview_method = wanted if known else self.machine.config.preview_method


def type_name(error: BaseException) -> str:
    """The full name of an exception's type, as ComfyUI reports it."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


@dataclass
class PromptRun:
    """One prompt while it runs."""

    site: Site
    prompt_id: str
    prompt: DynamicPrompt
    extra_data: dict[str, Any]
    outputs: Cache
    objects: Cache
    todo: ExecutionList
    make_room: Callable[[str, list[str]], Awaitable[None]]
    """Prepares the caches for the nodes that a node expanded into."""
    executed: dict[str, bool] = field(default_factory=dict)
    ui: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.progress = Progress(self.prompt_id, self.prompt, self.site.events)
        self._expanded: dict[str, list[Any]] = {}
        self._tasks: dict[str, list[Any]] = {}

    async def node(self, node_id: str) -> tuple[Result, Failure | None]:
        """Run one node, or take it from the cache."""
        cached = self.outputs.get(node_id)
        if cached is not None:
            self.send_cached(node_id, cached)
            self.progress.finish(node_id)
            self.todo.update(node_id, cached)
            return Result.DONE, None
        gathered = Gathered()
        try:
            returned = await self._returned(node_id, gathered)
            if returned is None:
                return Result.PENDING, None
            self._send_ui(node_id, returned)
            if returned.expands:
                await self._expand(node_id, returned.outputs)
                return Result.PENDING, None
            entry = CacheEntry(self.ui.get(node_id), returned.outputs)
            self.todo.update(node_id, entry)
            self.outputs.put(node_id, entry)
        except Interrupted:
            return Result.FAILED, Failure(self.prompt.real_id(node_id), interrupted=True)
        except Exception as error:  # noqa: BLE001  # whatever a node raises is the prompt's error
            return Result.FAILED, self._failure(node_id, error, gathered)
        self.progress.finish(node_id)
        self.executed[node_id] = True
        return Result.DONE, None

    def send_cached(self, node_id: str, cached: CacheEntry) -> None:
        """Tell the client the outputs of a node that did not have to run."""
        if cached.ui is not None:
            self.ui[node_id] = cached.ui
        output = (cached.ui or {}).get("output")
        self._to_client(
            "executed", {"node": node_id, "display_node": self.prompt.display_id(node_id), "output": output}
        )

    def _to_client(self, event: str, data: dict[str, Any]) -> None:
        client_id = self.site.events.client_id
        if client_id is not None:
            self.site.events.send(event, {**data, "prompt_id": self.prompt_id}, client_id)

    async def _returned(self, node_id: str, gathered: Gathered) -> Returned | None:
        """What the node returned; None while it is pending."""
        node_class = self._class(node_id)
        if node_id in self._tasks:
            results = [each.result() if isinstance(each, asyncio.Task) else each for each in self._tasks.pop(node_id)]
            return merge_returns(results, node_class)
        if node_id in self._expanded:
            results = [self._resolved(node_id, graph, result) for graph, result in self._expanded.pop(node_id)]
            return Returned(merge_results(results, node_class), {}, expands=False)
        return await self._call(node_id, node_class, gathered)

    async def _call(self, node_id: str, node_class: type[Node], gathered: Gathered) -> Returned | None:
        self.progress.start(node_id)
        self._gather(node_id, node_class, gathered)
        if self.site.events.client_id is not None:
            self.site.events.last_node_id = self.prompt.display_id(node_id)
            self._to_client("executing", {"node": node_id, "display_node": self.prompt.display_id(node_id)})
        instance = self.objects.get(node_id)
        if instance is None:
            instance = node_class()
            self.objects.put(node_id, instance)
        if self._ask_for_lazy(node_id, instance, gathered):
            return None
        results = await self._run(node_id, instance, gathered)
        waiting = [each for each in results if isinstance(each, asyncio.Task) and not each.done()]
        if not waiting:
            results = [each.result() if isinstance(each, asyncio.Task) else each for each in results]
            return merge_returns(results, node_class)
        self._tasks[node_id] = results
        unblock = self.todo.block(node_id)
        gathering = asyncio.gather(*waiting, return_exceptions=True)
        gathering.add_done_callback(lambda _: unblock())
        return None

    def _gather(self, node_id: str, node_class: type[Node], gathered: Gathered) -> None:
        found = gather(
            self.prompt.node(node_id),
            node_class,
            node_class.finalized(self.site.machine, self.prompt.node(node_id)["inputs"]),
            lambda source: self.todo.value(source, node_id),
            self._hidden(node_id),
        )
        gathered.values, gathered.missing = found.values, found.missing

    def _hidden(self, node_id: str) -> dict[str, Any]:
        return {
            "PROMPT": self.prompt.original,
            "DYNPROMPT": self.prompt,
            "EXTRA_PNGINFO": self.extra_data.get("extra_pnginfo"),
            "UNIQUE_ID": node_id,
            "AUTH_TOKEN_COMFY_ORG": self.extra_data.get("auth_token_comfy_org"),
            "API_KEY_COMFY_ORG": self.extra_data.get("api_key_comfy_org"),
            "COMFY_USAGE_SOURCE": self.extra_data.get("comfy_usage_source"),
        }

    def _ask_for_lazy(self, node_id: str, instance: Node, gathered: Gathered) -> bool:
        """Let the node ask for lazy inputs; whether it did."""
        wanted: dict[str, bool] = {}
        for arguments in slices(gathered.values, whole=instance.INPUT_IS_LIST):
            wanted.update(dict.fromkeys(instance.wants(**arguments), True))
        needed = [name for name in wanted if name not in gathered.values or name in gathered.missing]
        for name in needed:
            self.todo.need_input(node_id, name)
        return bool(needed)

    async def _run(self, node_id: str, instance: Node, gathered: Gathered) -> list[Any]:
        class_type = self.prompt.node(node_id)["class_type"]
        before = self.site.machine.config.before_node
        results: list[Any] = []
        for index, arguments in enumerate(slices(gathered.values, whole=instance.INPUT_IS_LIST)):
            self.site.interrupt.check()
            blocker = blocker_in(arguments, whole=instance.INPUT_IS_LIST)
            if blocker is not None:
                results.append(self._blocked(node_id, class_type, blocker))
                continue
            if before is not None:
                await before(NodeStart(self.prompt_id, node_id, class_type))
            call = NodeCall(self.site, self.progress, self.prompt_id, node_id, class_type, index)
            results.append(await start(instance.run(call, **arguments), asynchronous=instance.ASYNC))
        return results

    def _blocked(self, node_id: str, class_type: str, blocker: ExecutionBlocker) -> ExecutionBlocker:
        if blocker.message is None:
            return blocker
        message = {
            "prompt_id": self.prompt_id,
            "node_id": node_id,
            "node_type": class_type,
            "executed": list(self.executed),
            "exception_message": f"Execution Blocked: {blocker.message}",
            "exception_type": "ExecutionBlocked",
            "traceback": [],
            "current_inputs": [],
            "current_outputs": [],
        }
        self.site.events.send("execution_error", message, self.site.events.client_id)
        return ExecutionBlocker(None)

    def _resolved(self, node_id: str, graph: Any, result: Any) -> Any:
        """The result of an expansion, its links replaced by what the nodes returned."""
        if graph is None:
            return result
        resolved: list[Any] = []
        for value in result:
            if is_link(value):
                entry = self.todo.value(value[0], node_id)
                if entry is None:
                    raise RuntimeError(f"node {value[0]} has no result")
                resolved += entry.outputs[value[1]]
            else:
                resolved.append(value)
        return tuple(resolved)

    def _send_ui(self, node_id: str, returned: Returned) -> None:
        if not returned.ui:
            return
        meta = {
            "node_id": node_id,
            "display_node": self.prompt.display_id(node_id),
            "parent_node": self.prompt.parent_id(node_id),
            "real_node_id": self.prompt.real_id(node_id),
        }
        self.ui[node_id] = {"meta": meta, "output": returned.ui}
        data = {"node": node_id, "display_node": self.prompt.display_id(node_id), "output": returned.ui}
        self._to_client("executed", data)

    async def _expand(self, node_id: str, expansions: list[Any]) -> None:
        added: list[str] = []
        for graph, _ in expansions:
            for child_id, child in (graph or {}).items():
                added.append(child_id)
                self.prompt.add(child_id, child, node_id, child.get("override_display_id", node_id))
        await self.make_room(node_id, added)
        for child_id in added:
            if self._class(child_id).OUTPUT_NODE:
                self.todo.add(child_id)
                self.todo.watch(child_id, node_id)
        for graph, result in expansions:
            for value in result if graph is not None else ():
                if is_link(value):
                    self.todo.link(value[0], node_id)
        self._expanded[node_id] = expansions

    def _failure(self, node_id: str, error: Exception, gathered: Gathered) -> Failure:
        tips = ""
        if isinstance(error, DeviceOutOfMemoryError):
            tips = _OOM_TIPS
            self.site.machine.memory.unload_all()
        return Failure(
            self.prompt.real_id(node_id),
            message=f"{error}\n{tips}",
            type=type_name(error),
            traceback=tuple(traceback.format_tb(error.__traceback__)),
            inputs={name: [_shown(value) for value in values] for name, values in gathered.values.items()},
        )

    def _class(self, node_id: str) -> type[Node]:
        return self.site.classes[self.prompt.node(node_id)["class_type"]]


def _shown(value: Any) -> Any:
    return value if value is None or isinstance(value, (int, float, bool, str)) else str(value)
