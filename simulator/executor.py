"""Runs prompts one after the other: caches, events and history exactly as a client of ComfyUI sees them.

Behaviour from ComfyUI execution.py, `PromptExecutor`. What runs one prompt is in `run.py`; here is what stays between
two: the caches, the interruption flag and, as in the original, the success of the last node that ran.
"""

import time
from typing import Any

from .cache import Cache, CacheEntry, ClassicCache, LRUCache, NullCache
from .call import Interrupt, NodeCall
from .config import GB, MB, CacheMode
from .events import Events
from .graph import DynamicPrompt, ExecutionBlocker
from .invoke import gather, slices
from .ledger import Doer
from .machine import Machine
from .nodes.base import Classes
from .pressure import LARGE_INTERMEDIATE, RAMPressureCache
from .progress import Progress
from .run import Failure, PromptRun, Result, Site
from .signature import InputSignatures, KeySet
from .topology import Cycle, ExecutionList

# execution.py: what is freed of copies of weights beyond what is missing.
_MORE_COPIES = 512 * MB


class Executor:
    """State that outlives a prompt.

    Args:
        machine: where it runs.
        classes: the node classes.
        events: where clients are told.
    """

    def __init__(self, machine: Machine, classes: Classes, events: Events) -> None:
        self.interrupt = Interrupt()
        self.success = True
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self.history: dict[str, Any] = {}
        """`outputs` and `meta` of the last prompt."""
        self._machine = machine
        self._events = events
        self._site = Site(machine, classes, events, self.interrupt)
        active, inactive = machine.config.cache_ram_thresholds()
        self._active_bytes = int(active * GB)
        self._inactive_bytes = int(inactive * GB)
        self._outputs: Cache
        self._objects: Cache
        self.reset()

    def reset(self) -> None:
        """Forget all results and node objects (`free_memory`)."""
        config = self._machine.config
        match config.cache:
            case CacheMode.CLASSIC:
                self._outputs = ClassicCache()
            case CacheMode.LRU:
                self._outputs = LRUCache(config.cache_lru)
            case CacheMode.NONE:
                self._outputs = NullCache()
            case CacheMode.RAM:
                pressure = RAMPressureCache(self._machine.memory, spare_models=config.dynamic_vram)
                self._machine.memory.ram_short = lambda: pressure.release(self._active_bytes)
                self._outputs = pressure
        self._objects = NullCache() if config.cache is CacheMode.NONE else ClassicCache()
        self.messages = []
        self.success = True

    async def execute(
        self, prompt: dict[str, Any], prompt_id: str, extra_data: dict[str, Any], outputs: list[str]
    ) -> None:
        """Run a prompt; `success`, `messages` and `history` tell how it went.

        Args:
            prompt: the nodes by id.
            prompt_id: its id.
            extra_data: what was submitted with it, sensitive values included.
            outputs: the output nodes that passed validation.

        Raises:
            Exception: whatever ComfyUI's own worker would die of, such as a KeyError for a node without inputs.
            Killed: memory was overrun.
        """
        self._site.choose_previews(extra_data.get("preview_method"))
        self.interrupt.wanted = False
        self._events.client_id = extra_data.get("client_id")
        self.messages = []
        self._add_message("execution_start", {"prompt_id": prompt_id}, broadcast=False)
        graph = DynamicPrompt(prompt)
        keys = InputSignatures(graph, self._site.classes, _IsChanged(self._site, graph, prompt_id).of)
        for cache, empty in ((self._outputs, keys), (self._objects, KeySet(graph))):
            await cache.set_prompt(empty, list(prompt))
            cache.clean_unused()
        cached = [node_id for node_id in prompt if self._outputs.get(node_id) is not None]
        self._add_message("execution_cached", {"nodes": cached, "prompt_id": prompt_id}, broadcast=False)
        todo = ExecutionList(graph, self._site.classes, self._outputs)
        run = PromptRun(self._site, prompt_id, graph, extra_data, self._outputs, self._objects, todo, self._make_room)
        known = self._outputs.all_ids()
        for node_id in outputs:
            todo.add(node_id)
        failure = await self._run_nodes(run, todo)
        if failure is None:
            self._finish(run)
        else:
            self._report(run, failure, known)
        self.history = {
            "outputs": {node_id: ui["output"] for node_id, ui in run.ui.items()},
            "meta": {node_id: ui["meta"] for node_id, ui in run.ui.items()},
        }
        self._events.last_node_id = None
        if self._machine.config.disable_smart_memory:
            await self._machine.moved(self._machine.memory.unload_all(), Doer(prompt_id))

    async def _run_nodes(self, run: PromptRun, todo: ExecutionList) -> Failure | None:
        while not todo.empty():
            staged = await todo.stage()
            if isinstance(staged, Cycle):
                message, kind = "Dependency cycle detected", "graph.DependencyCycleError"
                return Failure(staged.node_id, message=message, type=kind, inputs=[])
            result, failure = await run.node(staged)
            self.success = result is not Result.FAILED
            if failure is not None:
                return failure
            if result is Result.PENDING:
                todo.unstage()
            else:
                todo.complete()
            self._release_ram(run.prompt_id)
        return None

    async def _make_room(self, node_id: str, children: list[str]) -> None:
        for cache in (self._outputs, self._objects):
            await cache.expand(node_id, children)

    def _finish(self, run: PromptRun) -> None:
        for node_id in run.prompt.all_ids():
            node_class = self._site.classes[run.prompt.node(node_id)["class_type"]]
            if node_id in run.executed or not node_class.INTERMEDIATE_OUTPUT:
                continue
            entry: CacheEntry | None = self._outputs.get(node_id)
            if entry is not None:
                run.send_cached(node_id, entry)
        self._add_message("execution_success", {"prompt_id": run.prompt_id}, broadcast=False)

    def _release_ram(self, prompt_id: str) -> None:
        """After each node: evict what the RAM-pressure cache evicts."""
        cache = self._outputs
        if not isinstance(cache, RAMPressureCache):
            return
        cache.release(self._inactive_bytes)
        short: float = self._active_bytes - self._machine.memory.ram_free
        if short > 0:
            short -= cache.release(self._active_bytes, active=True, smallest=LARGE_INTERMEDIATE)
        if short > 0:
            wanted = int(short) + _MORE_COPIES
            if not self._machine.config.dynamic_vram or self._machine.memory.release_copies(wanted, prompt_id) < short:
                cache.release(self._active_bytes, active=True)

    def _report(self, run: PromptRun, failure: Failure, known: list[str]) -> None:
        message = {
            "prompt_id": run.prompt_id,
            "node_id": failure.node_id,
            "node_type": run.prompt.original[failure.node_id]["class_type"],
            "executed": list(run.executed),
        }
        if failure.interrupted:
            self._add_message("execution_interrupted", message, broadcast=True)
            return
        details = {
            "exception_message": failure.message,
            "exception_type": failure.type,
            "traceback": list(failure.traceback),
            "current_inputs": failure.inputs,
            "current_outputs": known,
        }
        self._add_message("execution_error", {**message, **details}, broadcast=False)

    def _add_message(self, event: str, data: dict[str, Any], *, broadcast: bool) -> None:
        """Put a message into the history and tell the client; without a client, tell all or nobody."""
        stamped = {**data, "timestamp": int(time.time() * 1000)}
        self.messages.append((event, stamped))
        if self._events.client_id is not None or broadcast:
            self._events.send(event, stamped, self._events.client_id)


