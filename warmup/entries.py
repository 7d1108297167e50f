"""One entry of the schedule file: what to warm, how far, and when.

An entry is checked by itself, so that a broken one is out while the rest stands.
"""

import math
import re
from collections.abc import Container
from enum import StrEnum
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from warmup.cron import Cron


def _scalar(value: Any) -> Any:
    if not isinstance(value, bool | int | float | str) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError("must be a text, a finite number or true or false")
    return value


Scalar = Annotated[Any, BeforeValidator(_scalar)]
"""What an input of a node can be set to: bool, int, float or str."""


class Depth(StrEnum):
    """How far a model is brought: read from disk into RAM, or used once so that it is in VRAM."""

    RAM = "ram"
    VRAM = "vram"


class Trigger(StrEnum):
    """What makes an entry run, the schedule's cron times and a person's request included."""

    START = "start"
    """The proxy has started."""
    UPSTREAM_START = "upstream-start"
    """A new ComfyUI process has answered."""
    EVICTED = "evicted"
    """One of the entry's components has left the tier it was warmed to."""
    IDLE = "idle"
    """Nothing has run or waited for a while."""
    CRON = "cron"
    MANUAL = "manual"


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST_DURATION = 366 * 86400.0


def _seconds(value: Any) -> Any:
    """Read `"90s"`, `"10m"`, `"2h"`, `"1d"` or a number of seconds."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd])\s*", value)
        if match is None:
            raise ValueError('must be a time such as "90s", "10m", "2h" or "1d"')
        return float(match[1]) * _UNITS[match[2]]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError('must be a time such as "90s", "10m", "2h" or "1d", or a number of seconds')  # noqa: TRY004 - pydantic reports ValueError only
    return float(value)


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=_LONGEST_DURATION)]


class Entry(BaseModel):
    """An `[[entry]]` of `warmup.toml`. Exactly one of `prompt`, `loader` and `group` says what to warm."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Annotated[str, Field(min_length=1, max_length=100)]
    prompt: Annotated[str, Field(min_length=1)] | None = None
    set: dict[str, Scalar] = {}
    loader: Annotated[str, Field(min_length=1)] | None = None
    inputs: dict[str, Scalar] = {}
    group: Annotated[str, Field(min_length=1)] | None = None
    to: Annotated[Depth, Field(strict=False)] = Depth.VRAM
    on: tuple[Literal["start", "upstream-start", "evicted", "idle"], ...] = Field(default=(), strict=False)
    cron: str | None = None
    timezone: str = "UTC"
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    only_when_idle: bool = False
    timeout: Seconds = 600.0
    keep: Seconds | None = None

    @field_validator("name")
    @classmethod
    def _name_can_be_typed(cls, value: str) -> str:
        if not value.isprintable() or value != value.strip():
            raise ValueError("must not begin or end with a space or hold control characters")
        return value

    @field_validator("timezone")
    @classmethod
    def _zone_is_known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (OSError, ValueError, KeyError) as error:  # "Europe" is a folder, "../x" a ValueError, "Mars" a KeyError
            raise ValueError('is no time zone; write one such as "UTC" or "Europe/Berlin"') from error
        return value

    @field_validator("cron")
    @classmethod
    def _cron_is_a_line(cls, value: str | None) -> str | None:
        if value is not None:
            Cron(value, ZoneInfo("UTC"))
        return value

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if found := contradictions({key for key, value in self if value not in (None, {}, ())}):
            raise ValueError("; ".join(found))
        return self

    @property
    def when(self) -> Cron | None:
        """The cron line in its zone."""
        return None if self.cron is None else Cron(self.cron, ZoneInfo(self.timezone))

    @property
    def triggers(self) -> frozenset[Trigger]:
        """The events that run this entry."""
        return frozenset(Trigger(name) for name in self.on)

    @property
    def what(self) -> str:
        """What is warmed, for people."""
        if self.prompt is not None:
            return self.prompt
        if self.loader is not None:
            files = [str(value) for value in self.inputs.values() if isinstance(value, str)]
            return " ".join([self.loader, *files])
        return f"group {self.group}"


def contradictions(given: Container[str]) -> list[str]:
    """What is wrong with an entry in which these keys are given, whatever their values are."""
    found = []
    subjects = [key for key in ("prompt", "loader", "group") if key in given]
    if len(subjects) != 1:
        found.append(
            f"names {' and '.join(subjects) or 'nothing to warm'}; give exactly one of prompt, loader and group"
        )
    if "set" in given and "prompt" not in given:
        found.append("has set, which goes with prompt only; what a loader gets stands in inputs")
    if "inputs" in given and "loader" not in given:
        found.append("has inputs, which go with loader only; what is changed in a prompt stands in set")
    return found
