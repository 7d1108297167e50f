"""What must hold for every prompt, judged by an oracle of ComfyUI's own keys."""

import copy
import json
import random
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from normalizer import Chain, MalformedPrompt, Normalized, WayBack, carry, normalize
from tests.normalizer import oracle
from tests.normalizer.schemas import INFO, SCHEMA, node
from tests.normalizer.strategies import JSON, STABLE, prompts

V1_LOADERS = {"CheckpointLoaderSimple", "VAELoader", "LoraLoader", "LoraLoaderModelOnly", "CLIPSetLastLayer"}
V1_LOADERS |= {"DiffControlNetLoader"}


def same_text(one: Any, other: Any) -> bool:
    """Equal key for key, in the same order, with the same types."""
    return json.dumps(one) == json.dumps(other)


def keys(prompt: dict[str, Any]) -> dict[str, Any]:
    seen = oracle.validated(prompt, INFO)
    return {node_id: oracle.signature(seen, node_id, INFO) for node_id in prompt}


def tells_ids(prompt: dict[str, Any], node_id: str) -> bool:
    """Whether the signature of a node holds its own id or an ancestor's."""
    order: dict[str, int] = {}
    oracle._walk(prompt, node_id, order)
    return any(prompt.get(part, {}).get("class_type") == "UniqueLoader" for part in (node_id, *order))


def without_junk(prompt: dict[str, Any]) -> dict[str, Any]:
    """The prompt without the keys that core V1 loader classes never see."""
    result = copy.deepcopy(prompt)
    for item in result.values():
        if item["class_type"] in V1_LOADERS:
            sections = INFO[item["class_type"]]["input"]
            declared = {name for section in sections.values() for name in section}
            item["inputs"] = {k: v for k, v in item["inputs"].items() if k in declared or oracle.is_link(v)}
    return result


MISSING = {
    "1": node("CheckpointLoaderSimple", ckpt_name="m1"),
    "2": node("Sink", model=[STABLE[0], 0], clip={"__value__": [STABLE[0], 1]}),
}
"""Two links lead to a node that is not there, and whose id the other would be given if it were free."""


@settings(max_examples=150, deadline=None)
@example(MISSING)
@given(prompts())
def test_the_way_back_leads_back(prompt: dict[str, Any]) -> None:
    before = json.dumps(prompt)
    normalized = normalize(prompt, SCHEMA)
    assert json.dumps(prompt) == before
    assert same_text(normalized.way_back.prompt(normalized.prompt), prompt)
    through_json = WayBack.from_json(json.loads(json.dumps(normalized.way_back.to_json())))
    assert through_json is not None
    assert same_text(through_json.prompt(json.loads(json.dumps(normalized.prompt))), prompt)


@settings(max_examples=100, deadline=None)
@given(prompts())
def test_twice_is_once(prompt: dict[str, Any]) -> None:
    once = normalize(prompt, SCHEMA)
    twice = normalize(once.prompt, SCHEMA)
    assert same_text(twice.prompt, once.prompt)
    assert not twice.changes
    assert twice.models == once.models
    assert {chain.signature for chain in twice.chains} == {chain.signature for chain in once.chains}


@settings(max_examples=150, deadline=None)
@given(prompts(readers=False, odd=False))
def test_signatures_are_those_of_the_client_without_junk(prompt: dict[str, Any]) -> None:
    normalized = normalize(prompt, SCHEMA)
    new_ids = {old: new for new, old in normalized.way_back.ids.items()}
    expected, found = keys(without_junk(prompt)), keys(normalized.prompt)
    chain_nodes = set(normalized.own)
    for node_id in prompt:
        new_id = new_ids.get(node_id, node_id)
        order: dict[str, int] = {}
        oracle._walk(normalized.prompt, new_id, order)
        junk_kept = any(part not in chain_nodes for part in (new_id, *order))
        wanted = expected[node_id] if not junk_kept else keys(prompt)[node_id]
        if not tells_ids(prompt, node_id) and not (junk_kept and wanted != expected[node_id]):
            assert found[new_id] == expected[node_id]


