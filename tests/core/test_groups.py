import math

import pytest

from normalizer.models import ModelRef
from proxy.core.groups import ON_DEMAND_SECONDS, Group, Keep, group_of, unmatched_globs


def ref(*files: str) -> ModelRef:
    return ModelRef("UNETLoader", files)


@pytest.mark.parametrize(
    ("glob", "name", "matches"),
    [
        ("flux*", "flux1-dev.safetensors", True),
        ("flux*", "video\\flux1-dev.safetensors", True),
        ("video/*", "video\\wan.safetensors", True),
        ("video/*", "wan.safetensors", False),
        ("sdxl*", "flux1-dev.safetensors", False),
        ("Flux*", "flux1-dev.safetensors", False),
    ],
)
def test_globs(glob: str, name: str, matches: bool) -> None:
    assert Group("g", (glob,)).matches(ref("default", name)) is matches


def test_the_highest_priority_speaks_for_a_model() -> None:
    low, high = Group("low", ("*",), priority=1), Group("high", ("flux*",), priority=2)
    assert group_of(frozenset({ref("flux.safetensors")}), (low, high)) is high
    assert group_of(frozenset({ref("wan.safetensors")}), (low, high)) is low
    assert group_of(frozenset({ref("wan.safetensors")}), (high,)) is None


def test_idle_limits() -> None:
    assert Group("g", ("*",)).idle_limit == math.inf
    assert Group("g", ("*",), Keep.ON_DEMAND).idle_limit == ON_DEMAND_SECONDS
    assert Group("g", ("*",), Keep.ON_DEMAND, ttl=5).idle_limit == 5


@pytest.mark.parametrize(
    ("models", "keep", "ttl", "word"),
    [
        ((), Keep.TOGETHER, None, "glob"),
        (("*",), Keep.TOGETHER, -1.0, "ttl"),
        (("*",), Keep.TOGETHER, math.inf, "ttl"),
        (("*",), Keep.TOGETHER, math.nan, "ttl"),
        (("*",), Keep.ALWAYS, 5.0, "contradict"),
    ],
)
def test_bad_groups_say_what_is_wrong(models: tuple[str, ...], keep: Keep, ttl: float | None, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Group("g", models, keep, ttl=ttl)


NAMES = ["flux1-dev.safetensors", "sdxl-base.safetensors", "video\\wan2.1_t2v_14B_fp8.safetensors", "vae/ae.sft"]


@pytest.mark.parametrize(
    ("glob", "nearest"),
    [
        ("flux1-dew.safetensors", ("flux1-dev.safetensors",)),
        ("fluks*", ("flux1-dev.safetensors",)),
        ("Flux1*", ("flux1-dev.safetensors",)),
        ("wann*", ("video/wan2.1_t2v_14B_fp8.safetensors",)),
        ("vidoe/*", ("video/wan2.1_t2v_14B_fp8.safetensors",)),
        ("*_t2w_*", ("video/wan2.1_t2v_14B_fp8.safetensors",)),
        ("*.stf", ("vae/ae.sft",)),
        ("hunyuan*", ()),
        ("?", ()),
    ],
)
def test_a_typo_is_told_with_the_nearest_names(glob: str, nearest: tuple[str, ...]) -> None:
    (found,) = unmatched_globs([Group("stills", (glob, "sdxl*"))], NAMES)
    assert (found.glob, found.nearest, found.alone) == (glob, nearest, False)
    assert str(found).startswith(f"[[group]] 'stills': models has {glob!r}, which matches no model file")
    assert all(name in str(found) for name in nearest)


def test_a_group_of_which_nothing_matches_is_told_apart() -> None:
    groups = [Group("films", ("wann*", "x*")), Group("stills", ("x*", "sdxl*")), Group("all", ("*",))]
    assert [(each.group, each.glob, each.alone) for each in unmatched_globs(groups, NAMES)] == [
        ("films", "wann*", True),
        ("films", "x*", True),
        ("stills", "x*", False),
    ]


def test_nothing_is_near_where_there_are_no_files() -> None:
    assert [each.nearest for each in unmatched_globs([Group("all", ("*",))], [])] == [()]
