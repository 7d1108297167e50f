"""What makes two nodes the same to the cache."""

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import SimulatorConfig
from simulator.graph import DynamicPrompt
from simulator.nodes.catalogue import node_classes
from simulator.signature import InputSignatures
from tests.simulator.support import image, node, renamed

CLASSES = node_classes(SimulatorConfig())


async def _unchanged(node_id: str) -> bool:
    del node_id
    return False


def keys(prompt: dict[str, Any]) -> dict[str, Any]:
    """The key of each node."""

    async def make() -> dict[str, Any]:
        signatures = InputSignatures(DynamicPrompt(prompt), CLASSES, _unchanged)
        await signatures.add(prompt)
        return dict(signatures.keys)

    return asyncio.run(make())


VALUES = st.one_of(st.integers(), st.text(max_size=5), st.booleans(), st.none(), st.floats(allow_nan=False))


@st.composite
def prompts(draw: st.DrawFn) -> dict[str, Any]:
    """A graph without cycles: each node may refer to those before it."""
    prompt: dict[str, Any] = {}
    for index in range(draw(st.integers(1, 6))):
        inputs: dict[str, Any] = draw(st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=3))
        for name in draw(st.lists(st.sampled_from("wxyz"), max_size=3)) if prompt else []:
            inputs[name] = [draw(st.sampled_from(sorted(prompt))), draw(st.integers(0, 2))]
        prompt[str(index)] = node(draw(st.sampled_from(["PreviewAny", "KSampler", "VAEDecode"])), **inputs)
    return prompt


@settings(max_examples=60, deadline=None)
@given(prompts(), st.text("xyz:", min_size=1, max_size=3))
def test_ids_and_the_order_of_inputs_do_not_matter(prompt: dict[str, Any], prefix: str) -> None:
    other = renamed(prompt, prefix)
    turned = {key: {**each, "inputs": dict(reversed(each["inputs"].items()))} for key, each in reversed(other.items())}
    assert keys(prompt) == {node_id.removeprefix(prefix): key for node_id, key in keys(turned).items()}


@settings(max_examples=60, deadline=None)
@given(prompts(), st.data())
def test_an_input_matters_to_its_node_and_all_behind_it(prompt: dict[str, Any], data: st.DataObject) -> None:
    changed = data.draw(st.sampled_from(sorted(prompt)))
    behind = {changed}
    for node_id, each in prompt.items():
        if any(isinstance(value, list) and value[0] in behind for value in each["inputs"].values()):
            behind.add(node_id)
    before = keys(prompt)
    inputs = {**prompt[changed]["inputs"], "undeclared": "new"}
    after = keys({**prompt, changed: {**prompt[changed], "inputs": inputs}})
    assert {node_id for node_id in prompt if before[node_id] != after[node_id]} == behind


def test_the_class_matters() -> None:
    assert keys({"1": node("VAEDecode")}) != keys({"1": node("KSampler")})


def test_a_link_to_nowhere_never_equals_itself() -> None:
    prompt = {"1": node("VAEDecode", vae=["9", 0])}
    assert keys(prompt) != keys(prompt)


def test_two_links_are_not_the_same_as_one() -> None:
    one = {"1": node("VAELoader", vae_name="v"), "2": node("VAEDecode", vae=["1", 0], samples=["1", 0])}
    two = {**one, "3": node("VAELoader", vae_name="v"), "2": node("VAEDecode", vae=["1", 0], samples=["3", 0])}
    assert keys(one)["2"] != keys(two)["2"]


def test_a_class_that_reads_its_id_has_it_in_its_key() -> None:
    made = keys({"1": node("FakeUniqueIdLoader", name="m1"), "2": node("FakeUniqueIdLoader", name="m1")})
    assert made["1"] != made["2"]
    newer = keys({"1": node("GetImageSize", image=None), "2": node("GetImageSize", image=None)})
    assert newer["1"] == newer["2"]


def test_a_whole_workflow() -> None:
    assert set(keys(image("a")).values()) == set(keys(image("a", prefix="7:")).values())
