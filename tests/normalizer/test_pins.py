"""Carrying chains along: what is added, shared, left out, and never a risk."""

from typing import Any

import pytest

from normalizer import Chain, Schema, carry, normalize
from tests.normalizer.schemas import INFO, SCHEMA, node, text_to_image


def chain_of(prompt: dict[str, Any]) -> Chain:
    (chain,) = normalize(prompt, SCHEMA).chains
    return chain


def lora_chain(ckpt: str = "m1", lora: str = "l1", strength: float = 0.5, more: tuple[str, ...] = ()) -> Chain:
    nodes = {
        "1": node("SelfLoader", name=ckpt),
        "2": node("LoraLoaderModelOnly", model=["1", 0], lora_name=lora, strength_model=strength),
    }
    for place, name in enumerate(more, start=3):
        nodes[str(place)] = node("LoraLoaderModelOnly", model=[str(place - 1), 0], lora_name=name, strength_model=1.0)
    return chain_of({**nodes, "sink": node("Sink", model=[list(nodes)[-1], 0])})


def test_pins_come_last_and_say_so() -> None:
    mine = normalize(text_to_image(), SCHEMA)
    chain = lora_chain()
    carried = carry(mine, [chain], SCHEMA)
    assert list(carried.prompt) == [*mine.prompt, *chain.nodes]
    assert carried.way_back.pins == tuple(chain.nodes)
    assert {key: carried.prompt[key] for key in chain.nodes} == chain.nodes
    assert all(item["_meta"]["title"] == "kept loaded by comfykeep" for item in chain.nodes.values())
    assert [change.node_id for change in carried.changes if change.rule == "pin"] == list(chain.nodes)
    assert mine.prompt == normalize(text_to_image(), SCHEMA).prompt, "the argument is left as it is"
    assert carry(mine, [], SCHEMA) is mine


def test_shared_loaders_are_pinned_once() -> None:
    one, other = lora_chain(lora="l1"), lora_chain(lora="l2")
    carried = carry(normalize(text_to_image(), SCHEMA), [one, other], SCHEMA)
    assert carried.way_back.pins == (*one.nodes, list(other.nodes)[-1])


def test_what_the_prompt_has_itself_is_not_pinned() -> None:
    prompt = text_to_image()
    mine = normalize(prompt, SCHEMA)
    assert carry(mine, mine.chains, SCHEMA) is mine
    more = chain_of(
        {**prompt, "x": node("ModelSamplingSD3", model=["10", 0], shift=3.0), "y": node("Sink", model=["x", 0])}
    )
    carried = carry(mine, [more], SCHEMA)
    assert carried.way_back.pins == (more.key,), "only what is more than its own"
    assert carried.prompt[more.key]["inputs"]["model"] == [list(more.nodes)[-2], 0]


def test_of_variants_the_prompts_own_is_kept() -> None:
    mine = normalize(text_to_image(strength=0.9), SCHEMA)
    other = chain_of(text_to_image(strength=0.5))
    assert carry(mine, [other], SCHEMA) is mine


def test_of_variants_among_pins_the_first_is_kept_with_all_that_hangs_on_it() -> None:
    first, second = lora_chain(strength=0.5, more=("l2",)), lora_chain(strength=0.7, more=("l3",))
    carried = carry(normalize(text_to_image(), SCHEMA), [first, second], SCHEMA)
    assert carried.way_back.pins == tuple(first.nodes)
    turned = carry(normalize(text_to_image(), SCHEMA), [second, first], SCHEMA)
    assert turned.way_back.pins == tuple(second.nodes)


def test_a_class_that_is_gone_is_left_out_with_what_hangs_on_it() -> None:
    chain = lora_chain(more=("l2",))
    gone = Schema.from_object_info({key: value for key, value in INFO.items() if key != "LoraLoaderModelOnly"})
    carried = carry(normalize(text_to_image(), SCHEMA), [chain], gone)
    assert carried.way_back.pins == tuple(chain.nodes)[:1]


@pytest.mark.parametrize("flag", ["output_node", "has_intermediate_output", "api_node"])
def test_a_class_that_would_run_is_left_out(flag: str) -> None:
    changed = Schema.from_object_info({**INFO, "SelfLoader": {**INFO["SelfLoader"], flag: True}})
    mine = normalize(text_to_image(), SCHEMA)
    assert carry(mine, [lora_chain()], changed) is mine


def test_a_prompt_that_lists_its_models_in_files_carries_nothing() -> None:
    prompt = {**text_to_image(), "save": node("SaveImageWithMetaData", images=["8", 0])}
    mine = normalize(prompt, SCHEMA)
    assert carry(mine, [lora_chain()], SCHEMA) is mine


def test_a_prompt_that_looks_ids_up_carries_pins_all_the_same() -> None:
    prompt = {**text_to_image(), "x": node("PromptReader", node_id="4")}
    mine = normalize(prompt, SCHEMA)
    chain = lora_chain()
    assert carry(mine, [chain], SCHEMA).way_back.pins == tuple(chain.nodes)
    assert carry(mine, mine.chains, SCHEMA) is mine, "its own chain would be there twice"
    more = chain_of(
        {
            **text_to_image(),
            "y": node("ModelSamplingSD3", model=["10", 0], shift=1.0),
            "z": node("Sink", model=["y", 0]),
        }
    )
    assert carry(mine, [more], SCHEMA).way_back.pins == tuple(more.nodes), "links may lead to pins only"


def test_the_prompts_own_nodes_are_shared_only_where_they_stand_under_their_stable_ids() -> None:
    """In a prompt that looks ids up they do not: a pin linked to one would be linked to nothing."""
    reader = {**text_to_image(), "x": node("PromptReader", node_id="4")}
    carried = carry(normalize(reader, SCHEMA), [chain_of(text_to_image(lora="another"))], SCHEMA)
    loader, patch = carried.way_back.pins
    assert carried.prompt[patch]["inputs"]["model"] == [loader, 0]


def test_an_id_that_the_client_uses_for_something_else_is_left_alone() -> None:
    chain = lora_chain()
    loader = next(iter(chain.nodes))
    mine = normalize({loader: node("ShowText", text="mine")}, SCHEMA)
    assert carry(mine, [chain], SCHEMA) is mine


def test_nor_is_one_where_the_prompts_own_loader_is_the_same_under_another_id() -> None:
    """It looks ids up, so its loader keeps "1", and the stable id of that loader belongs to a text."""
    chain = lora_chain()
    loader = next(iter(chain.nodes))
    prompt = {
        "1": node("SelfLoader", name="m1"),
        "2": node("Sink", model=["1", 0]),
        "3": node("PromptReader", node_id="1"),
        loader: node("ShowText", text="mine"),
    }
    mine = normalize(prompt, SCHEMA)
    assert mine.own[loader] == chain.nodes[loader]
    assert carry(mine, [chain], SCHEMA) is mine


def test_carrying_twice_adds_up() -> None:
    mine = normalize(text_to_image(), SCHEMA)
    one, other = lora_chain(lora="l1"), lora_chain(lora="l2")
    twice = carry(carry(mine, [one], SCHEMA), [other], SCHEMA)
    assert twice.way_back.pins == (*one.nodes, list(other.nodes)[-1])
    assert twice.prompt == carry(mine, [one, other], SCHEMA).prompt
