"""The loop that runs prompts (ComfyUI main.py, `prompt_worker`).

In ComfyUI it is a thread; here it is a task, and waiting nodes let the web server work. What kills the thread kills the
task: the web server lives on and prompts pile up, as in the original.
"""

from .events import Events
from .executor import Executor
from .ledger import Doer
from .machine import Machine
from .prompt_queue import PromptQueue


async def work(queue: PromptQueue, executor: Executor, events: Events, machine: Machine) -> None:
    """Run prompts for ever.

    Raises:
        Exception: what a malformed prompt does to the real worker.
        Killed: memory was overrun.
    """
    while True:
        taken = await queue.get()
        if taken is not None:
            (_, prompt_id, prompt, extra_data, outputs, sensitive), run = taken
            events.last_prompt_id = prompt_id
            await executor.execute(prompt, prompt_id, {**extra_data, **sensitive}, outputs)
            status = {
                "status_str": "success" if executor.success else "error",
                "completed": executor.success,
                "messages": executor.messages,
            }
            queue.done(run, executor.history, status)
            if events.client_id is not None:
                events.send("executing", {"node": None, "prompt_id": prompt_id}, events.client_id)
        flags = queue.take_flags()
        free = flags.get("free_memory", False)
        if flags.get("unload_models", free):
            await machine.moved(machine.memory.unload_all(), Doer())
        if free:
            executor.reset()
        if machine.config.between_prompts is not None:
            await machine.config.between_prompts()
