"""`proxy.toml`, checked: every key has a type, a default and a place in the docs; a fault names key, line and remedy.

Only `cli` and `app` read this module; everybody else is handed what it needs.
"""

import os
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from proxy.addresses import check_url, leads_to, split_address
from proxy.config_faults import Location, explain, line_of
from proxy.core.groups import Group, Keep
from proxy.core.mode import Mode
from proxy.core.settings import Validate
from proxy.core.strategy import Strategy
from proxy.errors import ConfigError
from proxy.journal_records import Sync


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProxySection(_Section):
    """What clients connect to."""

    listen: str = "127.0.0.1:8189"
    mode: Mode = Mode.PINS
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("listen")
    @classmethod
    def _listen_is_an_address(cls, value: str) -> str:
        split_address(value)
        return value

    @property
    def host(self) -> str:
        """The host part of `listen`."""
        return split_address(self.listen)[0]

    @property
    def port(self) -> int:
        """The port part of `listen`; 0 lets the system choose."""
        return split_address(self.listen)[1]


class UpstreamSection(_Section):
    """The ComfyUI behind the proxy."""

    url: str = "http://127.0.0.1:8188"
    restart_command: str = ""
    recycle_after: Annotated[int, Field(ge=0)] = 0
    recycle_memory_gb: Annotated[float, Field(ge=0)] = 0.0
    stall_timeout: Annotated[float, Field(ge=0)] = 600.0
    gpu: Annotated[str, Field(min_length=1)] = "auto"

    @field_validator("url")
    @classmethod
    def _url_is_http(cls, value: str) -> str:
        return check_url(value)


class LoadersSection(_Section):
    """Corrections to what the schema says about loaders."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


class NormalizerSection(_Section):
    """How prompts are rewritten."""

    strategy: Strategy = Strategy.PINS
    loaders: LoadersSection = LoadersSection()


class PinsSection(_Section):
    """How much is carried along to stay in ComfyUI's cache."""

    max_chains: Annotated[int, Field(ge=0, le=1000)] = 16
    ram_share: Annotated[float, Field(gt=0, le=1)] = 0.5


class ResidencySection(_Section):
    """What memory there is, and what of it stays free. Memory in GB of 2^30 bytes; 0 leaves a limit to the machine."""

    ram_limit: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    ram_reserve: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    vram_reserve: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    release_idle: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    sizes: Mapping[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {}


class GroupSection(_Section):
    """Models that are kept alike; a `[[group]]` of the file."""

    name: Annotated[str, Field(min_length=1)]
    models: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
    keep: Keep = Keep.TOGETHER
    priority: int = 0
    ttl: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        self.group()
        return self

    def group(self) -> Group:
        """The group that it describes.

        Raises:
            ValueError: its keys contradict each other.
        """
        return Group(self.name, self.models, self.keep, self.priority, self.ttl)


class QueueSection(_Section):
    """How the held queue behaves in mode `full`."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    depth: Annotated[int, Field(ge=1, le=16)] = 2
    validate_at: Annotated[Validate, Field(alias="validate")] = Validate.PROBE
    max_bypass: Annotated[int, Field(ge=0)] = 16
    max_wait: Annotated[float, Field(ge=0)] = 60.0
    age_step: Annotated[float, Field(gt=0)] = 300.0
    fair_quantum: Annotated[float, Field(gt=0)] = 60.0
    max_waiting: Annotated[int, Field(ge=1)] = 10_000
    max_attempts: Annotated[int, Field(ge=1)] = 3
    retry: Literal["unpaid", "all"] = "unpaid"


class JournalSection(_Section):
    """Where accepted prompts are kept."""

    path: str = ""
    sync: Sync = Sync.NORMAL
    retain: Annotated[int, Field(ge=0)] = 1000
    retain_days: Annotated[float, Field(gt=0)] = 7.0

    @property
    def file(self) -> Path:
        """The journal's file: as configured, or in the state directory of the service or the user."""
        if self.path:
            return Path(self.path).expanduser()
        return state_directory() / "journal.sqlite3"


class WarmupSection(_Section):
    """Which models are loaded before anybody asks; the schedule itself is a file of its own."""

    schedule: str = ""
    gate_readiness: bool = False
    gate_limit: Annotated[float, Field(gt=0)] = 300.0

    @property
    def file(self) -> Path | None:
        """The schedule's file; None where there is none."""
        return Path(self.schedule).expanduser() if self.schedule else None


class ServiceSection(_Section):
    """How the process ends."""

    on_stop: Literal["keep", "flush"] = "keep"


class Config(_Section):
    """The whole of `proxy.toml`."""

    proxy: ProxySection = ProxySection()
    upstream: UpstreamSection = UpstreamSection()
    normalizer: NormalizerSection = NormalizerSection()
    pins: PinsSection = PinsSection()
    residency: ResidencySection = ResidencySection()
    group: tuple[GroupSection, ...] = ()
    queue: QueueSection = QueueSection()
    journal: JournalSection = JournalSection()
    warmup: WarmupSection = WarmupSection()
    service: ServiceSection = ServiceSection()

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups of models."""
        return tuple(section.group() for section in self.group)

    @property
    def warmup_state(self) -> Path:
        """Where it is remembered how warm-ups went: beside the journal."""
        return self.journal.file.with_name("warmup.json")


def state_directory() -> Path:
    """Where this service or user keeps state: systemd's directory, else the platform's usual one."""
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.partition(":")[0])
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "comfykeep"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "comfykeep"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "comfykeep"


def load(path: Path | None, upstream: str | None = None) -> Config:
    """Read and check a configuration file; without one every key has its default.

    `upstream` is a base URL that `check_url` has passed; it stands above what the file says.

    Raises:
        ConfigError: when it cannot be read, is no TOML, or a key is unknown or out of range; all faults at once.
    """
    text = "" if path is None else _read(path)

    def placed(location: Location, fault: str) -> str:
        return fault if path is None else f"{path}:{line_of(text, location)}: {fault}"

    try:
        config = Config.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    except ValidationError as error:
        faults = [placed(fault["loc"], explain(fault, Config)) for fault in error.errors()]
        raise ConfigError("\n".join(faults)) from error
    if upstream is not None:
        section = config.upstream.model_copy(update={"url": upstream})
        config = config.model_copy(update={"upstream": section})
    if contradictions := [placed(*found) for found in _contradictions(config)]:
        raise ConfigError("\n".join(contradictions))
    return config


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def _contradictions(config: Config) -> Iterator[tuple[Location, str]]:
    """What only the whole of it shows: for each fault its key and what is wrong."""
    yield from _repeated_groups(config)
    proxy, upstream = config.proxy, config.upstream
    if leads_to(upstream.url, proxy.host, proxy.port):
        given = ("upstream", "url") if "url" in upstream.model_fields_set else ("proxy", "listen")
        values = f"upstream.url = {upstream.url!r}, proxy.listen = {proxy.listen!r}"
        yield given, f"upstream.url is comfykeep's own address; set it to ComfyUI's port ({values})"


def _repeated_groups(config: Config) -> Iterator[tuple[Location, str]]:
    names = [section.name for section in config.group]
    for place, name in enumerate(names):
        if name in names[:place]:
            yield ("group", place, "name"), f"group.name = {name!r}: there is a group of that name; choose another"
