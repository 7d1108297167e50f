"""A saved PNG holds a prompt that can be sent again: the client's own, where ComfyUI leaves room for it."""

import json
from typing import Any

import pytest

from normalizer import mentions_sent_id
from simulator import png
from tests.contract.client import Client, Run
from tests.contract.prompts import Prompt, link, node
from tests.engine.stage import encode, staged

WORKFLOW = {"extra_data": {"extra_pnginfo": {"workflow": {"nodes": [{"id": 4}]}}}}


def saved(color: int, *, custom: bool = False) -> Prompt:
    """An image in a file, and an encoded text, by a checkpoint whose node carries a key that ComfyUI only counts."""
    prompt = encode("a", f"{color}", ids="4 größe 9")
    prompt["4"]["inputs"] |= {"junk": 1}
    prompt["7"] = node("EmptyImage", width=8, height=8, batch_size=1, color=color)
    prompt["3"] = node("SaveImage", images=link("7"), filename_prefix="kept")
    if custom:
        prompt["2"] = node("SaveImageWebsocket", images=link("7"))
    return prompt


async def read_back(client: Client, run: Run) -> Any:
    """The prompt in the file as its readers find it: of several texts of one name they keep the last."""
    (file,) = run.outputs["3"]["images"]
    answer = await client.get(f"/view?filename={file['filename']}&type=output")
    return json.loads(dict(png.texts(answer.body))["prompt"])


@pytest.mark.parametrize(
    ("custom", "fields"),
    [(False, {}), (False, WORKFLOW), (True, WORKFLOW)],
    ids=["core classes", "core classes and a workflow", "a custom class and a workflow"],
)
async def test_the_file_holds_the_clients_prompt(custom: bool, fields: dict[str, Any]) -> None:
    prompt = saved(1, custom=custom)
    async with staged() as stage, stage.client.socket() as socket:
        await stage.client.run(encode("b", "carried"), socket)
        run = await stage.client.run(prompt, socket, **fields)
        executed = (await stage.direct.history(run.prompt_id))["prompt"][2]
        assert executed.keys() != prompt.keys(), "it was rewritten, and carries a pin"
        found = await read_back(stage.client, run)
        assert json.dumps(found) == json.dumps(prompt)
        again = await stage.client.run(found, socket, **fields)
        assert "4" in again.cached


async def test_without_a_workflow_custom_classes_leave_the_executed_prompt_there_which_is_as_good() -> None:
    """Their handlers choke on an `extra_pnginfo` without one. The client gets what it sends, our ids included."""
    async with staged() as stage, stage.client.socket() as socket:
        await stage.client.run(encode("b", "carried"), socket)
        found = await read_back(stage.client, await stage.client.run(saved(1, custom=True), socket))
        assert mentions_sent_id(json.dumps(found))
        again = await stage.client.run(found, socket)
        assert (await stage.client.history(again.prompt_id))["prompt"][2] == found
        loader = next(node_id for node_id, item in found.items() if item["inputs"].get("ckpt_name") == "a.safetensors")
        assert loader in again.cached
        assert stage.loads == ["b.safetensors", "a.safetensors"], "nothing is loaded a second time"