class _IsChanged:
    """What IS_CHANGED says of each node, asked once per prompt (ComfyUI execution.py, `IsChangedCache`)."""

    def __init__(self, site: Site, prompt: DynamicPrompt, prompt_id: str) -> None:
        self._site = site
        self._prompt = prompt
        self._prompt_id = prompt_id
        self._known: dict[str, Any] = {}

    async def of(self, node_id: str) -> Any:
        """The value that goes into the node's signature; False for a class without IS_CHANGED."""
        if node_id not in self._known:
            self._known[node_id] = await self._ask(node_id)
        return self._known[node_id]

    async def _ask(self, node_id: str) -> Any:
        node = self._prompt.node(node_id)
        node_class = self._site.classes[node["class_type"]]
        if not node_class.FINGERPRINT:
            return False
        if "is_changed" in node:
            return node["is_changed"]
        schema = node_class.inputs(self._site.machine)
        hidden: dict[str, Any] = {"UNIQUE_ID": node_id, "PROMPT": {}, "EXTRA_PNGINFO": None}
        values = gather(node, node_class, schema, lambda _: None, hidden).values
        progress = Progress(self._prompt_id, self._prompt, self._site.events)
        try:
            found = []
            for index, arguments in enumerate(slices(values, whole=node_class.INPUT_IS_LIST)):
                call = NodeCall(self._site, progress, self._prompt_id, node_id, node["class_type"], index)
                found.append(await node_class.fingerprint(call, **arguments))
        except Exception:  # noqa: BLE001  # ComfyUI logs it and runs the node again
            node["is_changed"] = float("nan")
        else:
            node["is_changed"] = [None if isinstance(each, ExecutionBlocker) else each for each in found]
        return node["is_changed"]
