"""The command line by itself: what it takes, refuses, and how it ends."""

import json
import socket
import sys
import types
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

import proxy.cli
from proxy.cli import commands, queueing, remote, serving
from proxy.config import Config, ProxySection
from proxy.errors import ConfigError, UpstreamError
from proxy.upstream.client import UpstreamClient
from simulator import Simulator, SimulatorConfig

LONG = "0f8fad5b-d9cb-469f-a165-70867728950e"


def test_ctrl_c_while_modules_load_is_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    loading = types.ModuleType("proxy.cli.commands")
    loading.main = interrupted  # type: ignore[attr-defined]
    monkeypatch.setattr(proxy.cli, "commands", loading)
    monkeypatch.setitem(sys.modules, "proxy.cli.commands", loading)
    with pytest.raises(SystemExit) as ended:
        proxy.cli.main()
    assert ended.value.code == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("command", ["check", "serve"])
def test_nobody_fronts_himself(command: str, tmp_path: Path) -> None:
    config = tmp_path / "proxy.toml"
    config.write_text('[proxy]\nlisten = "127.0.0.1:8188"\n')
    result = CliRunner().invoke(commands.app, [command, "--config", str(config)])
    assert isinstance(result.exception, ConfigError)
    assert "set it to ComfyUI's port" in str(result.exception)


def test_a_proxy_may_be_named_without_a_scheme() -> None:
    assert remote.address("127.0.0.1:8189", Config()) == "http://127.0.0.1:8189"
    assert remote.address("https://box/", Config()) == "https://box"
    listening = Config(proxy=ProxySection(listen="[::]:1"))
    assert remote.address(None, listening) == "http://[::1]:1"


@pytest.mark.parametrize("address", ["ftp://127.0.0.1:1", "http://127.0.0.1:x", "127.0.0.1:1", "://"])
def test_an_address_where_no_proxy_is(address: str) -> None:
    result = CliRunner().invoke(commands.app, ["mode", "--proxy", address])
    assert isinstance(result.exception, remote.RemoteError), result.exception
    assert "No comfykeep answers" in str(result.exception)


@pytest.mark.parametrize("command", ["diff", "explain"])
def test_an_empty_id_is_refused(command: str) -> None:
    result = CliRunner().invoke(commands.app, [command, ""])
    assert result.exit_code == 2
    assert "give the id" in result.output


def test_the_simulator_lists_its_flags() -> None:
    result = CliRunner().invoke(commands.app, ["simulate", "--help"])
    assert result.exit_code == 0
    assert "--time-scale" in result.output


def test_a_port_in_use_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert serving.simulate(["--port", str(port)]) == 1
    assert f"Cannot listen on 127.0.0.1:{port}" in capfd.readouterr().err


def row(**changed: Any) -> dict[str, Any]:
    plain = {"prompt_id": LONG, "state": "waiting", "priority": 0, "client": LONG, "models": ["a.safetensors"]}
    return {**plain, "submitted": 0.0, "expected_start": 99.0, **changed}


@pytest.mark.parametrize("width", [80, 120])
def test_the_id_of_a_prompt_is_in_one_piece(width: int) -> None:
    text = StringIO()
    answer = {"running": [row()], "staged": [], "waiting": [row(models=["very_long_name.safetensors"] * 9)]}
    Console(file=text, width=width).print(queueing._table(answer, 1.0))
    assert text.getvalue().count(f"{LONG} ") >= 2
    assert max(map(len, text.getvalue().splitlines())) <= width


@pytest.mark.parametrize(
    ("listen", "said"),
    [
        ("192.0.2.1:0", "Is that an address of this machine?"),
        ("nowhere.invalid:0", "Is that an address of this machine?"),
        ("taken", "Is another comfykeep there?"),
    ],
)
def test_why_an_address_cannot_be_listened_on_is_guessed(listen: str, said: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}" if listen == "taken" else listen
        config = tmp_path / "proxy.toml"
        config.write_text(
            f'[proxy]\nlisten = "{address}"\n[upstream]\nurl = "http://127.0.0.1:1"\n[journal]\npath = "{tmp_path}/j"\n'
        )
        result = CliRunner().invoke(commands.app, ["serve", "--config", str(config)])
    assert isinstance(result.exception, serving.ServeError)
    assert said in str(result.exception)


async def test_tls_towards_a_comfyui_without_it_names_http() -> None:
    async with Simulator(SimulatorConfig()) as comfy, UpstreamClient(comfy.url.replace("http", "https")) as client:
        with pytest.raises(UpstreamError) as caught:
            await client.get("/prompt")
    assert "Use http://" in caught.value.remedy


CHANGES = [
    {
        "rule": "stable-id",
        "node_id": "4",
        "before": "4",
        "after": "7000000000000000",
        "reason": "the loader has one name in all workflows",
    },
    {"rule": "pin", "node_id": "8" * 16, "before": None, "after": {"inputs": {"name": "x" * 300}}, "reason": "stays"},
]


def diff(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    def call(url: str, path: str) -> Any:
        assert (url, path) == ("http://127.0.0.1:8189", f"/comfykeep/prompts/{LONG}")
        return {"prompt_id": LONG, "handling": "rewritten", "changes": CHANGES}

    monkeypatch.setattr(remote, "call", call)
    monkeypatch.setenv("COLUMNS", "80")
    commands.app(["diff", LONG, *arguments], standalone_mode=False)
    return capsys.readouterr().out


def test_each_change_of_a_diff_is_a_paragraph(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long values are cut, so that a model's list of files does not fill the screen; ids and reasons are whole."""
    long_value = '{"inputs": {"name": "' + "x" * (remote._SHOWN - 22) + "…"
    assert diff(capsys, monkeypatch).splitlines() == [
        f"Prompt {LONG}, rewritten: 2 changes",
        "",
        "stable-id: node 4",
        "  the client sent 4",
        "  ComfyUI got     7000000000000000",
        "  why             the loader has one name in all workflows",
        "",
        f"pin: node {'8' * 16}",
        f"  ComfyUI got     {long_value}",
        "  why             stays",
    ]


def test_a_diff_as_json_is_the_whole_answer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert json.loads(diff(capsys, monkeypatch, "--json"))["changes"] == CHANGES
