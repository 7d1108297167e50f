"""proxy.toml: what it accepts, what it says about the rest, and that file, model and docs agree."""

import json
import math
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from proxy.addresses import leads_to, split_address
from proxy.config import Config, load
from proxy.config_faults import explain, keys
from proxy.core.mode import Mode
from proxy.errors import ConfigError

ROOT = Path(__file__).parent.parent


def flatten(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


GROUPS = {key for key, _ in keys(Config) if key.startswith("group.")}
"""Keys of a table that is there once, often or not at all: they have no place in a file of defaults."""


def defaults() -> dict[str, Any]:
    return {key: as_toml(default) for key, default in keys(Config) if key not in GROUPS}


def as_toml(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def test_the_shipped_file_shows_every_key_with_its_default() -> None:
    shipped = flatten(tomllib.loads((ROOT / "proxy.toml").read_text()))
    assert shipped == defaults()


def test_the_shipped_file_is_the_default_configuration() -> None:
    assert load(ROOT / "proxy.toml") == Config()


def test_the_docs_show_every_key_with_its_default() -> None:
    rows = re.findall(r"^\| `([a-z_.]+)` \| `(.+?)` \|", (ROOT / "docs/configuration.md").read_text(), re.MULTILINE)
    assert {key: json.loads(default) for key, default in rows if key not in GROUPS} == defaults()


def test_the_shipped_file_has_a_group_to_copy(tmp_path: Path) -> None:
    lines = (ROOT / "proxy.toml").read_text().splitlines()
    start = lines.index("# [[group]]")
    example = tmp_path / "proxy.toml"
    example.write_text("\n".join(line.removeprefix("# ") for line in lines[start : lines.index("", start)]))
    (section,) = load(example).group
    assert {f"group.{name}" for name in section.model_fields_set} == GROUPS


def test_the_docs_show_every_key_of_a_group() -> None:
    docs = (ROOT / "docs/configuration.md").read_text()
    assert set(re.findall(r"^\| `(group\.[a-z]+)` \|", docs, re.MULTILINE)) == GROUPS


GROUP = "[[group]]\nname = 'a'\nmodels = ['*']\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[proxy]\nmoed = 'pins'\n", ["proxy.toml:2", "unknown key proxy.moed", "did you mean proxy.mode?"]),
        ("[proxyy]\n", ["unknown table [proxyy]", "did you mean [proxy]?"]),
        ("[proxy]\nmode = 'fast'\n", ["proxy.toml:2", "'observe', 'pins' or 'full'"]),
        ("[normalizer]\nstrategy = 'pin'\n", ["proxy.toml:2", "'pins', 'inspire' or 'off'"]),
        ("[proxy]\nlisten = '8189'\n", ["proxy.listen", "127.0.0.1:8189"]),
        ("[proxy]\nlisten = '127.0.0.1:99999'\n", ["proxy.listen", "no port 99999", "up to 65535"]),
        ("[upstream]\nurl = 'http://a:99999'\n", ["proxy.toml:2", "upstream.url", "up to 65535"]),
        ("[upstream]\nurl = 'http://a:1/?x=1'\n", ["proxy.toml:2", "upstream.url", "before the ?"]),
        ("[proxy]\nlisten = '127.0.0.1:8188'\n", ["proxy.toml:2", "upstream.url is comfykeep's own", "proxy.listen"]),
        ("[upstream]\n\nurl = 'http://localhost:8189'\n", ["proxy.toml:3", "ComfyUI's port"]),
        ("[upstream]\n\nurl = 'localhost:8188'\n", ["proxy.toml:3", "upstream.url", "http://127.0.0.1:8188"]),
        ("[proxy]\n[proxi]\nmode = 'pins'\n", ["proxy.toml:2", "unknown table [proxi]", "did you mean [proxy]?"]),
        ("[proxy]\nlisten = 8189\n", ["proxy.toml:2", "proxy.listen = 8189: must be a string"]),
        ("[pins]\nmax_chains = 'x'\n", ["proxy.toml:2", "must be a whole number"]),
        ("[pins]\nmax_chains = 1.5\n", ["proxy.toml:2", "must be a whole number"]),
        ("[pins]\nram_share = 'x'\n", ["proxy.toml:2", "must be a number"]),
        ("[warmup]\ngate_readiness = 'x'\n", ["proxy.toml:2", "true or false"]),
        ("[normalizer.loaders]\ninclude = 'x'\n", ["proxy.toml:2", "must be a list"]),
        ("proxy = 3\n", ["proxy.toml:1", "must be a table"]),
        ("[residency]\n\nsizes = { x = -2 }\n", ["proxy.toml:3", "residency.sizes.x", "-2"]),
        ("[residency]\nsizes = 3\n", ["proxy.toml:2", "must be a table"]),
        ("[pins]\nram_share = 1.5\n", ["pins.ram_share = 1.5: must be 1.0 or less; the default is 0.5"]),
        ("[pins]\nmax_chains = -1\n", ["pins.max_chains = -1: must be 0 or more; the default is 16"]),
        ("[queue]\nage_step = 0\n", ["proxy.toml:2: queue.age_step = 0: must be more than 0"]),
        ("[proxy]\nlog_level = 'loud'\n", ["proxy.log_level = 'loud': must be 'debug', 'info', 'warning' or 'error'"]),
        ("[[group]]\nname = 'a'\n", ["proxy.toml:1: group.models is missing; each [[group]] needs it"]),
        ("[pins\n", ["not valid TOML"]),
        ("[upstream]\ngpu = ''\n", ["proxy.toml:2", "upstream.gpu"]),
        ("[residency]\nram_limit = -1\n", ["proxy.toml:2", "residency.ram_limit", "-1"]),
        ("[residency]\nvram_reserve = nan\n", ["proxy.toml:2", "residency.vram_reserve"]),
        ("[residency.sizes]\nx = -2\n", ["proxy.toml:2", "residency.sizes.x", "-2"]),
        (f"{GROUP}[[group]]\nname = 'b'\nmodels = []\n", ["proxy.toml:6", "group.models"]),
        (f"{GROUP}[[group]]\nname = 'b'\nmodels = ['*']\nttl = -3\n", ["proxy.toml:7", "group.ttl", "-3"]),
        (f"{GROUP}kep = 'always'\n", ["proxy.toml:4", "unknown key group.kep", "did you mean group.keep?"]),
        (f"{GROUP}keep = 'ever'\n", ["proxy.toml:4", "'always', 'together' or 'on-demand'"]),
        (f"{GROUP}keep = 'always'\nttl = 3\n", ["proxy.toml:1", "contradict"]),
        (f"{GROUP}\n{GROUP}", ["proxy.toml:6", "'a'", "choose another"]),
    ],
)
def test_a_fault_names_its_place_and_its_remedy(tmp_path: Path, text: str, said: list[str]) -> None:
    path = tmp_path / "proxy.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    for part in said:
        assert part in str(caught.value)


