"""How a held prompt is sent: as its client sent it, never more at once than `depth`, validated then or before."""

from pathlib import Path

import pytest

from proxy.config import QueueSection
from proxy.core.mode import Mode
from tests.engine.relay import Asked, Fate
from tests.engine.stage import Stage, encode, fresh_id, staged, until

WRONG = {**encode("a", "wrong"), "6": {"class_type": "CLIPTextEncode", "inputs": {}}}


async def test_a_held_prompt_is_sent_with_the_headers_that_comfyui_reads(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        running = await stage.blocker()
        ids = [fresh_id() for _ in range(3)]
        for prompt_id in ids:
            body = {"prompt": encode("b", prompt_id), "prompt_id": prompt_id}
            await stage.post("/prompt", body, Comfy_Usage_Source="a page", Comfy_User="anna")
        stage.gate.open()
        await stage.ended(running, *ids)
        sent = [post.head.lower() for post in stage.relay.asked("POST", "/prompt") if running.encode() not in post.body]
        assert len(sent) > len(ids)  # one was probed at least
        for head in sent:
            assert b"comfy-usage-source: a page" in head
            assert b"comfy-user: anna" in head
        entry = await stage.client.history(ids[-1])
        assert entry["prompt"][3]["comfy_usage_source"] == "a page"


@pytest.mark.parametrize("depth", [1, 2, 3])
async def test_comfyui_never_has_more_than_depth(tmp_path: Path, depth: int) -> None:
    most = 0

    async def count(_: Asked) -> Fate:
        nonlocal most
        most = max(most, stage.at_comfyui)
        return Fate.PASSED

    async with staged(Mode.FULL, tmp_path, queue=QueueSection(depth=depth)) as stage:
        stage.relay.script = count
        running = await stage.blocker()
        ids = [fresh_id() for _ in range(8)]
        for number, prompt_id in enumerate(ids):
            body = {"prompt": encode("abcd"[number % 4], prompt_id), "prompt_id": prompt_id}
            await stage.post("/prompt", body, X_Comfykeep_Priority=f"{number % 3}")
        await until(lambda: stage.at_comfyui == depth, "ComfyUI to have what it may")
        stage.gate.open()
        await stage.ended(running, *ids)
        assert most == depth


async def test_an_error_that_shows_at_dispatch(tmp_path: Path) -> None:
    queue = QueueSection.model_validate({"validate": "dispatch"})
    async with staged(Mode.FULL, tmp_path, queue=queue) as stage, stage.client.socket() as socket:
        running = await stage.blocker()
        await stage.client.submit(encode("b", "staged"))
        wrong, right = fresh_id(), fresh_id()
        asked = len(stage.relay.asked("POST", "/prompt"))
        answers = [
            await stage.client.submit(prompt, socket.client_id, prompt_id=prompt_id)
            for prompt, prompt_id in ((WRONG, wrong), (encode("b", "right"), right))
        ]
        assert [answer["node_errors"] for answer in answers] == [{}, {}]
        assert len(stage.relay.asked("POST", "/prompt")) == asked, "one was shown to ComfyUI"
        stage.gate.open()
        told = await socket.until_event("execution_error", prompt_id=wrong)
        assert told.data["node_id"] == "6"
        await socket.until_event("executing", node=None, prompt_id=wrong)
        await stage.ended(running, right)
        entry = await stage.client.history(wrong)
        assert (entry["status"]["status_str"], entry["prompt"][2]) == ("error", WRONG)
        assert [kind for kind, _ in entry["status"]["messages"]] == ["execution_start", "execution_error"]
        assert wrong not in stage.gate.started


async def test_a_full_queue_says_when_to_come_back(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path, queue=QueueSection(max_waiting=2)) as stage:
        await stage.blocker()
        for _ in range(3):  # one is staged, two wait
            await stage.client.submit(encode("b", "x"))
        refused = await stage.post("/prompt", {"prompt": encode("b", "x")})
        assert refused.status == 429
        assert int(refused.headers["Retry-After"]) > 0
        body = refused.json()
        assert body["error"].keys() == {"type", "message", "details", "extra_info"}
        assert (body["error"]["type"], body["node_errors"]) == ("queue_full", {})


@pytest.mark.parametrize(
    ("header", "extra", "kind"),
    [
        ({"X_Comfykeep_Priority": "high"}, {}, "bad_priority"),
        ({"X_Comfykeep_Priority": "1.5"}, {}, "bad_priority"),
        ({"X_Comfykeep_Priority": "9" * 5000}, {}, "bad_priority"),
        ({}, {"comfykeep_priority": True}, "bad_priority"),
        ({}, {"comfykeep_priority": 10**7}, "bad_priority"),
        ({}, {"comfykeep_priority": [1]}, "bad_priority"),
        ({}, {"comfykeep_order_key": 5}, "bad_order_key"),
        ({}, {"comfykeep_order_key": {}}, "bad_order_key"),
    ],
)
async def test_wishes_that_make_no_sense(
    tmp_path: Path, header: dict[str, str], extra: dict[str, object], kind: str
) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        refused = await stage.post("/prompt", {"prompt": encode("a", "x"), "extra_data": extra}, **header)
        assert (refused.status, refused.json()["error"]["type"]) == (400, kind)
        assert holds_nothing(stage)


def holds_nothing(stage: Stage) -> bool:
    return stage.proxy.engine.held is not None and not list(stage.proxy.engine.held.holding.prompts)
