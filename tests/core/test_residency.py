"""The life of an upstream: what is known at its start, lost at its end, and doubted in between."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normalizer.models import ModelRef
from proxy.core.budget import Machine
from proxy.core.evidence import (
    Ending,
    MemoryRead,
    ModelsFreed,
    NodesCached,
    PromptEnded,
    PromptRecalled,
    PromptStarted,
    ResidencyEvent,
    UpstreamDied,
)
from proxy.core.flags import GB, CacheMode, UpstreamFlags, VramMode
from proxy.core.node_cache import NodeCache
from proxy.core.tiers import Tier
from tests.core.residency_stage import ComfyUI, chain, ref, use


def test_nothing_is_known_of_a_process_that_was_there_before() -> None:
    comfy = ComfyUI(fresh=False)
    assert comfy.tiers("a") == {"a": Tier.UNKNOWN}
    comfy.prompt("b")
    assert comfy.tiers("ab") == {"a": Tier.COLD, "b": Tier.HOT}


def test_a_fresh_process_holds_nothing() -> None:
    assert ComfyUI().tiers("a") == {"a": Tier.COLD}


@pytest.mark.parametrize(("free_memory", "tier"), [(False, Tier.WARM), (True, Tier.COLD)])
def test_free(free_memory: bool, tier: Tier) -> None:
    comfy = ComfyUI()
    comfy.prompt("a")
    comfy.tell(ModelsFreed(unload_models=True, free_memory=free_memory))
    assert comfy.tiers("a") == {"a": tier}


def test_what_will_be_freed_can_not_be_kept() -> None:
    comfy = ComfyUI()
    comfy.prompt("a")
    comfy.run(comfy.send("b", pins="a"), cached="a")
    assert comfy.residency.there_then == {ref("a"), ref("b")}
    comfy.tell(ModelsFreed(unload_models=True, free_memory=True))
    assert not comfy.residency.will_hold(chain("a"))
    assert not comfy.residency.will_hold(chain("b"))
    assert comfy.residency.there_then == frozenset()
    comfy.send("c")
    assert comfy.residency.will_hold(chain("c"))
    assert comfy.residency.there_then == {ref("c")}


def test_free_waits_for_the_running_prompt() -> None:
    comfy = ComfyUI()
    prompt_id = comfy.send("a")
    comfy.run(prompt_id, loads={"a": 5.0})
    comfy.tell(ModelsFreed(unload_models=True, free_memory=False))
    comfy.end(prompt_id, use("a"))
    assert comfy.tiers("a") == {"a": Tier.WARM}


def test_somebody_elses_prompt_leaves_everything_in_doubt() -> None:
    comfy = ComfyUI()
    comfy.prompt("a")
    comfy.tell(PromptStarted("not ours"))
    assert comfy.tiers("a") == {"a": Tier.UNKNOWN}
    comfy.prompt("a", loaded=False)
    assert comfy.tiers("a") == {"a": Tier.HOT}


def test_a_death_takes_everything_along() -> None:
    comfy = ComfyUI()
    comfy.prompt("a")
    comfy.tell(UpstreamDied())
    assert comfy.tiers("a") == {"a": Tier.COLD}


def test_status_tells_each_component() -> None:
    comfy = ComfyUI()
    comfy.prompt("a")
    comfy.run(comfy.send("b", pins="a"), cached="a")
    newest, older = comfy.residency.components([frozenset({ref("a")})])
    assert (newest.ref, newest.pinned, newest.needed_in) == (ref("b"), False, None)
    assert (older.ref, older.pinned, older.needed_in, older.size.bytes) == (ref("a"), True, 1, 8 * GB)


EVENTS = st.one_of(
    st.builds(PromptStarted, st.sampled_from(["p1", "p2", "p3", "x"])),
    st.builds(PromptRecalled, st.sampled_from(["p1", "p2"])),
    st.builds(NodesCached, st.sampled_from(["p1", "p2", "p3"]), st.frozensets(st.sampled_from(["node-a", "node-b"]))),
    st.builds(
        PromptEnded,
        st.sampled_from(["p1", "p2", "p3", "x"]),
        st.sampled_from(Ending),
        st.dictionaries(st.sampled_from(["node-a", "node-b"]), st.floats(0, 100)),
        st.lists(st.sampled_from([use("a"), use("a", "b", waited=9.0), use("c")])).map(tuple),
        st.none() | st.integers(0, 9 * GB),
    ),
    st.builds(ModelsFreed, st.booleans(), st.booleans()),
    st.builds(MemoryRead, *[st.none() | st.integers(0, 64 * GB) for _ in range(4)]),
    st.just(UpstreamDied()),
)


FLAGS = st.builds(
    UpstreamFlags,
    version=st.just((0, 33, 0)),
    cache=st.sampled_from(CacheMode),
    lru_size=st.integers(0, 9),
    cache_ram=st.sampled_from([(), (2.0, 2.0), (8.0, 30.0)]),
    vram=st.sampled_from(VramMode),
    dynamic_vram=st.booleans(),
    smart_memory=st.booleans(),
)


@given(
    FLAGS, st.booleans(), st.lists(EVENTS | st.tuples(st.sampled_from(["a", "ab", "c"]), st.sampled_from(["", "b"])))
)
def test_any_order_of_events_leaves_a_sane_state(
    flags: UpstreamFlags, fresh: bool, events: Sequence[ResidencyEvent | tuple[str, str]]
) -> None:
    comfy = ComfyUI(flags, Machine(64 * GB, 64 * GB, 12 * GB), fresh=fresh)
    for event in events:
        if isinstance(event, tuple):
            comfy.send(*event[0], pins=event[1])
        else:
            comfy.tell(event)
        usage = comfy.residency.usage()
        assert (usage.ram_others or 0) >= 0
        assert (usage.vram_others or 0) >= 0
        for state in comfy.residency.components():
            assert state.tier is comfy.residency.tier(state.ref)
            assert state.tier is not Tier.HOT or flags.uses_vram
    share = comfy.residency.accuracy().share
    assert share is None or 0.0 <= share <= 1.0
    comfy.tell(UpstreamDied())
    assert set(comfy.tiers("abc").values()) == {Tier.COLD}


def test_between_two_events_each_component_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decision asks hundreds of times, and must take less than a millisecond."""
    asked: list[ModelRef] = []
    alive = NodeCache.alive

    def noted(cache: NodeCache, component: ModelRef) -> bool | None:
        asked.append(component)
        return alive(cache, component)

    comfy = ComfyUI()
    monkeypatch.setattr(NodeCache, "alive", noted)
    assert [comfy.residency.tier(ref("a")) for _ in range(3)] == [Tier.COLD] * 3
    assert asked == [ref("a")]
    comfy.run(comfy.send("a"))
    asked.clear()
    assert [comfy.residency.tier(ref("a")) for _ in range(3)] == [Tier.WARM] * 3
    assert asked == [ref("a")]