WRONG: tuple[Any, ...] = (-1, 0, 1e9, 0.5, math.nan, math.inf, True, "", "x", [], [1], {"x": 1}, [{"x": 1}])
"""One of these is wrong for any key."""


@pytest.mark.parametrize("key", [key for key, _ in keys(Config)])
def test_faults_are_told_in_words_about_the_file(key: str) -> None:
    """pydantic's own words are about inputs and types of Python."""
    section, *inner, name = key.split(".")
    said = []
    for value in WRONG:
        table: Any = {name: value}
        for part in reversed(inner):
            table = {part: table}
        try:
            Config.model_validate({section: [table] if section == "group" else table})
        except ValidationError as error:
            said += [explain(fault, Config) for fault in error.errors()]
    assert any(key in line for line in said)
    assert not [line for line in said if re.search(r"\b([Ii]nput|[Ff]ield|valid)\b", line)]


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "proxy.toml"
    path.write_text("[proxy]\nmode = 'x'\n[upstream]\nurl = 'y'\n")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert len(str(caught.value).splitlines()) == 2


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read"):
        load(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("[::1]:8189", ("::1", 8189)),
        (":80", ("0.0.0.0", 80)),  # noqa: S104 - what the address means
        ("box:0", ("box", 0)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert split_address(text) == address


_HERE = ("localhost", "127.0.0.1", "0.0.0.0", "[::1]", "[::]")  # noqa: S104 - compared, not bound


@pytest.mark.parametrize("host", [*_HERE, "LOCALHOST", "[::ffff:127.0.0.1]"])
def test_whoever_listens_everywhere_is_reached_at_each_loopback_address(host: str) -> None:
    assert leads_to(f"http://{host}:8188", "0.0.0.0", 8188)  # noqa: S104 - compared, not bound
    assert leads_to(f"http://{host}:8188/", "::", 8188)
    assert leads_to(f"http://{host}", "localhost", 80)
    assert leads_to(f"https://{host}", "localhost", 443)
    assert not leads_to(f"http://{host}:8188", "localhost", 8189)


@pytest.mark.parametrize("host", _HERE)
def test_an_address_leads_to_itself(host: str) -> None:
    assert leads_to(f"http://{host}:8188", split_address(f"{host}:8188")[0], 8188)


@pytest.mark.parametrize(
    ("url", "listen"),
    [
        ("http://127.0.0.1:8188", "127.0.0.2:8188"),
        ("http://127.0.0.1:8188", "[::1]:8188"),
        ("http://box:8188", "127.0.0.1:8188"),
        ("http://192.0.2.1:8188", "0.0.0.0:8188"),
    ],
)
def test_another_machine_or_address_is_another(url: str, listen: str) -> None:
    assert not leads_to(url, *split_address(listen))


def test_modes_are_the_documented_ones() -> None:
    assert [mode.value for mode in Mode] == ["observe", "pins", "full"]
