"""Where the proxy may differ from the ComfyUI behind it, and why. There are no other differences."""

from collections.abc import Mapping

from tests.contract.targets import Target

DIFFERENCES: Mapping[str, str] = {
    "a 4xx for a 500 page": "the page says nothing, nothing was done either way, and a 4xx names the fault",
    "a repeated id runs once": "who sends an id that still waits repeats a request whose answer was lost",
    "an id for null": "0.3.64 calls every prompt with a prompt_id of null 'None', so that they overwrite each other",
    "the newer origin guard": "what a page of another site embeds is kept out of any release, not of newer ones only",
    "a queue in pieces": "ten thousand waiting prompts written in one piece would hold up everybody's events",
    "plain for packed": "what the proxy words itself goes out uncompressed: who takes gzip takes that too",
    "hears after a takeover": "that the second socket of a client goes deaf when the first closes is ComfyUI's error",
}


def allowed(target: Target, difference: str) -> bool:
    """Whether this target may show this difference. Raises KeyError for one that is not in the table."""
    return target.proxied and bool(DIFFERENCES[difference])
