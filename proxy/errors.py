"""Errors that know whose fault they were, which HTTP status fits, and what the reader can do about it.

ComfyUI answers a refused prompt with a JSON body of one shape (server.py, `POST /prompt`), and its page and most
clients know how to show that shape. Every error that reaches a client from here takes it too::

    {"error": {"type", "message", "details", "extra_info"}, "node_errors": {}}

The hierarchy::

    ConfigError                     a configuration file that cannot be used; told at start, never to a client
    ComfykeepError
    ├── DownstreamError             the client's doing (4xx), or a refusal addressed to it
    │   └── ShuttingDown            503: this process is going away
    └── UpstreamError               ComfyUI's doing (502)
        ├── UpstreamUnreachable     502: nothing answers at the address, or it broke off
        └── UpstreamTimeout         504: something answers, but not in time
"""

from collections.abc import Mapping
from typing import Any


class ConfigError(Exception):
    """A configuration that cannot be used: one line for each fault, with file, line, key and remedy."""


class ComfykeepError(Exception):
    """Base of all errors that are told to a client. `status` is the HTTP status of the answer."""

    status = 500
    type = "comfykeep_error"

    def __init__(
        self,
        message: str,
        *,
        details: str = "",
        extra_info: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`message` says what went wrong, `details` what to do; `headers` go onto the HTTP answer."""
        super().__init__(message)
        self.message = message
        self.details = details
        self.extra_info = dict(extra_info or {})
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The JSON body of the answer, in ComfyUI's shape."""
        return {
            "error": {
                "type": self.type,
                "message": self.message,
                "details": self.details,
                "extra_info": self.extra_info,
            },
            "node_errors": {},
        }


class DownstreamError(ComfykeepError):
    """The client asked for something that cannot be done."""

    status = 400
    type = "bad_request"

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        type: str = "bad_request",  # noqa: A002 - ComfyUI's name for the field
        details: str = "",
        extra_info: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`status` is the HTTP status, `type` the machine-readable name of the error."""
        super().__init__(message, details=details, extra_info=extra_info, headers=headers)
        self.status = status
        self.type = type


class BodyTooLarge(DownstreamError):  # noqa: N818 - the base name says that it is an error
    """A body above ComfyUI's own limit, which is in bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"the body is larger than the {limit} bytes that ComfyUI takes",
            status=413,
            type="body_too_large",
            details="Send inputs with /upload/image, or start ComfyUI with a larger --max-upload-size.",
        )


class ShuttingDown(DownstreamError):  # noqa: N818 - the base name says that it is an error
    """This process is on its way out and takes nothing new."""

    def __init__(self, retry_after: int = 5) -> None:
        """`retry_after` is in seconds."""
        super().__init__(
            "comfykeep is shutting down",
            status=503,
            type="shutting_down",
            details="Try again in a few seconds.",
            headers={"Retry-After": str(retry_after)},
        )


class UpstreamError(ComfykeepError):
    """ComfyUI did not do its part. `url` is the address that was tried."""

    status = 502
    type = "upstream_error"

    def __init__(self, url: str, why: str, remedy: str) -> None:
        """`why` is what was seen, `remedy` what the reader can do."""
        super().__init__(f"ComfyUI at {url}: {why}", details=remedy, extra_info={"url": url, "why": why})
        self.url = url
        self.why = why
        self.remedy = remedy


class UpstreamUnreachable(UpstreamError):  # noqa: N818 - the base name says that it is an error
    """Nothing answers at the address, or the connection broke before the answer was there.

    `sent` is false only if it is certain that ComfyUI has seen nothing of the request.
    """

    type = "upstream_unreachable"

    def __init__(self, url: str, why: str, remedy: str, *, sent: bool = True) -> None:
        super().__init__(url, why, remedy)
        self.sent = sent


class UpstreamTimeout(UpstreamError):  # noqa: N818 - the base name says that it is an error
    """ComfyUI took the connection but did not answer in time; whether it acted is not known."""

    status = 504
    type = "upstream_timeout"
