#!/usr/bin/env python3
"""Holds the module table of the architecture against the tree's #include lines.

Arrows point downward only; no CUDA header outside kernels/cuda; no `#if ... CUDA` outside
kernels/cuda, its emulation and the backend factory. Every offending line is named.
"""

import argparse
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUFFIXES = {".h", ".cpp", ".cu", ".cuh"}

# module -> modules it may include; its own headers are always allowed.
TABLE: dict[str, set[str]] = {
    "core": set(),
    "ops": {"core"},
    "quant": {"core"},
    "kernels/cpu": {"ops", "quant", "core"},
    "kernels/cuda": {"ops", "quant", "core"},
    "kernels/emulation": {"kernels/cuda", "kernels/cpu", "ops", "quant", "core"},
    "autograd": {"ops", "core"},
    "nn": {"autograd", "quant", "ops", "core"},
    "models": {"nn", "autograd", "quant", "ops", "core"},
    "io": {"core", "ops", "quant"},
    "image": {"core"},
    "text": {"core"},
    "data": {"image", "text", "io", "core"},
    "scores": {"core"},
    "train": {"models", "data", "io", "scores", "nn", "autograd", "ops", "quant", "core"},
    "eval": {"train", "models", "data", "io", "scores", "nn", "autograd", "ops", "quant",
             "image", "text", "core"},
}
TABLE["app"] = set(TABLE)
# Single headers that a module may include beyond its row.
HEADERS = {"io": re.compile(r"medvqa/nn/(parameter|weights)\.h")}
# The one place that makes a backend may include the kernels.
FACTORY = re.compile(r"src/(train|app)/\w*backend\w*\.cpp")

INCLUDE = re.compile(r'\s*#\s*include\s*([<"])([^>"]+)[>"]')
CONDITION = re.compile(r"\s*#\s*(if|ifdef|ifndef|elif|elifdef)\b.*CUDA")
CUDA_HEADER = re.compile(
    r"(cuda|cublas|cudnn|nccl|curand|cusparse|cusolver|cufft|nvrtc|nvml|nvtx|nvToolsExt"
    r"|device_launch|cooperative_groups|vector_types|mma\.h|thrust/|cub/|cute/|cutlass/)")
OURS = re.compile(r"(?:medvqa|src)/(\w+)/|(kernels/\w+)/")


def module_of(path: str) -> str | None:
    """The module of a file, by its path from the root; None for what has no module."""
    found = re.match(r"(?:include/medvqa|src)/(\w+)/|(kernels/\w+)/", path)
    return (found[1] or found[2]) if found else None


def included_module(header: str) -> str | None:
    """The module of an included header, None for a header that is not ours."""
    found = OURS.match(header)
    return (found[1] or found[2]) if found else None


def check_include(path: str, quote: str, header: str) -> str | None:
    """What is wrong with one include of the file `path`, or None."""
    module = module_of(path)
    if CUDA_HEADER.match(header) and module != "kernels/cuda":
        return f"CUDA header {header} outside kernels/cuda"
    target = included_module(header)
    if module is None:
        return None
    if target is None:
        if quote == '"' and "/" in header and not header.startswith("nlohmann/"):
            return f'"{header}" names no module; use "medvqa/<module>/..." or "kernels/..."'
        return None
    if target == module:
        return None
    if header.startswith("src/"):
        return f"{header} is private to module {target}"
    if target in TABLE.get(module, set()) and module != "app":
        return None
    if target.startswith("kernels/"):
        if FACTORY.fullmatch(path):
            return None
        return f"only the backend factory may include {target}, not module {module}"
    if module == "app" or (module in HEADERS and HEADERS[module].fullmatch(header)):
        return None
    allowed = ", ".join(sorted(TABLE[module])) or "nothing of ours"
    return f"module {module} may not include {target} ({header}); it may include: {allowed}"


