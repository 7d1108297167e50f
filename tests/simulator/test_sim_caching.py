"""What stays from one prompt to the next, mode by mode, told by the ledger of reads."""

from typing import Any

import pytest

from simulator import CacheMode
from tests.simulator.support import Driver, image, messages, node, pinned, shown, simulated

CLASSIC: dict[str, Any] = {"cache": CacheMode.CLASSIC}
PRESSURE: dict[str, Any] = {"cache": CacheMode.RAM}
LOW_PRESSURE: dict[str, Any] = {"cache": CacheMode.RAM, "cache_ram": (2.0, 2.0)}
LRU_3: dict[str, Any] = {"cache": CacheMode.LRU, "cache_lru": 3}
LRU_50: dict[str, Any] = {"cache": CacheMode.LRU, "cache_lru": 50}
NOTHING: dict[str, Any] = {"cache": CacheMode.NONE}

ALTERNATING = ["a", "b", "a", "b", "a", "b"]


async def alternate(driver: Driver, *, pins: bool = False) -> list[str]:
    for seed, name in enumerate(ALTERNATING):
        prompt = image(name, seed=seed)
        await driver.run(pinned(prompt, "ab".replace(name, "")) if pins else prompt)
    return driver.files_read()


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (CLASSIC, ALTERNATING),
        (PRESSURE, ALTERNATING),
        (LOW_PRESSURE, ["a", "b"]),
        (LRU_3, ALTERNATING),
        (LRU_50, ["a", "b"]),
        (NOTHING, ALTERNATING),
    ],
)
async def test_two_checkpoints_in_turn(mode: dict[str, Any], expected: list[str]) -> None:
    async with simulated(**mode) as driver:
        assert await alternate(driver) == expected


@pytest.mark.parametrize(
    ("mode", "expected"),
    [(CLASSIC, ["a", "b"]), (PRESSURE, ["a", "b"]), (LRU_3, ["a", "b"]), (NOTHING, ALTERNATING)],
)
async def test_two_checkpoints_in_turn_with_loaders_wired_to_nothing(mode: dict[str, Any], expected: list[str]) -> None:
    async with simulated(**mode) as driver:
        assert await alternate(driver, pins=True) == expected


async def test_a_machine_with_more_free_ram_than_the_threshold_keeps_everything() -> None:
    async with simulated(ram_gb=256.0) as driver:
        assert await alternate(driver) == ["a", "b"]


async def test_results_are_cached_whatever_the_node_ids() -> None:
    async with simulated(**CLASSIC) as driver:
        await driver.run(image("a"))
        entry = await driver.run(image("a", prefix="x"))
        assert messages(entry)["execution_cached"]["nodes"] == [f"x{number}" for number in range(1, 7)]
        assert driver.files_read() == ["a"]


async def test_a_class_that_reads_its_id_is_cached_under_it() -> None:
    async with simulated(**CLASSIC) as driver:
        for node_id in ("1", "1", "2"):
            await driver.run(
                {node_id: node("FakeUniqueIdLoader", name="m1"), "9": node("FakeOutput", value=[node_id, 0])}
            )
        assert driver.files_read() == ["m1", "m1"]


@pytest.mark.parametrize(
    ("ids", "expected"), [(("2", "2"), ["a", "x"]), (("2", "3"), ["a", "x", "x"])], ids=["same id", "other id"]
)
async def test_a_lora_loader_keeps_its_file_under_its_id(ids: tuple[str, str], expected: list[str]) -> None:
    async with simulated(**CLASSIC) as driver:
        for strength, node_id in enumerate(ids, start=1):
            prompt = {
                "1": node("CheckpointLoaderSimple", ckpt_name="a"),
                node_id: node("LoraLoaderModelOnly", model=["1", 0], lora_name="x", strength_model=strength),
                "9": node("PreviewAny", source=[node_id, 0]),
            }
            await driver.run(prompt)
        assert driver.files_read() == expected


async def test_without_caches_node_objects_go_too() -> None:
    async with simulated(**NOTHING) as driver:
        for salt in (1, 2):
            await driver.run(
                {"1": node("FakeSelfLoader", name="m1", salt=salt), "9": node("FakeOutput", value=["1", 0])}
            )
        assert driver.files_read() == ["m1", "m1"]


