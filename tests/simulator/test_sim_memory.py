"""Where models are: VRAM, RAM or disk; and what happens when there is no room."""

import gc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import CacheMode
from simulator.config import GB, SimulatorConfig, VramMode
from simulator.memory import Killed, Memory, Move, Weights
from tests.simulator.support import Driver, image, messages, node, pinned, simulated

ALL = "abcd"


def moved(driver: Driver) -> list[tuple[str, int]]:
    """Model files moved to the GPU (1) or back (-1), in order; parts in a row count once."""
    steps = [(move.file.rsplit("/", 1)[-1], 1 if move.bytes > 0 else -1) for move in driver.sim.ledger.transfers]
    return [step for index, step in enumerate(steps) if index == 0 or steps[index - 1] != step]


async def test_a_model_that_was_pushed_out_is_warm() -> None:
    """Two models of 4 GB share 6 GB of VRAM: each use moves one in and the other out, nothing is read again."""
    async with simulated(cache=CacheMode.LRU, cache_lru=50, vram_gb=6.0) as driver:
        for seed, name in enumerate("abab"):
            await driver.run(image(name, seed=seed))
        assert driver.files_read() == ["a", "b"]
        assert set(moved(driver)) == {("a", 1), ("a", -1), ("b", 1), ("b", -1)}
        assert driver.memory.vram_free >= 0


async def test_a_model_that_fits_stays_hot() -> None:
    async with simulated(cache=CacheMode.LRU, cache_lru=50, vram_gb=24.0) as driver:
        for seed, name in enumerate("abab"):
            await driver.run(image(name, seed=seed))
        assert moved(driver) == [("a", 1), ("b", 1)]


async def test_smart_memory_can_be_switched_off() -> None:
    async with simulated(cache=CacheMode.CLASSIC, disable_smart_memory=True) as driver:
        await driver.run(image("a", seed=1))
        assert driver.memory.vram_free == driver.memory.vram_total


async def test_a_model_larger_than_vram_is_streamed_at_each_step() -> None:
    async with simulated(vram_gb=24.0) as roomy, simulated(vram_gb=3.0) as tight:
        for driver in (roomy, tight):
            await driver.run(image("a"))
        (here,) = tight.memory.residency().values()
        assert 0 < here.on_gpu < here.bytes
        assert tight.sim.clock.slept > roomy.sim.clock.slept


async def test_other_patches_mean_another_transfer_but_no_read_of_the_model() -> None:
    def prompt(strength: float) -> Any:
        patched = image("a")
        patched["7"] = node(
            "LoraLoader", model=["1", 0], clip=["1", 1], lora_name="x", strength_model=1, strength_clip=1
        )
        patched["4"]["inputs"]["model"] = ["7", 0]
        return image("a") if strength == 0 else patched

    async with simulated(cache=CacheMode.CLASSIC) as driver:
        await driver.run(prompt(0))
        before = len(driver.sim.ledger.transfers)
        await driver.run(prompt(1))
        assert driver.files_read() == ["a", "x"]
        later = [(move.file, move.bytes > 0) for move in driver.sim.ledger.transfers[before:]]
        assert later == [("checkpoints/a", False), ("checkpoints/a", True)]


async def test_memory_is_free_as_soon_as_no_cache_refers_to_a_model() -> None:
    gc.disable()
    try:
        async with simulated(cache=CacheMode.CLASSIC) as driver:
            empty = driver.memory.ram_free
            await driver.run(image("a"))
            blank = node("EmptyImage", width=64, height=64, batch_size=1, color=1)
            await driver.run({"1": blank, "2": node("PreviewAny", source=["1", 0])})
            await driver.run({"1": node("FakeRaise", value="x", mode="error"), "2": node("FakeOutput", value=["1", 0])})
            assert driver.memory.residency() == {}
            assert driver.memory.ram_free == empty
            assert driver.memory.vram_free == driver.memory.vram_total
    finally:
        gc.enable()


async def test_too_many_pins_get_it_killed() -> None:
    async with simulated(cache=CacheMode.CLASSIC, ram_gb=16.0, vram_gb=6.0) as driver:
        for seed, name in enumerate(ALL):
            if driver.sim.crashed.is_set():
                break
            await driver.submit(pinned(image(name, seed=seed), ALL.replace(name, "")))
            await driver.settled()
        assert driver.sim.crash_reason == "out of memory: killed"
        assert len(driver.files_read()) == len(set(driver.files_read()))


async def test_a_file_that_does_not_fit_is_never_fully_read() -> None:
    async with simulated(cache=CacheMode.CLASSIC, ram_gb=14.0) as driver:
        loaders = {name: node("CheckpointLoaderSimple", ckpt_name=name) for name in "abc"}
        await driver.submit(loaders | {f"{name}1": node("PreviewAny", source=[name, 0]) for name in "abc"})
        await driver.settled()
        assert driver.sim.crash_reason == "out of memory: killed"
        assert driver.files_read() == ["a", "b"]
        assert driver.sim.clock.slept == pytest.approx(2 * 2.0 + 1.0)


