"""The way back itself: small, whole after a journey, and told from what a client keeps under its name."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normalizer import EXTRA_DATA_KEY, WayBack, mentions_sent_id, normalize, with_client_prompt
from normalizer.rules import DroppedKey
from tests.normalizer.carried import LOADER
from tests.normalizer.schemas import SCHEMA, node, text_to_image


def test_dropped_keys_come_back_to_their_places() -> None:
    prompt = {"1": node("VAELoader", a=1, vae_name="v", b=[], c=None), "2": node("Sink", vae=["1", 0])}
    normalized = normalize(prompt, SCHEMA)
    assert len(normalized.prompt[next(iter(normalized.way_back.ids))]["inputs"]) == 1
    assert json.dumps(normalized.way_back.prompt(normalized.prompt)) == json.dumps(prompt)


def test_the_way_back_is_small() -> None:
    assert len(json.dumps(normalize(text_to_image(), SCHEMA).way_back.to_json())) < 100
    assert WayBack().to_json() == {"v": 1}


@given(
    st.builds(
        WayBack,
        ids=st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
        pins=st.lists(st.text(max_size=3), max_size=2).map(tuple),
        dropped=st.dictionaries(
            st.text(max_size=2),
            st.lists(st.builds(DroppedKey, st.integers(0, 9), st.text(max_size=2), st.integers()), max_size=2).map(
                tuple
            ),
            max_size=2,
        ),
        added=st.lists(st.sampled_from(["client_id", "extra_pnginfo"]), max_size=2).map(tuple),
        number=st.one_of(st.none(), st.integers(), st.floats(allow_nan=False)),
        create_time=st.one_of(st.none(), st.integers()),
    )
)
def test_it_survives_the_journey(way_back: WayBack) -> None:
    data = json.loads(json.dumps(way_back.into_extra_data({"a": 1})))
    found = WayBack.from_extra_data(data)
    assert found == way_back
    assert found is not None
    assert type(found.number) is type(way_back.number)


@pytest.mark.parametrize(
    "own",
    [
        None,
        "text",
        [],
        {},
        {"v": 2},
        {"v": 1, "ids": []},
        {"v": 1, "ids": 5},
        {"v": 1, "pins": 5},
        {"v": 1, "dropped": {"a": [["x"]]}},
        {"v": 1, "dropped": {"a": [["x", "y", "z"]]}},
        {"v": 1, "number": "7"},
        {"v": 1, "create_time": "now"},
    ],
)
def test_a_clients_own_key_of_that_name_is_no_way_back(own: Any) -> None:
    assert WayBack.from_extra_data({EXTRA_DATA_KEY: own}) is None


def test_no_extra_data_no_way_back() -> None:
    assert WayBack.from_extra_data(None) is None
    assert WayBack.from_extra_data({}) is None
    assert WayBack().into_extra_data({EXTRA_DATA_KEY: "mine", "a": 1}) == {EXTRA_DATA_KEY: {"v": 1}, "a": 1}


@given(st.text(), st.text(alphabet="0123456789917 3", max_size=30))
def test_the_quick_look_never_misses_an_id(before: str, after: str) -> None:
    text = f"{before}{LOADER}{after}"
    assert mentions_sent_id(text)
    assert mentions_sent_id(text.encode("utf-8", "surrogatepass"))


@given(st.text(alphabet="0123456789917 3", max_size=80))
def test_the_quick_look_finds_nothing_where_nothing_is(text: str) -> None:
    found = re.search(r"9173[0-9]{20}", text) is not None
    assert mentions_sent_id(text) is found
    assert mentions_sent_id(text.encode()) is found


CORE = {"1": node("VAELoader", vae_name="v"), "2": node("SaveImage", images=["1", 0], filename_prefix="x")}
MIXED = {**CORE, "3": node("ShowText", text="a")}


@pytest.mark.parametrize(
    ("given", "prompt", "expected", "added"),
    [
        ({}, CORE, {"extra_pnginfo": {"prompt": CORE}}, ("extra_pnginfo",)),
        ({"a": 1}, MIXED, {"a": 1}, ()),
        (
            {"extra_pnginfo": {"workflow": {"id": 1}}},
            MIXED,
            {"extra_pnginfo": {"workflow": {"id": 1}, "prompt": MIXED}},
            ("extra_pnginfo.prompt",),
        ),
        ({"extra_pnginfo": {}}, CORE, {"extra_pnginfo": {"prompt": CORE}}, ("extra_pnginfo.prompt",)),
        ({"extra_pnginfo": {}}, MIXED, {"extra_pnginfo": {}}, ()),
        ({"extra_pnginfo": None}, CORE, {"extra_pnginfo": None}, ()),
        ({"extra_pnginfo": {"prompt": "mine"}}, CORE, {"extra_pnginfo": {"prompt": "mine"}}, ()),
        ({}, {**CORE, "4": node("NotInTheSchema")}, {}, ()),
        ({}, {**CORE, "4": None}, {}, ()),
    ],
)
def test_files_carry_the_clients_own_prompt(
    given: dict[str, Any], prompt: dict[str, Any], expected: dict[str, Any], added: tuple[str, ...]
) -> None:
    before = json.dumps(given)
    result, what = with_client_prompt(given, prompt, SCHEMA)
    assert (result, what) == (expected, added)
    assert json.dumps(given) == before
    assert WayBack(added=what).extra_data(result) == given, "and it is taken out again"
