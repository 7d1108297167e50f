import pytest

from proxy.core.shortage import Shortage, shortage

TIPS = "\n\nTIPS: If the workflow worked before you might have accidentally set the batch_size to a large number."


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("torch.OutOfMemoryError", "Allocation on device \nThis error means you ran out of memory on your GPU." + TIPS),
        ("torch.cuda.OutOfMemoryError", "Allocation on device 0 would exceed allowed memory. (out of memory)"),
        ("torch.OutOfMemoryError", "HIP out of memory. Tried to allocate 3.31 GiB. GPU 0 has a total capacity of ..."),
        ("torch.OutOfMemoryError", "XPU out of memory. Tried to allocate 64.00 GiB."),
        ("torch.AcceleratorError", "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        ("RuntimeError", "CUDA error: out of memory"),
        ("RuntimeError", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        ("RuntimeError", "MPS backend out of memory (MPS allocated: 17.99 GB, other allocations: 1.14 GB)."),
        ("RuntimeError", "UR error: UR backend failed. UR backend returns:39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)"),
        ("RuntimeError", "Native API failed. Native API returns: -5 (PI_ERROR_OUT_OF_RESOURCES)"),
        ("RuntimeError", "Could not allocate tensor with 1 bytes. There is not enough GPU video memory available!"),
    ],
)
def test_want_of_vram(kind: str, message: str) -> None:
    assert shortage(kind, message) is Shortage.VRAM


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("RuntimeError", "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
        ("RuntimeError", "[enforce fail at alloc_cpu.cpp:117] data. DefaultCPUAllocator: not enough memory: you tried"),
        ("MemoryError", "\n"),
        ("numpy._core._exceptions._ArrayMemoryError", "Unable to allocate 7.11 PiB for an array with shape (1,)"),
        ("OSError", "[Errno 12] Cannot allocate memory"),
        ("OSError", "[WinError 1455] The paging file is too small for this operation to complete"),
        ("safetensors_rust.SafetensorError", "Error while opening: Cannot allocate memory (os error 12)"),
    ],
)
def test_want_of_ram(kind: str, message: str) -> None:
    assert shortage(kind, message) is Shortage.RAM


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("RuntimeError", "CUDA error: device-side assert triggered"),
        ("torch.AcceleratorError", "CUDA error: an illegal memory access was encountered"),
        ("RuntimeError", "mat1 and mat2 shapes cannot be multiplied (77x2048 and 768x320)"),
        ("FileNotFoundError", "[Errno 2] No such file or directory: 'memory.safetensors'"),
        ("", ""),
    ],
)
def test_other_errors(kind: str, message: str) -> None:
    assert shortage(kind, message) is None
