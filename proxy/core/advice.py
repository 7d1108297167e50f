"""What in ComfyUI's flags and in the configuration works against keeping models, and what to do about it.

Most of what makes models reload can be read off before the first prompt runs: a cache that is off, a VRAM that cannot
hold what may not leave it, groups that were promised more than there is. Said at `check` and at start, with the
arithmetic, it costs nobody an evening.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from proxy.core.budget import (
    INFERENCE_OVERHEAD,
    PROCESS_OVERHEAD,
    Lesson,
    Limits,
    Machine,
    Usage,
    make_budget,
    ram_reserve,
)
from proxy.core.flags import CLIENT_PROMPT_ID, GB, CacheMode, UpstreamFlags, first_threshold
from proxy.core.groups import Group, Keep, unmatched_globs

_CONTAINER_SHARE = 0.95
"""Of the host's RAM: a machine that may use less than this is in a container, as far as ComfyUI's thresholds go."""


class Severity(StrEnum):
    """How bad it is: it cannot be followed, works against keeping models, looks wrong, or could be better."""

    ERROR = "error"
    PROBLEM = "problem"
    WARNING = "warning"
    HINT = "hint"


@dataclass(frozen=True, slots=True)
class Advice:
    """What is wrong, and what to do."""

    problem: str
    remedy: str
    severity: Severity = Severity.PROBLEM


def advise(
    flags: UpstreamFlags,
    machine: Machine,
    limits: Limits,
    groups: Sequence[Group],
    files: Mapping[str, int],
    names: Collection[str] = (),
) -> tuple[Advice, ...]:
    """All that can be said.

    Args:
        flags: how ComfyUI was started.
        machine: the memory there is.
        limits: what the operator lets pins take.
        groups: the operator's groups.
        files: bytes of each model file by name, as ComfyUI lists them; empty where it does not.
        names: what else loaders can be told to load: folders, and files that custom packs keep elsewhere.
    """
    return (
        *_about_cache(flags),
        *_about_vram(flags, machine, files),
        *_about_version(flags),
        *_about_thresholds(flags, machine, limits, files),
        *_about_globs(groups, {*files, *names}),
        *_about_always(flags, machine, limits, groups, files),
    )


def _about_cache(flags: UpstreamFlags) -> Iterator[Advice]:
    if not flags.pins_help:
        yield Advice(
            "--cache-none: ComfyUI keeps nothing between prompts, so pins cannot keep models.",
            'Drop the flag, or install ComfyUI-Inspire-Pack and set [normalizer] strategy = "inspire".',
        )


def _about_vram(flags: UpstreamFlags, machine: Machine, files: Mapping[str, int]) -> Iterator[Advice]:
    room = machine.vram - INFERENCE_OVERHEAD
    total = sum(files.values())
    if machine.vram and not flags.can_offload and total > room:
        flag = f"--{flags.vram}"
        yield Advice(
            f"{flag}: models cannot leave VRAM for RAM. The {len(files)} model files take {_gb(total)}, VRAM has room "
            f"for {_gb(room)}: every switch beyond that reads from disk, or runs out of memory.",
            f"Drop {flag}, so that models wait in RAM; keep it only if all models in use fit into VRAM together.",
        )
    if not flags.smart_memory:
        yield Advice(
            "--disable-smart-memory: models leave VRAM after every prompt, so even the next prompt with the same model "
            "waits for it.",
            "Drop the flag; to leave VRAM to other programs use --reserve-vram.",
        )


def _about_version(flags: UpstreamFlags) -> Iterator[Advice]:
    if not flags.client_prompt_ids:
        present, needed = (".".join(map(str, version)) for version in (flags.version, CLIENT_PROMPT_ID))
        yield Advice(
            f"ComfyUI {present} does not take prompt ids from clients, so prompts cannot be followed safely.",
            f"Update ComfyUI to {needed} or later.",
        )


def _about_thresholds(
    flags: UpstreamFlags, machine: Machine, limits: Limits, files: Mapping[str, int]
) -> Iterator[Advice]:
    if flags.cache is not CacheMode.RAM_PRESSURE or not machine.ram:
        return
    inactive = flags.thresholds(machine.host_ram).inactive
    # ComfyUI drops old models only after it has loaded the new one, which must fit into what is kept free.
    kept_free = max(ram_reserve(machine, limits), *files.values(), 0)
    hidden = machine.host_ram - machine.ram
    active, fitting = (-(-(hidden + size) // GB) for size in (first_threshold(machine.ram), kept_free))
    remedy = f"Start ComfyUI with --cache-ram {active} {fitting}"
    contained = machine.ram < machine.host_ram * _CONTAINER_SHARE
    if contained and inactive < hidden + kept_free:
        yield Advice(
            f"ComfyUI believes in {_gb(machine.host_ram)} of RAM but may use {_gb(machine.ram)}. It drops models "
            f"only when less than {_gb(inactive)} of the host's RAM are available, and is killed before that.",
            f"{remedy}: the {_gb(hidden)} that it may not use, and {_gb(kept_free)} for the next model.",
        )
    elif inactive >= machine.host_ram and kept_free < machine.ram // 2:
        yield Advice(
            f"ComfyUI drops what a prompt does not contain whenever less than {_gb(inactive)} of RAM are available, "
            f"which is always. Pins keep the models of the prompts that come through here; those of others go.",
            f"{remedy} if prompts reach it by other ways too: then it keeps models until {_gb(kept_free)} "
            f"{'of what it may use ' if contained else ''}are left, enough for the next one.",
            Severity.HINT,
        )


def _about_globs(groups: Sequence[Group], names: Collection[str]) -> Iterator[Advice]:
    for found in unmatched_globs(groups, names) if names else ():
        if found.alone:
            problem, remedy, severity = f"{found}: the group is empty.", "take out the group", Severity.ERROR
        else:
            problem, remedy, severity = f"{found}.", "take it out", Severity.WARNING
        yield Advice(problem, f"Correct the glob, {remedy}, or add the file that it is for.", severity)


def _about_always(
    flags: UpstreamFlags, machine: Machine, limits: Limits, groups: Sequence[Group], files: Mapping[str, int]
) -> Iterator[Advice]:
    promised = {
        group.name: sum(size for name, size in files.items() if group.matches_name(name))
        for group in groups
        if group.keep is Keep.ALWAYS
    }
    total = sum(
        size for name, size in files.items() if any(g.keep is Keep.ALWAYS and g.matches_name(name) for g in groups)
    )
    if not total or not flags.pins_help or not machine.ram:
        return
    budget = make_budget(machine, flags, limits, Usage(), Lesson())
    room = min(bound for bound in (budget.pins, budget.ram, budget.vram) if bound is not None)
    if total > room:
        sums = " + ".join(f"{name} {_gb(size)}" for name, size in promised.items())
        yield Advice(
            f'The groups marked "always" take {_gb(total)} ({sums}), but only {_gb(room)} may be kept: RAM '
            f"{_gb(machine.ram)}, less {_gb(ram_reserve(machine, limits))} of reserve and {_gb(PROCESS_OVERHEAD)} for "
            f"the system and ComfyUI, and pins at most {_gb(budget.pins)}.",
            'Mark fewer models "always", raise [pins] ram_share, or add memory.',
            Severity.ERROR,
        )


def _gb(size: int) -> str:
    return f"{size / GB:.1f} GB"