def check_file(root: Path, file: Path) -> list[str]:
    """Complaints about one file, each `path:line: text`."""
    path = file.relative_to(root).as_posix()
    module = module_of(path)
    if module is not None and module not in TABLE:
        return [f"{path}:1: module {module} is not in the table of check_layers.py"]
    complaints = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        found = INCLUDE.match(line)
        problem = check_include(path, found[1], found[2]) if found else None
        free = module in ("kernels/cuda", "kernels/emulation") or FACTORY.fullmatch(path)
        if CONDITION.match(line) and not free:
            problem = "conditional on CUDA outside kernels/cuda and the backend factory"
        if problem:
            complaints.append(f"{path}:{number}: {problem}")
    return complaints


def check_tree(root: Path) -> tuple[int, list[str]]:
    """Number of files and all complaints of a source tree."""
    files = [f for folder in ("include", "src", "kernels", "tests")
             for f in sorted((root / folder).rglob("*")) if f.suffix in SUFFIXES]
    return len(files), [c for file in files for c in check_file(root, file)]


# path, content, whether it must be complained about
CASES = [
    ("src/core/error.cpp", '#include <vector>\n#include "medvqa/core/error.h"\n', False),
    ("include/medvqa/core/a.h", '#include "medvqa/ops/backend.h"\n', True),
    ("src/models/a.cpp", '#include "medvqa/nn/linear.h"\n', False),
    ("src/models/b.cpp", '#include "medvqa/io/safetensors.h"\n', True),
    ("src/io/a.cpp", '#include "medvqa/nn/weights.h"\n', False),
    ("src/io/b.cpp", '#include "medvqa/nn/linear.h"\n', True),
    ("src/image/a.cpp", '#include "medvqa/text/tokenizer.h"\n', True),
    ("src/text/a.cpp", '#include "medvqa/core/error.h"\n#include <oniguruma.h>\n', False),
    ("src/train/a.cpp", '#include "kernels/cpu/cpu_backend.h"\n', True),
    ("src/train/make_backend.cpp", '#include "kernels/cpu/cpu_backend.h"\n#ifdef MEDVQA_CUDA\n',
     False),
    ("src/train/b.cpp", '  #  ifdef MEDVQA_WITH_CUDA\n', True),
    ("src/app/a.cpp", '#include "medvqa/text/tokenizer.h"\n', False),
    ("src/app/b.cpp", '#include "kernels/cpu/cpu_backend.h"\n', True),
    ("kernels/cpu/a.cpp", '#include "kernels/cpu/gemm.h"\n#include "medvqa/quant/nf4.h"\n', False),
    ("kernels/cpu/b.cpp", '#include "medvqa/autograd/tape.h"\n', True),
    ("kernels/cpu/c.cpp", '#include <cuda_runtime.h>\n', True),
    ("kernels/cuda/a.cu", '#include <cuda_runtime.h>\n#ifdef __CUDACC__\n', False),
    ("kernels/emulation/a.cpp", '#include "kernels/cpu/cpu_backend.h"\n', False),
    ("kernels/emulation/b.cpp", '#include <cuda_fp16.h>\n', True),
    ("tests/ops/a_test.cpp", '#include <cublasLt.h>\n', True),
    ("src/ops/a.cpp", '#include "src/core/private.h"\n', True),
    ("src/surprise/a.cpp", "int x;\n", True),
]


def self_test() -> int:
    """Every case in a tree of its own; returns the number of wrong verdicts."""
    wrong = 0
    for path, content, bad in CASES:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / path
            file.parent.mkdir(parents=True)
            file.write_text(content)
            if bool(check_tree(Path(folder))[1]) != bad:
                wrong += 1
                print(f"self-test: wrong verdict on {path}: {content!r}")
    print(f"check_layers self-test: {len(CASES) - wrong} passed, {wrong} failed")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--self-test", action="store_true", help="prove that it can fail")
    parser.add_argument("--root", type=Path, default=ROOT)
    arguments = parser.parse_args()
    if arguments.self_test:
        return 1 if self_test() else 0
    count, complaints = check_tree(arguments.root.resolve())
    print("\n".join(complaints + [f"check_layers: {count} files, {len(complaints)} complaints"]))
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
