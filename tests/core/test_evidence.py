from typing import Any

import pytest

from normalizer import Chain
from normalizer.models import ModelRef
from proxy.core.evidence import Part, StepClock, Use, consumers

OUTPUTS = {
    "Checkpoint": ("MODEL", "CLIP", "VAE"),
    "UNET": ("MODEL",),
    "Named": ("UPSCALE_MODEL", "STRING"),
    "Lora": ("MODEL", "CLIP"),
    "Sampling": ("MODEL",),
}
CKPT, LORA, UNET = (ModelRef(kind, (name,)) for kind, name in (("Checkpoint", "c"), ("Lora", "l"), ("UNET", "u")))


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def found(prompt: dict[str, Any], chain_ids: str, components: dict[str, ModelRef]) -> dict[str, frozenset[Part]]:
    nodes = {node_id: prompt[node_id] for node_id in chain_ids}
    chain = Chain(key=chain_ids[-1], signature="", nodes=nodes, models=frozenset(components.values()))
    return consumers(prompt, [chain], components, OUTPUTS)


def parts(*wanted: tuple[ModelRef, str, float]) -> frozenset[Part]:
    return frozenset(Part(*each) for each in wanted)


def test_each_consumer_uses_the_model_it_is_linked_to() -> None:
    prompt = {
        "c": node("Checkpoint", name="c"),
        "t": node("Encode", clip=["c", 1], text="x"),
        "k": node("Sample", model=["c", 0], positive=["t", 0]),
        "v": node("Decode", vae=["c", 2], samples=["k", 0]),
    }
    assert found(prompt, "c", {"c": CKPT}) == {
        "t": parts((CKPT, "CLIP", 0.24)),
        "k": parts((CKPT, "MODEL", 0.74)),
        "v": parts((CKPT, "VAE", 0.02)),
    }


def test_a_lora_patches_what_goes_through_it() -> None:
    prompt = {
        "c": node("Checkpoint", name="c"),
        "l": node("Lora", name="l", model=["c", 0], clip=["c", 1]),
        "s": node("Sampling", model=["l", 0]),
        "k": node("Sample", model=["s", 0]),
        "v": node("Decode", vae=["c", 2]),
    }
    assert found(prompt, "cls", {"c": CKPT, "l": LORA}) == {
        "k": parts((CKPT, "MODEL", 0.74), (LORA, "MODEL", 0.0)),
        "v": parts((CKPT, "VAE", 0.02)),
    }


@pytest.mark.parametrize(("class_type", "kind"), [("UNET", "MODEL"), ("Named", "UPSCALE_MODEL")])
def test_a_loader_of_one_model_gives_all_its_bytes(class_type: str, kind: str) -> None:
    ref = ModelRef(class_type, ("u",))
    prompt = {"u": node(class_type, name="u"), "k": node("Sample", model=["u", 0])}
    assert found(prompt, "u", {"u": ref}) == {"k": parts((ref, kind, 1.0))}


@pytest.mark.parametrize("link", [["u", 7], ["u", -1], ["u", "0"], ["u"], [], ["gone", 0], "u", None])
def test_odd_links_are_no_use(link: object) -> None:
    prompt = {"u": node("UNET", name="u"), "k": node("Sample", model=link)}
    assert found(prompt, "u", {"u": UNET}) == {}


def test_odd_nodes_are_no_use() -> None:
    prompt = {"u": node("UNET"), "a": {"class_type": "X"}, "b": {"class_type": "X", "inputs": None}, "c": 5}
    assert found(prompt, "u", {"u": UNET}) == {}


def test_patches_are_told_from_weights() -> None:
    use = Use(parts((CKPT, "MODEL", 0.74), (LORA, "MODEL", 0.0)), "Sample", 1.0)
    assert use.weights == parts((CKPT, "MODEL", 0.74))
    assert use.patches == {LORA}


def clock(*events: tuple[str, dict[str, Any], float]) -> StepClock:
    made = StepClock()
    for kind, data, at in events:
        made.handle(kind, data, at)
    return made


def test_the_first_step_is_told_from_the_later_ones() -> None:
    steps = clock(
        ("executing", {"node": "k"}, 10.0),
        ("progress", {"node": "k", "value": 1, "max": 3}, 15.0),
        ("progress", {"node": "k", "value": 2, "max": 3}, 17.0),
        ("progress", {"node": "k", "value": 3, "max": 3}, 19.0),
    )
    assert steps.use("k", frozenset(), "Sample", 9.0) == Use(frozenset(), "Sample", 5.0, 2.0)


def test_a_single_step_has_nothing_to_compare_with() -> None:
    steps = clock(("executing", {"node": "k"}, 10.0), ("progress", {"node": "k", "value": 1}, 15.0))
    assert steps.use("k", frozenset(), "Sample", 9.0) == Use(frozenset(), "Sample", 5.0, None)


def test_without_steps_it_is_the_whole_node() -> None:
    steps = clock(
        ("executing", {"node": "t"}, 10.0),
        ("progress", {"node": "t", "value": 0}, 11.0),
        ("progress", {"node": "t", "value": "x"}, 11.0),
        ("progress", {"node": "other", "value": 1}, 11.0),
        ("executing", {"node": None}, 12.0),
        ("executed", {"node": "t"}, 12.0),
    )
    assert steps.use("t", frozenset(), "Encode", 2.0) == Use(frozenset(), "Encode", 2.0)
    assert steps.use("other", frozenset(), "X", 3.0) == Use(frozenset(), "X", 3.0)
