"""Hazard: a healthy ComfyUI is restarted for what a client has written, or a broken one is not."""

import pytest

from proxy.core.blame import Blame, blamed


@pytest.mark.parametrize(
    ("kind", "message", "blame"),
    [
        ("RuntimeError", "CUDA error: an illegal memory access was encountered", Blame.DEVICE),
        ("torch.AcceleratorError", "CUDA error: unspecified launch failure", Blame.DEVICE),
        ("RuntimeError", "CUDA driver error: unknown error", Blame.DEVICE),
        ("FileNotFoundError", "No such file or directory: 'input/my nvml chart.png'", Blame.PROMPT),
        ("ValueError", "could not parse: 'a poster that says CUDA error'", Blame.PROMPT),
        ("torch.OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB", Blame.PROMPT),
        ("RuntimeError", "mat1 and mat2 shapes cannot be multiplied (77x2048 and 768x320)", Blame.PROMPT),
        ("RuntimeError", "ERROR: clip input is invalid: None", Blame.PROMPT),
        ("RuntimeError", "something nobody has seen", Blame.UNKNOWN),
    ],
)
def test_whose_fault_it_is(kind: str, message: str, blame: Blame) -> None:
    assert blamed(kind, message) is blame
