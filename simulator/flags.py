"""ComfyUI's command line, as far as the simulator acts on it (ComfyUI comfy/cli_args.py)."""

import argparse
import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .config import DEFAULT_MODELS, CacheMode, SimulatorConfig, VramMode

_ONLY_REPORTED = frozenset(
    [
        "async-offload",
        "auto-launch",
        "base-directory",
        "bf16-text-enc",
        "bf16-unet",
        "bf16-vae",
        "comfy-api-base",
        "cpu",
        "cpu-vae",
        "cuda-device",
        "cuda-malloc",
        "database-url",
        "debug-hang",
        "default-device",
        "default-hashing-function",
        "deterministic",
        "directml",
        "disable-all-",
        "custom-nodes",
        "disable-api-nodes",
        "disable-async-offload",
        "disable-auto-launch",
        "disable-cuda-graphs",
        "disable-cuda-malloc",
        "disable-ipex-optimize",
        "disable-manager-ui",
        "disable-mmap",
        "disable-nvml-pressure",
        "disable-pinned-",
        "memory",
        "disable-triton-backend",
        "disable-xformers",
        "dont-print-server",
        "dont-upcast-attention",
        "enable-asset-hashing",
        "enable-assets",
        "enable-manager",
        "enable-manager-legacy-ui",
        "enable-triton-backend",
        "extra-model-",
        "paths-config",
        "fast",
        "feature-flag",
        "force-channels-last",
        "force-fp16",
        "force-fp32",
        "force-non-blocking",
        "force-",
        "upcast-attention",
        "fp16-intermediates",
        "fp16-text-enc",
        "fp16-unet",
        "fp16-vae",
        "fp32-text-enc",
        "fp32-unet",
        "fp32-vae",
        "fp64-unet",
        "fp8",
        "fp8_e4m3fn-text-enc",
        "fp8_e4m3fn-unet",
        "fp8_e5m2-text-enc",
        "fp8_e5m2-unet",
        "fp8_e8m0fnu-unet",
        "front-end-root",
        "front-",
        "end-version",
        "input-directory",
        "list-feature-flags",
        "log-stdout",
        "mmap-torch-files",
        "models-directory",
        "multi-user",
        "oneapi-device-selector",
        "preview-size",
        "quick-test-for-ci",
        "supports-fp8-compute",
        "temp-directory",
        "tls-",
        "certfile",
        "tls-keyfile",
        "use-ck-attention",
        "use-flash-attention",
        "use-pytorch-cross-attention",
        "use-quad-cross-attention",
        "use-sage-attention",
        "use-split-cross-attention",
        "user-directory",
        "verbose",
        "whitelist-custom-nodes",
        "windows-standalone-build",
    ]
)
"""The flags of ComfyUI on which the simulator does not act (0.3.64 and 0.33.0)."""


