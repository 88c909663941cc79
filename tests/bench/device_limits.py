#!/usr/bin/env python3
"""What the reference stack finds on a device, and the ceiling of products there. A child of
vs_reference.py: no other process may hold device memory while a program is measured.

    device_limits.py cuda                     {"name": .., "compute": .., "torch": .., ..}, or
                                              {"skipped": why it cannot run here}
    device_limits.py cuda --ceiling bf16      {"gflops": ..}
"""

import argparse
import importlib.util
import json
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("transformers", "peft", "accelerate", "bitsandbytes", "PIL")


def first_line(error: BaseException) -> str:
    """What went wrong, on one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]


def without_cuda() -> str | None:
    """Why PyTorch has no CUDA device; None if it has one."""
    if importlib.util.find_spec("torch") is None:
        return f"no torch for {sys.executable}"
    import torch
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no CUDA device"
    return None


def without_stack() -> str | None:
    """Why the reference cannot train in 4 bits on the CUDA device; None if it can."""
    for name in PACKAGES:
        if importlib.util.find_spec(name) is None:
            return f"no {name} for {sys.executable} (scripts/requirements-reference.txt)"
    import torch
    try:
        from bitsandbytes import functional
        packed, state = functional.quantize_4bit(torch.randn(64, 64, device="cuda"),
                                                 quant_type="nf4", compress_statistics=True)
        functional.dequantize_4bit(packed, state)
        torch.cuda.synchronize()
    except Exception as error:  # whatever it is, the stack does not work here
        return f"bitsandbytes does not quantise on the device: {first_line(error)}"
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from reference import run_reference  # noqa: F401
    except ImportError as error:
        return f"scripts/reference needs other versions: {first_line(error)}"
    return None


def describe() -> dict:
    """The CUDA device and the versions of what runs on it."""
    from importlib.metadata import version

    import torch
    major, minor = torch.cuda.get_device_capability()
    return {"name": torch.cuda.get_device_name(), "capability": f"{major}.{minor}",
            "compute": "bf16" if major >= 8 else "f16", "cuda": torch.version.cuda,
            **{name: version(name) for name in ("torch", "transformers", "peft", "bitsandbytes")}}


def ceiling(device: str, compute: str) -> float:
    """GFLOP/s of a large square product through PyTorch: best of five on a CPU (its speed drifts
    downwards only), the median of seven runs of ten on a GPU."""
    import torch
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[compute]
    size, runs, times = (8192, 7, 10) if device == "cuda" else (2048, 5, 1)
    a, b = (torch.randn(size, size, device=device, dtype=torch.float32).to(dtype)
            for _ in range(2))
    out = torch.empty_like(a)
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    seconds = []
    for run in range(runs + (1 if device == "cuda" else 0)):
        synchronize()
        begin = time.monotonic()
        for _ in range(times):
            torch.mm(a, b, out=out)
        synchronize()
        if device == "cpu" or run > 0:  # the first one warms a GPU up
            seconds.append((time.monotonic() - begin) / times)
    best = min(seconds) if device == "cpu" else statistics.median(seconds)
    return 2 * size**3 / best / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("device", choices=["cpu", "cuda"])
    parser.add_argument("--ceiling", choices=["f32", "bf16", "f16"])
    arguments = parser.parse_args()
    if arguments.ceiling:
        print(json.dumps({"gflops": ceiling(arguments.device, arguments.ceiling)}))
    elif arguments.device == "cuda":
        reason = without_cuda() or without_stack()
        print(json.dumps({"skipped": reason} if reason else describe()))
    else:
        print(json.dumps({"name": "cpu", "compute": None}))


if __name__ == "__main__":
    main()
