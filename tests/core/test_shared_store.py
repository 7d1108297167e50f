"""What the Inspire Pack's cache holds between two lists of it, and which of its keys are let go."""

from normalizer import Chain, ModelRef
from normalizer.shared import cache_key
from proxy.core.letting_go import PATIENCE, keys_to_let_go
from proxy.core.shared_store import Listing, SharedStore, read_listing

REFS = {name: ModelRef("CheckpointLoaderSimple", (f"{name}.safetensors",)) for name in "abcdef"}
KEYS = {name: cache_key("CheckpointLoaderSimple", {"ckpt_name": f"{name}.safetensors"}) for name in "abcdef"}
LIST = f"""---- [String Key Caches] ----
{KEYS["a"]}: ckpt
my: own: latent
{KEYS["b"]}: diffusion

---- [Number Key Caches] ----
7: image

---- [TagCache Settings] ----
ckpt: 5
latent: 100
diffusion: 20
odd: many
"""


def listed(names: str, limit: int = 3, **others: str) -> Listing:
    return Listing({KEYS[name]: "ckpt" for name in names} | others, {"ckpt": limit})


def used(names: str) -> dict[str, ModelRef]:
    return {KEYS[name]: REFS[name] for name in names}


def store_with(names: str, limit: int = 3, **others: str) -> SharedStore:
    store = SharedStore()
    store.use(used(names))
    store.read(listed(names, limit, **others))
    return store


def chain(name: str) -> Chain:
    return Chain(name, name, {}, frozenset({REFS[name]}))


def gone(store: SharedStore, chosen: str, now: float = 0.0) -> dict[str, str]:
    names = {key: name for name, key in KEYS.items()}
    found = keys_to_let_go(store, [chain(name) for name in chosen], {REFS["f"]: "too large"}, 0.0, now)
    return {names[item.key]: item.reason for item in found}


def test_the_list_is_read() -> None:
    listing = read_listing(LIST)
    assert listing.tags == {KEYS["a"]: "ckpt", "my: own": "latent", KEYS["b"]: "diffusion"}
    assert listing.limits == {"ckpt": 5, "latent": 100, "diffusion": 20}


def test_a_list_that_is_none_is_empty() -> None:
    assert read_listing("<html>nothing here: really") == Listing({}, {})
    assert read_listing("") == Listing()


def test_what_was_loaded_is_held_until_it_is_removed_or_all_is_lost() -> None:
    store = SharedStore()
    store.use(used("ab"))
    assert store.refs() == {REFS["a"], REFS["b"]}
    assert store.puzzling
    store.remove([KEYS["a"]])
    assert not store.holds(KEYS["a"])
    assert store.holds(KEYS["b"])
    store.clear()
    assert not store.refs()


def test_a_list_says_what_is_there() -> None:
    store = SharedStore()
    store.use(used("ab"))
    store.read(listed("bc", mine="latent"))
    assert store.refs() == {REFS["b"]}
    assert store.ours() == {KEYS["b"]: REFS["b"], KEYS["c"]: None}
    assert not store.puzzling
    store.use(used("c"))
    assert store.refs() == {REFS["b"], REFS["c"]}
    assert not store.puzzling


def test_of_a_full_tag_the_longest_unused_goes() -> None:
    store = store_with("abc", limit=3)
    store.use(used("a"))
    store.read(Listing({KEYS[name]: "ckpt" for name in "bca"} | {KEYS["d"]: "ckpt"}, {"ckpt": 3}))
    store.use(used("a"))
    assert set(store.ours()) == {KEYS["c"], KEYS["d"], KEYS["a"]}


def test_a_key_of_unknown_tag_pushes_nothing_out() -> None:
    store = store_with("abc", limit=3)
    store.use(used("d"))
    assert len(store.ours()) == 4
    assert store.puzzling


def test_what_is_in_no_chosen_chain_is_let_go_with_its_reason() -> None:
    assert gone(store_with("abf", limit=5), "ab") == {"f": "too large"}
    assert gone(store_with("abc", limit=5), "ab") == {"c": "in no chain that is kept"}
    assert gone(store_with("ab", limit=5), "ba") == {}


def test_the_packs_limit_is_shared_with_others_and_keeps_the_more_important() -> None:
    store = store_with("abc", limit=3, theirs="ckpt")
    assert gone(store, "cab") == {"b": "the pack keeps 3 under 'ckpt', and others are worth more"}
    assert gone(store_with("abc", limit=3, theirs="latent"), "cab") == {}


def test_keys_of_an_earlier_proxy_have_time_to_be_asked_for() -> None:
    store = SharedStore()
    store.read(listed("a", mine="ckpt"))
    assert gone(store, "", now=PATIENCE) == {}
    assert gone(store, "", now=PATIENCE + 1) == {"a": "left by an earlier comfykeep, and nobody has asked for it"}
    store.use(used("a"))
    assert gone(store, "a", now=PATIENCE + 1) == {}
