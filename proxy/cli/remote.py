"""Commands that talk to a running proxy."""

import json
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from rich.console import Console

from proxy.config import Config
from proxy.core.mode import Mode

_TIMEOUT = 10.0
_SHOWN = 100
"""Characters of a value that are shown."""


class RemoteError(Exception):
    """The running proxy cannot be reached or says no; the message says which and what to do."""


def address(proxy: str | None, config: Config) -> str:
    """Where the running proxy answers: as told, or where the configuration makes it listen."""
    if proxy is not None:
        return (proxy if "://" in proxy else f"http://{proxy}").rstrip("/")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.proxy.host, config.proxy.host)  # noqa: S104 - a comparison
    return f"http://[{host}]:{config.proxy.port}" if ":" in host else f"http://{host}:{config.proxy.port}"


def mode(url: str, new: Mode | None) -> None:
    """Show or change the mode.

    Raises:
        RemoteError: when the proxy does not answer.
    """
    answer = call(url, "/comfykeep/mode") if new is None else call(url, "/comfykeep/mode", "PUT", {"mode": new})
    console = Console(soft_wrap=True, highlight=False)
    console.print(answer["mode"])
    if answer["mode"] != Mode.FULL and answer.get("waiting_here"):
        paused = ", ".join(answer["paused_by"])
        stuck = f"and the queue is paused by {paused}: `comfykeep queue resume` lets them run"
        how = stuck if paused else "and are run from here"
        console.print(f"{answer['waiting_here']} prompts still wait here, {how}", markup=False)


def diff(url: str, prompt_id: str, *, json_output: bool) -> None:
    """Print the changes to one prompt.

    Raises:
        RemoteError: when the proxy does not answer or does not know the prompt.
    """
    answer = call(url, f"/comfykeep/prompts/{quote(prompt_id, safe='')}")
    if json_output:
        print(json.dumps(answer, indent=2))  # noqa: T201 - the answer of a command
        return
    console = Console(soft_wrap=True, highlight=False)
    changes = answer["changes"]
    console.print(f"Prompt {prompt_id}, {answer['handling']}: {len(changes)} changes", markup=False)
    # No table: five columns of ids and JSON are unreadable at 80 characters.
    for change in changes:
        console.print(f"\n{change['rule']}: node {change['node_id']}", markup=False)
        for label, value in (("the client sent", change["before"]), ("ComfyUI got", change["after"])):
            if value is not None:
                console.print(f"  {label:<15} {_brief(value)}", markup=False)
        console.print(f"  {'why':<15} {change['reason']}", markup=False)


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def call(url: str, path: str, method: str = "GET", body: Any = None, timeout: float | None = _TIMEOUT) -> Any:
    """Ask a running proxy; `timeout` is in seconds, None for one that may take its time.

    Raises:
        RemoteError: when it does not answer, or refuses.
    """
    data = None if body is None else json.dumps(body).encode()
    try:
        request = Request(url + path, data, {"Content-Type": "application/json"}, method=method)  # noqa: S310 - see below
        with urlopen(request, timeout=timeout) as response:  # noqa: S310 - the operator's own URL
            return json.load(response)
    except HTTPError as error:
        raise RemoteError(_said(url, error)) from error
    except (URLError, HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise RemoteError(
            f"No comfykeep answers at {url} ({reason}). Is it running? Else name it with --proxy."
        ) from error


def _said(url: str, error: HTTPError) -> str:
    try:
        told = json.loads(error.read())["error"]
    except (ValueError, KeyError, TypeError):
        return f"{url} answered {error.code}; is that a comfykeep?"
    return " ".join(filter(None, (f"{told['message']}.", told.get("details"))))