@settings(max_examples=100, deadline=None)
@example({"1": MISSING["1"], "2": node("Sink", model=["1", 0])}, MISSING)
@given(prompts(), prompts())
def test_equal_stays_equal_and_different_stays_different(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Across two prompts, for every node whose ancestry names no id and carries no junk."""
    pairs = []
    for prompt in (one, other):
        normalized = normalize(prompt, SCHEMA)
        new_ids = {old: new for new, old in normalized.way_back.ids.items()}
        before, after, clean = keys(prompt), keys(normalized.prompt), keys(without_junk(prompt))
        pairs += [
            (before[node_id], after[new_ids.get(node_id, node_id)])
            for node_id in prompt
            if before[node_id] == clean[node_id] and not tells_ids(prompt, node_id)
        ]
    for before, after in pairs:
        assert all((before == other_before) == (after == other_after) for other_before, other_after in pairs)


ALONE = {"1": node("VAELoader", vae_name="v"), "2": node("Sink", vae=["1", 0])}
SALTED = {"1": node("SelfLoader", name="m1", salt=1), "2": node("Sink", model=["1", 0])}
BADLY_LINKED = {
    STABLE[1]: node("SelfLoader", name="m2", salt="3"),
    "2": node("Sink", model=[STABLE[1]], undeclared=[STABLE[1], 0]),
}
"""Validation reports the list of one and does not follow it; the other it does not see. So the salt is never cast."""


@settings(max_examples=40, deadline=None)
@example(
    ALONE, [{**SALTED, "3": node("PromptReader", node_id="1")}, {**SALTED, "1": node("SelfLoader", name="m1", salt=2)}]
)
@example(ALONE, [BADLY_LINKED])
@example({"2": MISSING["2"]}, [{"1": MISSING["1"], "2": node("Sink", model=["1", 0])}])
@given(prompts(readers=False), st.lists(prompts(), max_size=3))
def test_pins_change_no_key_and_hold_the_key_of_what_ran(prompt: dict[str, Any], others: list[dict[str, Any]]) -> None:
    mine = normalize(prompt, SCHEMA)
    chains: list[Chain] = []
    ran: set[Any] = set()
    for other in others:
        theirs = normalize(other, SCHEMA)
        chains += theirs.chains
        ran.update(keys(theirs.prompt).values())
    carried = carry(mine, chains, SCHEMA)
    assert list(carried.prompt) == [*mine.prompt, *carried.way_back.pins]
    before, after = keys(mine.prompt), keys(carried.prompt)
    assert all(after[node_id] == before[node_id] for node_id in mine.prompt)
    for pin in carried.way_back.pins:
        item = carried.prompt[pin]
        assert item["_meta"]
        assert all(value[0] in carried.prompt for value in item["inputs"].values() if oracle.is_link(value))
        assert not INFO[item["class_type"]]["output_node"]
        assert after[pin] in ran
    assert same_text(carried.way_back.prompt(carried.prompt), prompt)
    assert carry(mine, chains, SCHEMA) == carried


@settings(max_examples=100, deadline=None)
@given(prompts(odd=False), st.randoms(use_true_random=False))
def test_ids_are_stable_under_renaming_and_reordering(prompt: dict[str, Any], rng: random.Random) -> None:
    names = [f"n{place}" for place in range(len(prompt))]
    rng.shuffle(names)
    rename = dict(zip(prompt, names, strict=True))
    items = [
        (
            rename[node_id],
            {
                **item,
                "inputs": {
                    name: [rename[value[0]], value[1]] if oracle.is_link(value) else value
                    for name, value in item["inputs"].items()
                },
            },
        )
        for node_id, item in prompt.items()
    ]
    rng.shuffle(items)
    plain = {node_id: item for node_id, item in prompt.items() if not node_id.startswith("9173")}
    if len(plain) < len(prompt):
        return  # an id of ours in the client's hands may shift an ordinal, by design
    one, other = normalize(prompt, SCHEMA), normalize(dict(items), SCHEMA)
    assert _by_id(one) == _by_id(other)
    assert {chain.key: chain.signature for chain in one.chains} == {c.key: c.signature for c in other.chains}
    assert one.models == other.models


def _by_id(normalized: Normalized) -> dict[str, Any]:
    seen = oracle.validated(normalized.prompt, INFO)
    return {
        node_id: oracle.signature(seen, node_id, INFO)
        for node_id in normalized.own
        if node_id in seen and not tells_ids(seen, node_id)
    }


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(max_size=3), JSON, max_size=4))
def test_nothing_makes_it_fail(prompt: dict[str, Any]) -> None:
    normalized = normalize(prompt, SCHEMA)
    assert same_text(normalized.way_back.prompt(normalized.prompt), prompt)


@given(JSON)
def test_only_objects_are_prompts(value: Any) -> None:
    try:
        normalize(value, SCHEMA)
    except MalformedPrompt:
        assert not isinstance(value, dict)
    else:
        assert isinstance(value, dict)


def test_numbers_do_not_change_the_id_but_the_signature() -> None:
    def chain(strength: Any) -> Any:
        loader = node("CheckpointLoaderSimple", ckpt_name="m1")
        lora = node("LoraLoaderModelOnly", model=["1", 0], lora_name="l", strength_model=strength)
        return normalize({"1": loader, "2": lora, "3": node("Sink", model=["2", 0])}, SCHEMA).chains[0]

    assert chain(0.8).key == chain(0.9).key
    assert chain(0.8).signature != chain(0.9).signature
    assert chain(0.8) == chain("0.8") == chain({"__value__": 0.8})
