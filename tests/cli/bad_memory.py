"""Runs that do not fit into memory."""

import json
import resource
import subprocess
import sys

from bad_data import large_png
from bad_kinds import Kind, train
from program import Medvqa, Skip

LITTLE, MUCH = 160 << 20, 8 << 30
# Every linear then has matrices of 4096 rows.
WIDE = ("--set", "lora.r=4096", "--set", "train.optimizer=adamw")
ROWS = 4


def limited(size: int):
    """In the child: the system gives no more memory than that."""
    return lambda: resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def too_large_images(medvqa: Medvqa):
    """Four images of a hundred million pixels in one micro-batch: hundreds of gigabytes.

    Only their headers are read, and the limit keeps a machine that has as much from trying."""
    (medvqa.scratch / "a.png").write_bytes(large_png(10000))
    row = {"image": "a.png", "question": "Is it?", "answer": "yes"}
    (medvqa.scratch / "data.jsonl").write_text((json.dumps(row) + "\n") * ROWS, encoding="utf-8")
    config = medvqa.config(
        lora__init_from=None, train__batch_size=ROWS, train__gradient_accumulation=1,
        train__recompute="none",
        data__train=[{"format": "jsonl", "path": str(medvqa.scratch / "data.jsonl")}],
        data__max_length=130000, data__image={"max_pixels": 100_000_000})
    return train(config, *WIDE, before=limited(MUCH), environment={"OMP_NUM_THREADS": "1"})


def refused_by_the_system(medvqa: Medvqa):
    """The plan fits the machine, but the process may not have it."""
    tried = subprocess.run([sys.executable, "-c", f"bytearray({2 * LITTLE})"], check=False,
                           capture_output=True, preexec_fn=limited(LITTLE))
    if tried.returncode == 0:
        raise Skip("this system does not hold processes to RLIMIT_DATA")
    return train(medvqa.config(lora__init_from=None), *WIDE, before=limited(LITTLE),
                 environment={"OMP_NUM_THREADS": "1"})


def planned() -> tuple[str, ...]:
    """What is said where the plan finds it: everywhere but on a machine that has so much."""
    with open("/proc/meminfo", encoding="ascii") as lines:
        kib = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    if kib > 300 << 20:
        return ("the system has no",)
    return ("the run needs", "the machine has", "medvqa plan")


MEMORY = [
    Kind("images that do not fit", 6, planned(), too_large_images),
    Kind("memory that the system refuses", 6, ("the system has no",), refused_by_the_system),
]