def _parser() -> argparse.ArgumentParser:
    defaults = SimulatorConfig()
    parser = argparse.ArgumentParser(
        prog="comfykeep simulate",
        description="A simulated ComfyUI.",
        allow_abbrev=False,  # --fast is a flag of its own, not short for --fast-disk
        epilog="`--cache classic`, `ram`, `lru N` and `none` are taken for --cache-classic and so on; other flags of "
        "ComfyUI are only reported by /system_stats.",
    )
    parser.add_argument("--listen", default=defaults.host, nargs="?", const="0.0.0.0", metavar="IP")  # noqa: S104  # as ComfyUI
    parser.add_argument("--port", type=int, default=8188)
    cache = parser.add_mutually_exclusive_group()
    cache.add_argument("--cache-ram", type=float, nargs="*", default=[], metavar="GB")
    cache.add_argument("--cache-classic", action="store_true")
    cache.add_argument("--cache-lru", type=int, default=0, metavar="N")
    cache.add_argument("--cache-none", action="store_true")
    cache.add_argument("--high-ram", action="store_true")
    vram = parser.add_mutually_exclusive_group()
    for mode in VramMode:
        vram.add_argument(mode or "--normalvram", dest="vram_mode", action="store_const", const=mode)
    parser.set_defaults(vram_mode=VramMode.NORMAL)
    parser.add_argument("--disable-dynamic-vram", action="store_true")
    parser.add_argument("--enable-dynamic-vram", action="store_true")
    parser.add_argument("--vram-headroom", type=float, default=0.0, metavar="GB")
    parser.add_argument("--fast-disk", action="store_true")
    parser.add_argument("--disable-smart-memory", action="store_true")
    parser.add_argument("--reserve-vram", type=float, default=None, metavar="GB")
    parser.add_argument("--preview-method", default="none", choices=["none", "auto", "latent2rgb", "taesd"])
    parser.add_argument("--disable-metadata", action="store_true")
    parser.add_argument("--enable-cors-header", default=None, nargs="?", const="*", metavar="ORIGIN")
    parser.add_argument("--enable-compress-response-body", action="store_true")
    parser.add_argument("--max-upload-size", type=float, default=defaults.max_upload_mb, metavar="MB")
    parser.add_argument("--output-directory", type=Path, metavar="FOLDER")
    machine = parser.add_argument_group("the simulated machine")
    machine.add_argument("--time-scale", type=float, default=1.0, metavar="X", help="simulated seconds per second")
    machine.add_argument("--ram", type=float, default=defaults.ram_gb, metavar="GB")
    machine.add_argument("--vram", type=float, default=defaults.vram_gb, metavar="GB")
    machine.add_argument("--disk", type=float, default=defaults.disk_gbps, metavar="GB/s")
    machine.add_argument("--pcie", type=float, default=defaults.pcie_gbps, metavar="GB/s")
    machine.add_argument("--step-seconds", type=float, default=defaults.step_seconds, metavar="S")
    machine.add_argument("--models", type=Path, metavar="JSON", help='{"folder": {"file": bytes}}')
    machine.add_argument("--object-info", type=Path, metavar="JSON", help="an answer of GET /object_info")
    machine.add_argument("--inspire", action="store_true", help="ComfyUI-Inspire-Pack is installed")
    return parser


def _cache_mode(args: argparse.Namespace) -> CacheMode:
    if args.cache_classic or args.high_ram:
        return CacheMode.CLASSIC
    if args.cache_lru > 0:
        return CacheMode.LRU
    return CacheMode.NONE if args.cache_none else CacheMode.RAM


def _refuse_unknown(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Exit with a message at a flag that ComfyUI has not either; other words are values of flags it has."""
    own = [option.removeprefix("--") for action in parser._actions for option in action.option_strings]  # noqa: SLF001 - it has no other list
    for word in words:
        name = word.removeprefix("--").partition("=")[0]
        if word.startswith("-") and name not in _ONLY_REPORTED:
            close = difflib.get_close_matches(name, [*own, *_ONLY_REPORTED], n=1)
            parser.error(f"unknown flag {word}" + (f": did you mean --{close[0]}?" if close else "; --help lists all"))


def parse(words: Sequence[str]) -> SimulatorConfig:
    """The configuration that a command line asks for; exits with a message where it is wrong."""
    parser = _parser()
    args, rest = parser.parse_known_args(words)
    _refuse_unknown(parser, rest)
    models: Any = DEFAULT_MODELS if args.models is None else json.loads(args.models.read_text(encoding="utf-8"))
    return SimulatorConfig(
        host=args.listen,
        port=args.port,
        cache=_cache_mode(args),
        cache_lru=args.cache_lru,
        cache_ram=tuple(args.cache_ram),
        ram_gb=args.ram,
        vram_gb=args.vram,
        disk_gbps=args.disk,
        pcie_gbps=args.pcie,
        step_seconds=args.step_seconds,
        time_scale=args.time_scale,
        models=models,
        object_info_file=args.object_info,
        output_directory=args.output_directory,
        inspire_pack=args.inspire,
        vram_mode=args.vram_mode,
        dynamic_vram=args.enable_dynamic_vram,
        high_ram=args.high_ram,
        fast_disk=args.fast_disk,
        vram_headroom_gb=args.vram_headroom,
        disable_smart_memory=args.disable_smart_memory,
        reserve_vram_gb=args.reserve_vram,
        preview_method=args.preview_method,
        disable_metadata=args.disable_metadata,
        cors_origin=args.enable_cors_header,
        compress=args.enable_compress_response_body,
        max_upload_mb=args.max_upload_size,
        extra_flags=tuple(rest),
    )
