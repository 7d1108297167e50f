"""What the normalizer raises: only for a prompt that it cannot walk at all; everything else passes unchanged."""


class NormalizerError(Exception):
    """Base of all errors of this package."""


class MalformedPrompt(NormalizerError):  # noqa: N818 -- named for what it is, as callers catch it by that name
    """The prompt is no JSON object of nodes: there is nothing to rewrite, and ComfyUI shall say what is wrong."""