async def test_without_pins_it_lives() -> None:
    async with simulated(cache=CacheMode.CLASSIC, ram_gb=16.0, vram_gb=6.0) as driver:
        for seed, name in enumerate(ALL * 2):
            await driver.run(image(name, seed=seed))
        assert not driver.sim.crashed.is_set()


async def test_out_of_memory_on_the_gpu_pushes_all_models_to_ram() -> None:
    async with simulated(cache=CacheMode.CLASSIC) as driver:
        prompt = image("a")
        prompt["7"] = node("FakeRaise", value=["4", 0], mode="oom")
        prompt["5"]["inputs"]["samples"] = ["7", 0]
        entry = await driver.run(prompt)
        error = messages(entry)["execution_error"]
        assert error["exception_type"] == "torch.OutOfMemoryError"
        assert "you ran out of memory on your GPU" in error["exception_message"]
        assert [place.on_gpu for place in driver.memory.residency().values()] == [0]
        assert driver.files_read() == ["a"]


@pytest.mark.parametrize("mode", [VramMode.HIGH, VramMode.GPU_ONLY])
async def test_models_that_cannot_be_offloaded_fill_vram(mode: VramMode) -> None:
    async with simulated(cache=CacheMode.LRU, cache_lru=50, vram_gb=10.0, vram_mode=mode) as driver:
        outcomes = [await driver.run(image(name, seed=seed)) for seed, name in enumerate("abcd")]
        errors = [messages(entry).get("execution_error", {}).get("exception_type") for entry in outcomes]
        assert "torch.OutOfMemoryError" in errors
        assert errors[0] is None


async def test_the_page_cache_spares_the_disk_while_there_is_free_ram() -> None:
    async with simulated(cache=CacheMode.CLASSIC, page_cache_gbps=8.0, ram_gb=32.0) as driver:
        for seed, name in enumerate("aba"):
            await driver.run(image(name, seed=seed))
        assert [read.from_page_cache for read in driver.sim.loads()] == [False, False, True]
        assert [read.seconds for read in driver.sim.loads()] == [2.0, 2.0, 0.5]
    async with simulated(cache=CacheMode.CLASSIC, page_cache_gbps=8.0, ram_gb=14.0) as driver:
        for seed, name in enumerate("aba"):
            await driver.run(image(name, seed=seed))
        assert not any(read.from_page_cache for read in driver.sim.loads())


SIZES = st.integers(min_value=1, max_value=8).map(lambda gigabytes: gigabytes * GB)


@settings(max_examples=60)
@given(
    sizes=st.lists(SIZES, min_size=1, max_size=6),
    uses=st.lists(st.integers(0, 5), max_size=12),
    vram=st.integers(2, 16),
)
def test_what_is_moved_is_accounted_for(sizes: list[int], uses: list[int], vram: int) -> None:
    """VRAM never overflows, no byte is in two places, and the moves add up to where things are."""
    memory = Memory(SimulatorConfig(ram_gb=64.0, base_ram_gb=0.0, vram_gb=vram))
    models = [Weights(str(index), size) for index, size in enumerate(sizes)]
    for weights in models:
        memory.take(weights)
    moves: list[Move] = []
    for turn, use in enumerate(uses):
        weights = models[use % len(models)]
        moves += memory.to_gpu([(weights, ())], str(turn))
        assert memory.vram_free >= 0
        assert memory.ram_free == 64 * GB - sum(each.in_ram for each in models)
        assert memory.models()[0] is weights or not weights.on_gpu
    for weights in models:
        assert weights.on_gpu == sum(move.bytes for move in moves if move.file == weights.file)
        assert 0 <= weights.on_gpu <= weights.nbytes


def test_what_nobody_uses_now_goes_first() -> None:
    memory = Memory(SimulatorConfig(ram_gb=64.0, vram_gb=12.0))
    used, idle, wanted = Weights("used", 4 * GB), Weights("idle", 4 * GB), Weights("wanted", 4 * GB)
    for weights in (used, idle, wanted):
        memory.take(weights)
    memory.to_gpu([(idle, ())], "before")
    memory.to_gpu([(used, ())], "now")
    moves = memory.to_gpu([(wanted, ())], "now")
    assert [move.file for move in moves if move.bytes < 0] == ["idle"]


def test_overrunning_ram_is_the_end() -> None:
    memory = Memory(SimulatorConfig(ram_gb=8.0, base_ram_gb=2.0))
    first = Weights("first", 4 * GB)
    memory.take(first)
    with pytest.raises(Killed):
        memory.take(Weights("second", 4 * GB))


async def test_lowvram_keeps_text_encoders_in_ram_and_novram_everything() -> None:
    for mode, on_gpu in ((VramMode.NORMAL, 1.0), (VramMode.LOW, 0.76), (VramMode.NONE, 0.0)):
        async with simulated(cache=CacheMode.CLASSIC, vram_mode=mode) as driver:
            await driver.run(image("a"))
            (place,) = driver.memory.residency().values()
            assert place.on_gpu / place.bytes == pytest.approx(on_gpu, abs=0.01)
            assert place.in_ram == place.bytes - place.on_gpu
