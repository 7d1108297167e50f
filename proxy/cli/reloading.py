"""A configuration that is read again while the proxy runs: what can be changed is changed, the rest is named."""

import logging
from typing import Any

from pydantic import BaseModel

from proxy.app import Running, limits, queue_settings, releases, terms
from proxy.config import Config
from proxy.core import events as ev
from proxy.engine.queue import HeldQueue
from proxy.errors import ComfykeepError

log = logging.getLogger("comfykeep")

_UPKEEP = (
    "upstream.restart_command",
    "upstream.recycle_after",
    "upstream.recycle_memory_gb",
    "journal.retain",
    "journal.retain_days",
)
RELOADABLE = (
    *("proxy.mode", "proxy.log_level", "queue", "pins", "group", "normalizer", "service"),
    *("residency.ram_reserve", "residency.vram_reserve", "residency.release_idle"),
    *(*_UPKEEP, "upstream.stall_timeout"),
)
"""Keys and sections that a reload changes. Everything else is bound to sockets and files that are open already."""


async def reload(proxy: Running, new: Config) -> None:
    """Make a running proxy follow a configuration, as far as that goes without a restart.

    Only what differs from the configuration before is touched: a mode that was changed by hand stays. ComfyUI's classes
    are read again in any case, since it does not tell when somebody has put another model file into its folders.
    """
    changed = {key for key, value in _values(new).items() if _values(proxy.config)[key] != value}
    taken = sorted(key for key in changed if _reloadable(key))
    left = sorted(changed - set(taken))
    proxy.config = _merged(proxy.config, new)
    if "proxy.log_level" in taken:
        logging.getLogger().setLevel(new.proxy.log_level.upper())
    await _tell_engine(proxy, {key.rpartition(".")[0] for key in taken} | set(taken))
    log.info("reloaded: %s", f"changed {', '.join(taken)}" if taken else "nothing has changed in the configuration")
    if left:
        log.warning("changed in the file, but only a restart brings it: %s", ", ".join(left))


async def _tell_engine(proxy: Running, touched: set[str]) -> None:
    engine, config = proxy.engine, proxy.config
    if "residency" in touched:
        engine.upstream.releases = releases(config)
    if touched & {"pins", "group", "residency"}:
        engine.upstream.planner.limits, engine.upstream.planner.groups = limits(config), config.groups
        engine.learned()  # what was said of ComfyUI and the configuration may not hold any more
    if "normalizer.strategy" in touched:
        engine.change_strategy(config.normalizer.strategy)
    if "normalizer.loaders" in touched:
        engine.upstream.schema.overrule(config.normalizer.loaders.include, config.normalizer.loaders.exclude)
    if "upstream.stall_timeout" in touched:
        engine.pulse.stall.timeout = config.upstream.stall_timeout
    if "proxy.mode" in touched:
        try:
            await engine.change_mode(config.proxy.mode)
        except ComfykeepError as error:
            log.error("the mode stays %s: %s. %s", engine.mode, error.message, error.details)  # noqa: TRY400 - says all
    if engine.held is not None:
        _tell_queue(engine.held, config, touched)
    await engine.read_again()


def _tell_queue(held: HeldQueue, config: Config, touched: set[str]) -> None:
    if touched.intersection(_UPKEEP):
        held.follow(terms(config))
    if "queue" in touched:
        held.holding.tell(ev.SettingsChanged(queue_settings(config)))


def _reloadable(key: str) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in RELOADABLE)


def _merged(old: Config, new: Config) -> Config:
    """The new configuration, but for what only a restart brings."""
    merged: dict[str, Any] = {}
    for name in Config.model_fields:
        section, given = getattr(old, name), getattr(new, name)
        if _reloadable(name):
            merged[name] = given
        elif isinstance(section, BaseModel):
            taken = [key for key in type(section).model_fields if _reloadable(f"{name}.{key}")]
            merged[name] = section.model_copy(update={key: getattr(given, key) for key in taken})
    return old.model_copy(update=merged)


def _values(config: Config) -> dict[str, Any]:
    return dict(_flat(config.model_dump(by_alias=True), ""))


def _flat(table: dict[str, Any], prefix: str) -> list[tuple[str, Any]]:
    flat = []
    for name, value in table.items():
        key = f"{prefix}{name}"
        flat += _flat(value, f"{key}.") if isinstance(value, dict) else [(key, value)]
    return flat
