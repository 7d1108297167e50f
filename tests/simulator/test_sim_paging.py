"""Dynamic VRAM: weights are paged in on demand, and a model that lives may be anywhere."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import CacheMode
from simulator.config import GB, SimulatorConfig
from simulator.flags import parse
from simulator.paging import PagedMemory, PagedWeights
from tests.simulator.support import Driver, image, messages, node, pinned, simulated

ALL = "abcd"


def dynamic(**changes: Any) -> Any:
    """Four checkpoints of 4 GB, in a ComfyUI that keeps all results and pages weights in."""
    return simulated(**{"dynamic_vram": True, "cache": CacheMode.LRU, "cache_lru": 50, "vram_gb": 8.0, **changes})


def gigabytes_read(driver: Driver, name: str, since: int = 0) -> float:
    """What was read of one checkpoint, page cache apart."""
    reads = driver.sim.loads()[since:]
    return sum(each.bytes for each in reads if each.file.endswith(f"/{name}") and not each.from_page_cache) / GB


def gigabytes_moved(driver: Driver, name: str, since: int = 0) -> float:
    moves = driver.sim.ledger.transfers[since:]
    return sum(each.bytes for each in moves if each.file.endswith(f"/{name}")) / GB


async def test_a_loader_reads_nothing_and_the_first_use_reads_what_it_needs() -> None:
    async with dynamic() as driver:
        await driver.run({"1": node("CheckpointLoaderSimple", ckpt_name="a"), "2": node("PreviewAny", source=["1", 0])})
        assert driver.sim.loads() == ()
        await driver.run(image("a"))
        assert gigabytes_read(driver, "a") == pytest.approx(4.0, rel=0.01)
        assert {read.class_type for read in driver.sim.loads()} <= {"CLIPTextEncode", "KSampler", "VAEDecode"}


async def test_what_left_vram_comes_back_from_its_copy_in_ram() -> None:
    async with dynamic(vram_gb=6.0) as driver:
        for seed, name in enumerate("ab"):
            await driver.run(image(name, seed=seed))
        place = driver.memory.residency()["checkpoints/a"]
        assert place.on_gpu < place.bytes / 2
        assert place.in_ram == place.bytes
        reads, moves = len(driver.sim.loads()), len(driver.sim.ledger.transfers)
        await driver.run(image("a", seed=2))
        assert gigabytes_read(driver, "a", reads) == 0.0
        assert gigabytes_moved(driver, "a", moves) > 1.0


async def test_nothing_is_moved_back_when_weights_leave_vram() -> None:
    async with dynamic(vram_gb=6.0) as driver:
        for seed, name in enumerate("abab"):
            await driver.run(image(name, seed=seed))
        assert all(move.bytes > 0 for move in driver.sim.ledger.transfers)


async def test_a_model_that_lives_may_be_on_the_disk_alone() -> None:
    """Where RAM runs short copies go, and nobody is killed for it."""
    async with dynamic(vram_gb=5.0, ram_gb=11.0) as driver:
        for seed, name in enumerate(ALL):
            await driver.run(image(name, seed=seed))
        places = driver.memory.residency()
        assert len(places) == len(ALL)
        assert any(place.on_gpu + place.in_ram < place.bytes / 10 for place in places.values())
        assert driver.memory.ram_free >= 2 * GB
        reads = len(driver.sim.loads())
        await driver.run(image("a", seed=9))
        assert gigabytes_read(driver, "a", reads) > 2.0


async def test_a_fast_disk_gets_no_copies() -> None:
    async with dynamic(fast_disk=True) as driver:
        await driver.run(image("a"))
        (place,) = driver.memory.residency().values()
        assert (place.on_gpu, place.in_ram) == (place.bytes, 0)


async def test_high_ram_keeps_copies_to_the_bitter_end() -> None:
    settings = {"cache": CacheMode.CLASSIC, "ram_gb": 11.0, "vram_gb": 5.0}
    for high_ram in (False, True):
        async with dynamic(**settings, high_ram=high_ram) as driver:
            for seed, name in enumerate(ALL):
                if not driver.sim.crashed.is_set():
                    await driver.submit(pinned(image(name, seed=seed), ALL.replace(name, "")))
                    await driver.settled()
            assert driver.sim.crashed.is_set() is high_ram


async def test_a_model_larger_than_vram_is_streamed_from_its_copy() -> None:
    async with dynamic(vram_gb=24.0) as roomy, dynamic(vram_gb=3.0) as tight:
        for driver in (roomy, tight):
            await driver.run(image("a"))
            assert gigabytes_read(driver, "a") == pytest.approx(4.0, rel=0.01)
        (here,) = tight.memory.residency().values()
        assert 0 < here.on_gpu < here.bytes
        assert tight.sim.clock.slept > roomy.sim.clock.slept


async def test_the_first_step_is_late_by_what_is_read_and_moved() -> None:
    async with dynamic(disk_gbps=2.0, pcie_gbps=8.0) as driver:
        await driver.run(image("a", seed=1))
        first = driver.sim.clock.slept
        await driver.run(image("a", seed=2))
        again = driver.sim.clock.slept - first
        # 4 GB from disk and over the bus, and the file mapped; the encoded texts are cached the second time.
        assert first - again == pytest.approx(4 / 2 + 4 / 8 + 0.3 + 2 * 0.1, rel=0.05)


@pytest.mark.parametrize("page_cache", [None, 8.0])
async def test_after_an_out_of_memory_error_only_the_file_is_left(page_cache: float | None) -> None:
    async with dynamic(page_cache_gbps=page_cache) as driver:
        prompt = image("a")
        prompt["7"] = node("FakeRaise", value=["4", 0], mode="oom")
        prompt["5"]["inputs"]["samples"] = ["7", 0]
        entry = await driver.run(prompt)
        assert "execution_error" in messages(entry)
        (place,) = driver.memory.residency().values()
        assert (place.on_gpu, place.in_ram) == (0, 0)
        reads = len(driver.sim.loads())
        await driver.run(image("a", seed=2))
        # The part of the VAE was not read before.
        assert (gigabytes_read(driver, "a", reads) < 0.1) is (page_cache is not None)


async def test_without_smart_memory_each_model_pushes_out_all_others() -> None:
    async with dynamic(vram_gb=24.0, disable_smart_memory=True) as driver:
        await driver.run(image("a"))
        assert driver.memory.vram_free == driver.memory.vram_total


async def test_headroom_is_left_free() -> None:
    async with dynamic(vram_gb=6.0, vram_headroom_gb=2.0, reserve_vram_gb=1.0) as driver:
        for seed, name in enumerate("ab"):
            await driver.run(image(name, seed=seed))
        assert driver.memory.vram_free >= 3 * GB


def test_it_is_a_matter_of_flags() -> None:
    config = parse(["--enable-dynamic-vram", "--vram-headroom", "1.5", "--fast-disk", "--high-ram"])
    assert (config.dynamic_vram, config.vram_headroom_gb, config.fast_disk, config.high_ram) == (True, 1.5, True, True)
    assert config.argv(1)[5:] == ["--enable-dynamic-vram", "--high-ram", "--fast-disk", "--vram-headroom", "1.5"]
    assert not parse([]).dynamic_vram
    assert not parse(["--disable-dynamic-vram"]).dynamic_vram


SIZES = st.integers(min_value=1, max_value=8).map(lambda gigabytes: gigabytes * GB)


@settings(max_examples=60)
@given(
    sizes=st.lists(SIZES, min_size=1, max_size=6),
    uses=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=12),
    vram=st.integers(2, 16),
    ram=st.integers(4, 40),
)
def test_memory_never_overflows_and_every_byte_comes_from_somewhere(
    sizes: list[int], uses: list[tuple[int, int]], vram: int, ram: int
) -> None:
    memory = PagedMemory(SimulatorConfig(dynamic_vram=True, ram_gb=ram, base_ram_gb=1.0, vram_gb=vram))
    models = [PagedWeights(str(index), size) for index, size in enumerate(sizes)]
    for weights in models:
        memory.take(weights)
    for turn, (use, activations) in enumerate(uses):
        weights = models[use % len(models)]
        before, had = weights.on_gpu, {id(each): each.on_gpu for each in models}
        copied = weights.copied
        moves = memory.to_gpu([(weights, ())], str(turn), activations * GB)
        assert memory.vram_free >= min(vram, activations) * GB
        assert memory.ram_free >= min(2 * GB, (ram - 1) * GB)
        assert memory.models()[0] is weights
        moved, read = (sum(move.bytes for move in moves if move.read_part == part) for part in (None, 0))
        assert moved <= copied
        assert weights.on_gpu <= before + moved + read
        assert all(each.on_gpu <= had[id(each)] for each in models if each is not weights)
        for each in models:
            assert 0 <= each.copied <= each.nbytes
            assert 0 <= each.on_gpu <= each.nbytes
