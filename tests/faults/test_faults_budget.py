"""ComfyUI is really killed under a prompt that carries pins: half of the budget is left before it is tried again."""

from pathlib import Path
from typing import Any

from bench import victims
from bench.victims import Side, Victims
from proxy.downstream.status_model import Status
from tests.contract.client import Client, eventually
from tests.engine.stage import encode, fresh_id, sampling


async def status(client: Client) -> Status:
    return Status.model_validate(await client.get_json("/comfykeep/status"))


async def runs(client: Client, prompt_id: str) -> Status | None:
    """The status, if this prompt runs."""
    seen = await status(client)
    return seen if prompt_id in {prompt.prompt_id for prompt in seen.upstream.running} else None


async def killed(both: Victims, client: Client, prompt_id: str) -> Status:
    """The status when the prompt runs again in the ComfyUI that came after the one that was killed under it."""
    await both.kill(Side.COMFYUI)
    await eventually(lambda: _down(client), "the death to be seen")
    await both.start(Side.COMFYUI)
    await both.until_up()
    again: Status = await eventually(lambda: runs(client, prompt_id), "its next run")
    return again


async def _down(client: Client) -> bool:
    return not (await status(client)).upstream.up


def pinned(seen: Status) -> list[str]:
    return [item.label for item in seen.upstream.components if item.pinned]


async def test_a_death_under_pins_halves_what_they_may_take_before_the_prompt_runs_again(tmp_path: Path) -> None:
    async with victims.running(tmp_path, forget=False) as both, Client(both.url) as client:
        kept: Any = await client.submit(encode("dreamscape_xl", "kept"))
        await client.history(kept["prompt_id"])
        prompt_id = fresh_id()
        await client.submit(sampling("long"), prompt_id=prompt_id)
        before: Status = await eventually(lambda: runs(client, prompt_id), "its first run")
        assert pinned(before) == ["dreamscape_xl.safetensors"]
        after = await killed(both, client, prompt_id)
        assert after.upstream.budget.pins == before.upstream.budget.pins // 2
        assert pinned(after) == []
        once_more = await killed(both, client, prompt_id)
        assert once_more.upstream.budget.pins == after.upstream.budget.pins
