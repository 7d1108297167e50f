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


def test_a_typo_is_told_with_the_nearest_names() -> None:
    groups = [Group("stills", ("flux1-dew.safetensors", "sdxl*"))]
    (found,) = unmatched_globs(groups, ["flux1-dev.safetensors", "sdxl-base.safetensors"])
    assert found.glob == "flux1-dew.safetensors"
    assert "flux1-dev.safetensors" in str(found)