async def test_is_changed_decides_unless_the_prompt_does() -> None:
    async with simulated(**CLASSIC) as driver:
        prompt = {"1": node("FakeSlowIsChanged", name="m1"), "9": node("FakeOutput", value=["1", 0])}
        first = driver.sim.clock.slept
        await driver.run(prompt)
        asked = driver.sim.clock.slept - first - driver.sim.ledger.seconds_read
        assert asked == pytest.approx(0.3)
        own = {**prompt, "1": {**prompt["1"], "is_changed": "mine"}}
        await driver.run(own)
        await driver.run(own)
        assert driver.files_read() == ["m1", "m1"]


async def test_what_changes_each_time_is_never_cached() -> None:
    """One node says so by the time, the other because its file is gone and IS_CHANGED fails."""
    prompt = {
        "1": node("EmptyImage", width=8, height=8, batch_size=1, color=3),
        "2": node("SaveImageWebsocket", images=["1", 0]),
        "3": node("LoadImage", image="gone.png"),
    }
    async with simulated(**CLASSIC) as driver:
        await driver.run(prompt)
        entry = await driver.run(prompt)
        assert messages(entry)["execution_cached"]["nodes"] == ["1"]
        assert entry["status"]["completed"]


@pytest.mark.parametrize(("flags", "reads"), [({"free_memory": True}, 2), ({"unload_models": True}, 1)])
async def test_freeing(flags: dict[str, Any], reads: int) -> None:
    async with simulated(**CLASSIC) as driver:
        await driver.run(image("a", seed=1))
        await driver.post("/free", flags)
        await driver.run(shown("something in between") | image("a", seed=2, prefix="x"))
        assert len(driver.files_read()) == reads
        offloaded = [move for move in driver.sim.ledger.transfers if move.bytes < 0]
        assert len(offloaded) == 3


async def test_under_pressure_the_running_prompt_gives_its_large_intermediates() -> None:
    """Entries of the prompt itself count as active, and only large ones go before everything does."""
    images = {
        str(number): node("EmptyImage", width=4096, height=4096, batch_size=5, color=number) for number in range(1, 9)
    }
    views = {f"v{number}": node("PreviewAny", source=[number, 0]) for number in images}
    async with simulated(ram_gb=12.0, base_ram_gb=2.0, cache_ram=(4.0, 4.0)) as driver:
        prompt = {**images, **views}
        entry = await driver.run(prompt)
        assert entry["status"]["completed"]
        entry = await driver.run(prompt)
        cached = messages(entry)["execution_cached"]["nodes"]
        assert set(views) <= set(cached)
        assert 0 < len([node_id for node_id in cached if node_id in images]) < len(images)


def shown_image(node_id: str, side: int, count: int) -> dict[str, Any]:
    blank = node("EmptyImage", width=side, height=side, batch_size=count, color=1)
    return {node_id: blank, str(int(node_id) + 1): node("PreviewAny", source=[node_id, 0])}


async def test_small_results_stay_while_large_ones_can_make_room() -> None:
    large = shown_image("1", 4096, 15)
    small = shown_image("3", 512, 1)
    async with simulated(ram_gb=6.0, base_ram_gb=2.0, cache_ram=(2.0, 2.0)) as driver:
        await driver.run({**small, **large})
        entry = await driver.run({**small, **large})
        assert messages(entry)["execution_cached"]["nodes"] == ["3", "4", "2"]


async def test_old_models_go_before_old_images() -> None:
    keep = {
        "1": node("EmptyImage", width=512, height=512, batch_size=1, color=3),
        "2": node("PreviewImage", images=["1", 0]),
    }
    async with simulated(ram_gb=16.0, base_ram_gb=2.0, vram_gb=1.0, cache_ram=(1.0, 8.0)) as driver:
        await driver.run(image("a"))
        await driver.run(keep)
        await driver.run(image("b"))
        assert set(driver.memory.residency()) == {"checkpoints/b"}
        entry = await driver.run(keep)
        assert messages(entry)["execution_cached"]["nodes"] == ["1", "2"]
