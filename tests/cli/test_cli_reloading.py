"""A reload: what each key changes in a running proxy, and what is left for a restart."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.cli.reloading import RELOADABLE, reload
from proxy.config import Config
from proxy.config_faults import keys
from proxy.core.evidence import MemoryRead
from proxy.core.mode import Mode
from proxy.core.release import Idleness
from simulator.config import CacheMode
from tests.engine.stage import Stage, encode, staged, until


def changed(stage: Stage, values: dict[str, dict[str, Any]]) -> Config:
    """The present configuration with other values."""
    table = stage.proxy.config.model_dump(by_alias=True)
    for section, keys_and_values in values.items():
        table[section] |= keys_and_values
    return Config.model_validate(table)


def mode_of(stage: Stage) -> str:
    return stage.proxy.engine.mode.value


@pytest.fixture(autouse=True)
def _log_level(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.INFO)
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


async def test_limits_of_the_queue_hold_at_once(tmp_path: Path) -> None:
    async with staged(Mode.FULL, tmp_path) as stage:
        running = await stage.blocker()
        await stage.client.submit(encode("b", "1"))
        await reload(stage.proxy, changed(stage, {"queue": {"max_waiting": 1, "depth": 1}}))
        answers = [await stage.client.post("/prompt", {"prompt": encode("c", str(index))}) for index in range(2)]
        assert [answer.status for answer in answers] == [200, 429]
        stage.gate.open(running)


async def test_the_mode_changes_and_one_set_by_hand_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with staged(Mode.PINS, tmp_path) as stage:
        await reload(stage.proxy, changed(stage, {"proxy": {"mode": "full"}}))
        assert mode_of(stage) == "full"
        await stage.proxy.engine.change_mode(Mode.OBSERVE)
        await reload(stage.proxy, changed(stage, {"pins": {"max_chains": 3}}))
        assert mode_of(stage) == "observe"
        assert "reloaded: changed pins.max_chains" in caplog.text


async def test_a_mode_that_cannot_be_had_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with staged(Mode.PINS, tmp_path) as stage:
        (tmp_path / "journal.sqlite3").write_bytes(
            b"not a database, but long enough to be taken for a damaged one" * 99
        )
        await reload(stage.proxy, changed(stage, {"proxy": {"mode": "full"}}))
        assert mode_of(stage) == "pins"
        assert "the mode stays pins" in caplog.text


async def test_loaders_and_pins_follow(tmp_path: Path) -> None:
    async with staged(Mode.PINS, tmp_path) as stage:
        for name in "ab":
            await stage.ended((await stage.client.submit(encode(name, "1")))["prompt_id"])
        await stage.ended((await stage.client.submit(encode("a", "2")))["prompt_id"])
        loads = len(stage.loads)
        await reload(stage.proxy, changed(stage, {"pins": {"max_chains": 0}}))
        for name in "ba":
            await stage.ended((await stage.client.submit(encode(name, "3")))["prompt_id"])
        assert len(stage.loads) > loads, "still carried along"
        loader = stage.proxy.engine.upstream.schema
        assert loader.schema.classes["CheckpointLoaderSimple"].role == "loader"
        await reload(stage.proxy, changed(stage, {"normalizer": {"loaders": {"exclude": ["CheckpointLoaderSimple"]}}}))
        assert loader.schema.classes["CheckpointLoaderSimple"].role == "neither"


async def test_the_strategy_follows_and_what_it_kept_goes_with_it(caplog: pytest.LogCaptureFixture) -> None:
    async with staged(inspire_pack=True, cache=CacheMode.NONE) as stage:
        shared = stage.comfy.process.machine.shared
        await stage.ended((await stage.client.submit(encode("a", "1")))["prompt_id"])
        assert "comfykeep-" not in shared.listing()
        await reload(stage.proxy, changed(stage, {"normalizer": {"strategy": "inspire"}}))
        await stage.ended((await stage.client.submit(encode("a", "2")))["prompt_id"])
        assert "comfykeep-" in shared.listing()
        await reload(stage.proxy, changed(stage, {"normalizer": {"strategy": "pins"}}))
        await stage.ended((await stage.client.submit(encode("a", "3")))["prompt_id"])
        await until(lambda: "comfykeep-" not in shared.listing(), "the key to go")
        assert len(stage.loads) == 3
    assert 'let go of a.safetensors: the strategy is "pins"' in caplog.text


async def test_what_comfyui_has_is_read_again_whatever_has_changed(tmp_path: Path) -> None:
    async with staged(Mode.PINS, tmp_path) as stage:
        keeper = stage.proxy.engine.upstream.schema
        before = keeper.schema
        await reload(stage.proxy, stage.proxy.config)
        assert keeper.complete
        assert keeper.schema is not before


async def test_upkeep_and_what_is_kept_follow(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked_for = tmp_path / "asked for"
    async with staged(Mode.FULL, tmp_path) as stage:
        upstream = {"restart_command": f"touch '{asked_for}'", "recycle_after": 1, "stall_timeout": 0.001}
        await reload(stage.proxy, changed(stage, {"upstream": upstream, "journal": {"retain": 5}}))
        assert "only a restart" not in caplog.text
        running = await stage.blocker()
        await until(lambda: stage.proxy.engine.pulse.health.stalled_since is not None, "the stall to be seen")
        stage.gate.open(running)
        await until(asked_for.exists, "the restart")
        assert stage.proxy.config.upstream.recycle_after == 1


async def test_reserves_and_releases_follow(tmp_path: Path) -> None:
    idle = Idleness(since=0.0, pinned=True, hot=False)
    async with staged(Mode.PINS, tmp_path) as stage:
        upstream = stage.proxy.engine.upstream
        assert upstream.releases.decide(MemoryRead(), idle, 0, 1000.0) is None
        new = {"residency": {"ram_reserve": 3.0, "vram_reserve": 2.0, "release_idle": 900.0, "ram_limit": 8.0}}
        await reload(stage.proxy, changed(stage, new))
        assert (upstream.planner.limits.ram_reserve, upstream.planner.limits.vram_reserve) == (3 << 30, 2 << 30)
        assert upstream.releases.decide(MemoryRead(), idle, 0, 1000.0) is not None
        assert stage.proxy.config.residency.ram_limit == 0.0, "the readings are taken with the old one"


async def test_the_log_level_changes(tmp_path: Path) -> None:
    async with staged(Mode.PINS, tmp_path) as stage:
        await reload(stage.proxy, changed(stage, {"proxy": {"log_level": "error"}}))
        assert logging.getLogger().level == logging.ERROR


async def test_what_needs_a_restart_is_named_each_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with staged(Mode.PINS, tmp_path) as stage:
        before = stage.proxy.config
        new = changed(stage, {"proxy": {"listen": "127.0.0.1:5"}, "journal": {"sync": "full"}})
        for _ in range(2):
            caplog.clear()
            await reload(stage.proxy, new)
            assert "reloaded: nothing has changed in the configuration" in caplog.text
            assert "only a restart brings it: journal.sync, proxy.listen" in caplog.text
        assert stage.proxy.config == before


def test_every_reloadable_key_exists() -> None:
    names = [key for key, _ in keys(Config)]
    assert all(any(name == key or name.startswith(f"{key}.") for name in names) for key in RELOADABLE)
