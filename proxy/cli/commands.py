"""All commands: what they take, and whom they hand it to. What they do stands elsewhere."""

import functools
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from proxy.cli import benches, queueing, remote, service, serving, status, warming
from proxy.cli.options import ConfigOption, JsonOption, PromptArgument, ProxyOption, UpstreamOption
from proxy.config import load
from proxy.core.mode import Mode
from proxy.errors import ConfigError

app = typer.Typer(
    name="comfykeep",
    help="A sidecar proxy for ComfyUI: models stay loaded, the queue is ordered by them, nothing is lost.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(benches.app, name="bench")
app.add_typer(queueing.app, name="queue")
app.add_typer(service.app, name="service")
app.command()(queueing.explain)
app.command()(warming.warm)
app.command()(status.status)


@app.command()
def serve(upstream: UpstreamOption = None, config: ConfigOption = None) -> None:
    """Front a ComfyUI until stopped (Ctrl-C or SIGTERM)."""
    again = None if config is None else functools.partial(load, config, upstream)
    serving.serve(load(config, upstream), again)


@app.command()
def check(upstream: UpstreamOption = None, config: ConfigOption = None) -> None:
    """Say what is fronted, what its flags mean for models, and each problem with its remedy."""
    raise typer.Exit(serving.check(load(config, upstream)))


@app.command()
def demo(json_output: JsonOption = False) -> None:
    """Show the main job on a simulated ComfyUI: model loads and seconds, direct and through the proxy."""
    benches.demo(json_output=json_output)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def simulate(context: typer.Context) -> None:
    """Run the simulated ComfyUI alone; `comfykeep simulate --help` lists its flags."""
    raise typer.Exit(serving.simulate(context.args))


@app.command()
def mode(
    new: Annotated[
        Mode | None, typer.Argument(help="the mode to change to; without it, the present one is shown")
    ] = None,
    proxy: ProxyOption = None,
    config: ConfigOption = None,
) -> None:
    """Show or change the mode of a running proxy; it holds from the next prompt on."""
    remote.mode(remote.address(proxy, load(config)), new)


@app.command()
def diff(
    prompt_id: PromptArgument,
    proxy: ProxyOption = None,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Show what a client sent against what ComfyUI got, each change with its rule."""
    remote.diff(remote.address(proxy, load(config)), prompt_id, json_output=json_output)


@app.command()
def loaders(
    upstream: UpstreamOption = None,
    object_info: Annotated[Path | None, typer.Option(help="a saved answer of GET /object_info instead")] = None,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """List which node classes are taken for model loaders or chain nodes, and why."""
    serving.loaders(load(config), upstream, object_info, json_output=json_output)


def main() -> None:
    """Run the command line; faults of use end with one message and status 1 or 2, never with a traceback."""
    try:
        app()
    except (ConfigError, remote.RemoteError, benches.BenchError, serving.ServeError) as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(str(error), markup=False)
        sys.exit(1)
