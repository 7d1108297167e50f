"""Prompts that are mostly sane: graphs of loaders, patches and consumers, with the oddities that clients send."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from normalizer import normalize
from tests.normalizer.schemas import SCHEMA, node

FILES = st.sampled_from(["m1", "m2", "a.safetensors", "sub\\b.safetensors", "ä.ckpt"])
KNOBS = st.one_of(
    st.sampled_from([0, 1, 1.0, True, 0.8, "0.8", -2, 2**64 - 1, "x", None, [1, 2], ["9", 0, 1]]),
    st.floats(allow_nan=False, width=32),
    st.builds(lambda value: {"__value__": value}, st.sampled_from([0.8, "3", [1, 2], {"a": 1}])),
)
JUNK = st.dictionaries(
    st.sampled_from(["junk", "control_after_generate", "Add Lora", "lora_1"]),
    st.one_of(
        st.sampled_from(["", "fixed", None, [], {}, [1, 2], ["no", "link"]]),
        st.fixed_dictionaries({"on": st.booleans(), "lora": FILES, "strength": st.sampled_from([0, 0.5, 1])}),
    ),
    max_size=2,
)

Fill = Callable[[Any], dict[str, Any]]
Kinds = dict[str, tuple[list[str], Fill]]

SOURCES: Kinds = {
    "CheckpointLoaderSimple": ([], lambda draw: {"ckpt_name": draw(FILES)}),
    "VAELoader": ([], lambda draw: {"vae_name": draw(FILES)}),
    "SelfLoader": ([], lambda draw: {"name": draw(FILES), "salt": draw(KNOBS)}),
    "UniqueLoader": ([], lambda draw: {"name": draw(FILES)}),
    "KeepsIdLoader": ([], lambda draw: {"ckpt": draw(FILES)}),
    "WanCompile": ([], lambda draw: {"backend": "inductor", "fullgraph": draw(KNOBS)}),
    "EfficientLoader": (
        [],
        lambda draw: {"ckpt_name": draw(FILES), "positive": draw(st.text(max_size=2)), "clip_skip": draw(KNOBS)},
    ),
    "EmptyLatentImage": ([], lambda _: {"width": 8, "height": 8, "batch_size": 1}),
}
PATCHES: Kinds = {
    "LoraLoader": (
        ["model", "clip"],
        lambda draw: {"lora_name": draw(FILES), "strength_model": draw(KNOBS), "strength_clip": draw(KNOBS)},
    ),
    "LoraLoaderModelOnly": (["model"], lambda draw: {"lora_name": draw(FILES), "strength_model": draw(KNOBS)}),
    "CLIPSetLastLayer": (["clip"], lambda draw: {"stop_at_clip_layer": draw(KNOBS)}),
    "ModelSamplingLTXV": (["model", "latent"], lambda draw: {"max_shift": draw(KNOBS), "base_shift": 0.5}),
    "ModelMergeSimple": (["model1", "model2"], lambda draw: {"ratio": draw(KNOBS)}),
    "DiffControlNetLoader": (["model"], lambda draw: {"control_net_name": draw(FILES)}),
    "PowerLora": (["model", "clip"], lambda draw: draw(JUNK)),
    "WanLoader": (["compile_args"], lambda draw: {"model": draw(FILES), "quantization": "off"}),
    "AnySwitch": (["a", "b"], lambda _: {}),
}
USERS: Kinds = {
    "CLIPTextEncode": (["clip"], lambda draw: {"text": draw(st.text(max_size=2))}),
    "Sink": (["model", "clip", "vae"], lambda _: {}),
    "PreviewAny": (["source"], lambda _: {}),
    "ShowText": (["text"], lambda _: {}),
}
READERS: Kinds = {
    "PromptReader": ([], lambda _: {"node_id": "1"}),
    "LoopOpen": (["value"], lambda _: {}),
}
STABLE = [
    next(iter(normalize({"1": made, "2": node("Sink", model=["1", 0])}, SCHEMA).way_back.ids))
    for made in (node("CheckpointLoaderSimple", ckpt_name="m1"), node("SelfLoader", name="m2"))
]
"""Ids that the normalizer itself gives, as a client may have them from a file it once saved."""

IDS = st.one_of(
    st.integers(1, 60).map(str),
    st.sampled_from(
        [
            "a:b",
            "3:7",
            "x.0.0.y",
            "",
            "#1 größe",
            "__proto__",
            "9173",
            "01",
            *STABLE,
            *(sid[:-2] + "01" for sid in STABLE),
        ]
    ),
)


@st.composite
def prompts(draw: st.DrawFn, *, readers: bool = True, odd: bool = True) -> dict[str, Any]:
    """A prompt whose nodes are all of known classes and well formed, though not all would pass validation."""
    users = USERS if not readers or draw(st.integers(0, 7)) else READERS
    kinds = [
        *draw(st.lists(st.sampled_from(sorted(SOURCES)), min_size=1, max_size=3)),
        *draw(st.lists(st.sampled_from(sorted(PATCHES)), min_size=1, max_size=4)),
        *draw(st.lists(st.sampled_from(sorted(users)), max_size=2)),
        "Sink",
    ]
    ids = draw(st.lists(IDS, unique=True, min_size=len(kinds), max_size=len(kinds)))
    prompt = {}
    for place, (node_id, class_type) in enumerate(zip(ids, kinds, strict=True)):
        sockets, fill = ({**SOURCES, **PATCHES, **USERS, **READERS})[class_type]
        inputs = {**fill(draw), **(draw(JUNK) if odd and draw(st.booleans()) else {})}
        for socket in sockets:
            link = draw(_links(ids, place, odd=odd))
            if link is not None:
                inputs[socket] = link
        if odd and draw(st.integers(0, 7)) == 0:
            inputs["undeclared"] = draw(_links(ids, place, odd=odd))
        prompt[node_id] = {"class_type": class_type, "inputs": inputs, **draw(_EXTRAS)}
    return dict(draw(st.permutations(list(prompt.items())))) if draw(st.booleans()) else prompt


_EXTRAS: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{}, {}, {}, {"_meta": {"title": "a node"}}, {"is_changed": ["x"]}, {"is_changed": None}]
)


def _links(ids: list[str], place: int, *, odd: bool) -> st.SearchStrategy[Any]:
    """Mostly a link to an earlier node; now and then none, or one to itself, onwards, to nowhere, or a bad one.

    Nowhere can have an id that the normalizer gives: the client took a node out of a prompt that a file had carried.
    """
    slots = st.integers(0, 2)
    earlier = st.tuples(st.sampled_from(ids[:place]), slots).map(list) if place else st.none()
    if not odd:
        return st.one_of(*[earlier] * 5, st.none())
    named = [*ids, "nowhere", *STABLE]
    anywhere = st.tuples(st.sampled_from(named), st.one_of(slots, st.sampled_from([0.0, True, -1])))
    bad = st.sampled_from(named).flatmap(
        lambda node_id: st.sampled_from([[node_id, "0"], [node_id], [1, 0], {"__value__": [node_id, 0]}])
    )
    return st.one_of(*[earlier] * 8, st.none(), anywhere.map(list), bad)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["class_type", "inputs", "a", "__value__"]), inner, max_size=3),
    ),
    max_leaves=12,
)
