import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.advice import Advice, Severity, advise
from proxy.core.budget import Limits, Machine
from proxy.core.flags import GB, CacheMode, UpstreamFlags, VramMode
from proxy.core.groups import Group, Keep

ROOMY = Machine(ram=64 * GB, host_ram=64 * GB, vram=24 * GB)
CLASSIC = UpstreamFlags(version=(0, 33, 0), cache=CacheMode.CLASSIC)
DEFAULT = UpstreamFlags(version=(0, 33, 0), cache=CacheMode.RAM_PRESSURE)
FILES = {"flux.safetensors": 12 * GB, "wan.safetensors": 20 * GB}


def about(flags: UpstreamFlags, machine: Machine = ROOMY, *groups: Group, limits: Limits | None = None) -> list[str]:
    return [f"{each.problem} {each.remedy}" for each in advise(flags, machine, limits or Limits(), groups, FILES)]


def test_nothing_to_say_is_the_rule() -> None:
    assert about(CLASSIC) == []


def test_a_cache_that_is_off() -> None:
    (text,) = about(UpstreamFlags(cache=CacheMode.NONE))
    assert "--cache-none" in text
    assert "Inspire" in text


@pytest.mark.parametrize("vram", [VramMode.HIGH, VramMode.GPU_ONLY])
def test_models_that_cannot_leave_a_vram_that_cannot_hold_them(vram: VramMode) -> None:
    flags = UpstreamFlags(version=(0, 33, 0), cache=CacheMode.CLASSIC, vram=vram)
    (text,) = about(flags)
    assert f"--{vram}" in text
    assert "32.0 GB" in text
    assert "22.8 GB" in text
    assert about(flags, Machine(64 * GB, 64 * GB, 48 * GB)) == []


def test_smart_memory_switched_off() -> None:
    (text,) = about(UpstreamFlags(version=(0, 33, 0), cache=CacheMode.CLASSIC, smart_memory=False))
    assert "--disable-smart-memory" in text


def test_a_version_without_client_prompt_ids() -> None:
    (text,) = about(UpstreamFlags(version=(0, 3, 40), cache=CacheMode.CLASSIC))
    assert "0.3.40" in text
    assert "0.3.45" in text


def test_default_thresholds_on_an_ordinary_machine() -> None:
    (text,) = about(DEFAULT)
    assert "--cache-ram 7 20" in text
    (text,) = about(DEFAULT, limits=Limits(ram_reserve=25 * GB))
    assert "--cache-ram 7 25" in text


def test_no_thresholds_where_the_largest_model_needs_the_machine() -> None:
    assert about(DEFAULT, Machine(32 * GB, 32 * GB)) == []


def test_low_thresholds_are_left_alone() -> None:
    assert about(UpstreamFlags(version=(0, 33, 0), cache=CacheMode.RAM_PRESSURE, cache_ram=(6.0, 6.0))) == []


def test_a_container_that_comfyui_cannot_see() -> None:
    container = Machine(ram=64 * GB, host_ram=512 * GB)
    (text,) = about(DEFAULT, container)
    assert "--cache-ram 455 468" in text
    fitting = UpstreamFlags(version=(0, 33, 0), cache=CacheMode.RAM_PRESSURE, cache_ram=(455.0, 468.0))
    assert about(fitting, container) == []


def test_a_container_in_which_comfyui_drops_everything_anyway_gets_thresholds_that_fit() -> None:
    (advice,) = advise(DEFAULT, Machine(ram=64 * GB, host_ram=100 * GB), Limits(), (), FILES)
    assert advice.severity is Severity.HINT
    assert "--cache-ram 43 56 " in advice.remedy
    assert "until 20.0 GB of what it may use are left" in advice.remedy


def test_always_groups_that_cannot_fit_come_with_the_arithmetic() -> None:
    groups = [Group("stills", ("flux*",), Keep.ALWAYS), Group("video", ("wan*",), Keep.ALWAYS)]
    assert about(CLASSIC, Machine(96 * GB, 96 * GB, 24 * GB), *groups) == []
    (text,) = about(CLASSIC, Machine(48 * GB, 48 * GB, 24 * GB), *groups)
    for part in ("32.0 GB", "stills 12.0 GB", "video 20.0 GB", "24.0 GB may be kept", "ram_share"):
        assert part in text


def test_a_file_in_two_groups_counts_once() -> None:
    groups = [Group("one", ("*",), Keep.ALWAYS), Group("two", ("*",), Keep.ALWAYS)]
    assert about(CLASSIC, Machine(80 * GB, 80 * GB), *groups) == []


def test_a_group_that_matches_nothing_is_an_error_and_a_single_glob_is_not() -> None:
    groups = (Group("stills", ("flx.safetensors", "flux.safetensors")), Group("films", ("wann.safetensors",)))
    advice = advise(CLASSIC, ROOMY, Limits(), groups, FILES)
    assert [(each.severity, "flx" in each.problem, "nearest: wan" in each.problem) for each in advice] == [
        (Severity.WARNING, True, False),
        (Severity.ERROR, False, True),
    ]
    assert all("[[group]]" in each.problem and "Correct the glob" in each.remedy for each in advice)


def test_what_loaders_offer_besides_files_is_matched_too() -> None:
    groups = [Group("stills", ("sdxl-diffusers",))]
    (found,) = advise(CLASSIC, ROOMY, Limits(), groups, FILES)
    assert found.severity is Severity.ERROR
    assert advise(CLASSIC, ROOMY, Limits(), groups, FILES, ["sdxl-diffusers"]) == ()
    assert [each.severity for each in advise(CLASSIC, ROOMY, Limits(), groups, {}, ["other"])] == [Severity.ERROR]


def test_a_typo_in_a_glob() -> None:
    (text,) = about(CLASSIC, ROOMY, Group("stills", ("flux.safetensor",)))
    assert "flux.safetensors" in text


def test_without_a_list_of_files_globs_cannot_be_judged() -> None:
    assert advise(CLASSIC, ROOMY, Limits(), [Group("stills", ("flux*",))], {}) == ()


@given(
    st.builds(
        UpstreamFlags,
        version=st.sampled_from([(), (0, 3, 64), (0, 33, 0)]),
        cache=st.sampled_from(CacheMode),
        vram=st.sampled_from(VramMode),
        smart_memory=st.booleans(),
    ),
    st.builds(Machine, *[st.integers(0, 2**40)] * 3),
    st.dictionaries(st.text(), st.integers(0, 2**36)),
)
def test_never_fails_and_always_has_a_remedy(flags: UpstreamFlags, machine: Machine, files: dict[str, int]) -> None:
    groups = [Group("all", ("*",), Keep.ALWAYS)]
    for each in advise(flags, machine, Limits(), groups, files):
        assert isinstance(each, Advice)
        assert each.problem.endswith(".")
        assert each.remedy.endswith(".")
