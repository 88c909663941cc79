#!/usr/bin/env python3
"""Optimizer steps per second: medvqa against transformers + PEFT + bitsandbytes, in one run.

Both train the same 4-bit checkpoint (from `medvqa init`) on the same samples with LoRA r = 16 on
every vision and language linear and 8-bit AdamW. The programs take turns, so that a machine whose
speed drifts treats them alike; medians are reported, and the ceiling of matrix products is measured
between the turns. Run with the Python of scripts/requirements-reference.txt. A program, not a test.

    vs_reference.py --shape 143m                           on the CPU
    vs_reference.py --shape llama32-11b --device cuda --json figures.json

Peaks: on a CPU the largest resident set of the process; on a GPU what the plan of medvqa takes of
the device (its arenas are all it allocates) and what PyTorch's tensors took at most during the
steps, its cache not counted (ref_reserved_gb has it). Neither counts the driver's context.
FLOPs are counted by shape (ops::operations) in steps of medvqa under --profile: on a GPU in a run
of its own, whose seconds are not used, since --profile waits for every operation.

Exits with 77 after one line, "vs_reference: skipped: ...", where the device or a package of the
reference is missing.
"""

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import HEAD, cells_of, in_words, row_of, verdict
from shapes import SHAPES, SIDES

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
SKIPPED = 77
DOES_NOT_FIT = 6  # medvqa's exit code
COMPUTES = ["f32", "bf16", "f16"]


def environment(device: str) -> dict:
    """Of all children: with a GPU in sight, transformers would load 4-bit weights onto it."""
    return os.environ | ({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {})


def ask(device: str, *words: str) -> dict:
    """device_limits.py's answer."""
    done = subprocess.run([sys.executable, HERE / "device_limits.py", device, *words],
                          capture_output=True, text=True, check=False, env=environment(device))
    if done.returncode != 0:
        sys.exit(f"device_limits.py: exit {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def make_checkpoint(medvqa: Path, folder: Path, shape: str) -> None:
    """A random NF4 checkpoint, unless there is one of this shape."""
    file = folder / "config.json"
    if file.exists():
        found = json.loads(file.read_text())
        for key in ("model_type", "hidden_size", "num_hidden_layers", "vocab_size"):
            there, wanted = (c.get("text_config", c).get(key) for c in (found, SHAPES[shape]))
            if there != wanted:
                sys.exit(f"{file}: {key} is {there}, expected {wanted} of {shape}")
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as config:
        json.dump(SHAPES[shape], config)
        config.flush()
        done = subprocess.run([medvqa, "init", "--model-config", config.name, "--quantization",
                               "nf4", "--out", folder], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"medvqa init: exit {done.returncode}\n{done.stderr}")


def prepare(folder: Path, arguments) -> None:
    """Checkpoint, pictures and questions."""
    import numpy as np
    from PIL import Image
    checkpoint = folder / "checkpoint"
    if arguments.checkpoint:
        checkpoint.symlink_to(arguments.checkpoint.resolve())
    make_checkpoint(arguments.medvqa, checkpoint.resolve(), arguments.shape)
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    side, rows = SIDES[arguments.shape], []
    for i in range(arguments.samples):
        pixels = rng.integers(0, 255, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{i}.png")
        rows.append({"image": f"{i}.png", "question": "Is it so?", "answer": "a" * 12})
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def measured(command: list, device: str,
             may_end: tuple = ()) -> tuple[subprocess.CompletedProcess, float]:
    """A finished child and its peak resident memory in GB; exit codes of `may_end` are returned."""
    timed = ["/usr/bin/env", "python3", "-c",
             "import resource, subprocess, sys\n"
             "code = subprocess.call(sys.argv[1:])\n"
             "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
             "print('peak-kib', peak, file=sys.stderr)\nsys.exit(code)", *map(str, command)]
    done = subprocess.run(timed, capture_output=True, text=True, check=False,
                          env=environment(device))
    if done.returncode != 0 and done.returncode not in may_end:
        sys.exit(f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    peak = int(re.search(r"peak-kib (\d+)", done.stderr)[1]) * 1024 / 1e9
    return done, peak


def planned_gb(log: str) -> float:
    """What the plan that `medvqa train` begins with takes of the device, in GB."""
    return float(re.search(r"memory MiB: .* total ([\d.]+)", log)[1]) * 2**20 / 1e9


def operations_of(table: str) -> dict:
    """Seconds and GFLOP by operation, from the table of --profile."""
    found = {}
    for line in table.splitlines():
        row = re.match(r"(gemm|attention|attention_backward|linear_cross_entropy)\s+\d+\s+"
                       r"([\d.]+)\s+[\d.]+%\s+([\d.]+)", line)
        if row:
            found[row[1]] = (float(row[2]), float(row[2]) * float(row[3]))
    return found


def configuration(options: dict) -> dict:
    """medvqa's configuration of a run."""
    config = {"device": options["device"],
              "model": {"path": "checkpoint", "compute": options["compute"]},
              "data": {"train": [{"format": "jsonl", "path": "data.jsonl"}], "validation": None},
              "train": {"batch_size": options["samples"], "gradient_accumulation": 1,
                        "max_steps": options["steps"], "warmup_steps": 0, "learning_rate": 1e-4,
                        "recompute": options["recompute"]},
              "output": "run"}
    if options["features"]:
        config["model"]["vision_features"] = options["features"]
    if options["device"] == "cuda":
        # The reference reads its pictures before the steps.
        config["data"]["threads"] = min(4, os.cpu_count() or 1)
    return config


def run_medvqa(medvqa: Path, folder: Path, options: dict, profile: bool) -> dict:
    """Steps of medvqa, or why there are none; with a profile its operations."""
    (folder / "run.json").write_text(json.dumps(configuration(options)))
    begin = time.time()
    done, peak = measured([medvqa, "train", "--config", folder / "run.json", "--overwrite",
                           *(["--profile"] if profile else [])], options["device"],
                          may_end=(DOES_NOT_FIT,))
    if done.returncode == DOES_NOT_FIT:
        return {"missing": "does not fit"}
    lines = (folder / "run/metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    seconds = [s["seconds"] for s in steps if s["event"] == "step"]
    first = (folder / "run/config.resolved.json").stat().st_mtime - begin + seconds[0]
    if options["device"] == "cuda":
        peak = planned_gb(done.stdout + done.stderr)
    return {"seconds": seconds, "peak": peak, "first_step": first} | (
        {"operations": operations_of(done.stderr)} if profile else {})


def run_reference(folder: Path, options: dict) -> dict:
    """Steps of the reference stack, or why there are none."""
    words = [w for name in ("device", "compute", "recompute", "steps", "samples", "adapters",
                            "optimizer") for w in (f"--{name}", options[name])]
    done, peak = measured([sys.executable, HERE / "reference_steps.py", folder, *words],
                          options["device"])
    found = json.loads(done.stdout.splitlines()[-1])
    if "out_of_memory" in found:
        return {"missing": "does not fit"}
    return found | {"peak": found.get("peak_allocated", peak)}


def measure(folder: Path, arguments, options: dict) -> dict:
    """Runs of both programs and measured ceilings by policy. A turn goes through everything once,
    so that a machine whose speed drifts treats all alike."""
    policies = dict.fromkeys(arguments.recompute + arguments.reference_recompute)
    found = {p: {"ours": [], "theirs": [], "profiles": [], "ceilings": []} for p in policies}
    on_gpu = arguments.device == "cuda"
    for turn in range(arguments.turns):
        for policy, runs in found.items():
            here = options | {"recompute": policy}
            runs["ceilings"].append(
                ask(arguments.device, "--ceiling", options["compute"])["gflops"])
            if policy in arguments.recompute:
                runs["ours"].append(run_medvqa(arguments.medvqa, folder, here, not on_gpu))
                if not on_gpu:
                    runs["profiles"].append(runs["ours"][-1])
                elif turn == 0:
                    runs["profiles"].append(run_medvqa(arguments.medvqa, folder, here, True))
            if policy in arguments.reference_recompute:
                runs["theirs"].append(run_reference(folder, here))
    return found


def parse(words: list[str]) -> argparse.Namespace:
    """The command line, with what depends on the device filled in."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--medvqa", type=Path, help="the program; default: of build/DEVICE")
    parser.add_argument("--shape", choices=list(SHAPES), default="143m")
    parser.add_argument("--checkpoint", type=Path,
                        help="NF4 checkpoint of that shape; made there if there is none, and kept")
    parser.add_argument("--steps", type=int, help="of each run; default: 4, on a GPU 10")
    parser.add_argument("--samples", type=int, default=2, help="of a step")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--compute", nargs="+", choices=COMPUTES,
                        help="default: f32 bf16; on a GPU bf16, before sm_80 f16")
    parser.add_argument("--recompute", nargs="*", default=["none", "all"],
                        choices=["none", "attention_saved", "all", "auto"],
                        help="policies of medvqa")
    parser.add_argument("--reference-recompute", nargs="*", default=["none", "all"],
                        choices=["none", "all"],
                        help="policies of the reference; none given: it does not run")
    parser.add_argument("--reference-adapters", choices=["f32", "compute"], default="f32",
                        help="on a GPU: f32 under autocast, or the compute type without it")
    parser.add_argument("--reference-optimizer", choices=["adamw8bit", "paged"],
                        default="adamw8bit")
    parser.add_argument("--json", type=Path, metavar="FILE",
                        help="figures: the first verdict (else the first row), all in \"rows\"")
    arguments = parser.parse_args(words)
    on_gpu = arguments.device == "cuda"
    arguments.medvqa = (arguments.medvqa or ROOT / "build" / arguments.device / "medvqa").resolve()
    arguments.steps = arguments.steps or (10 if on_gpu else 4)
    if not on_gpu:
        arguments.compute = arguments.compute or ["f32", "bf16"]
        if arguments.reference_optimizer == "paged":
            parser.error("--reference-optimizer paged needs a GPU")
    if "f16" in (arguments.compute or []) and arguments.reference_adapters == "compute":
        parser.error("f16 adapters have no gradient scaler: --reference-adapters f32")
    return arguments


def write_json(arguments, machine: dict, rows: list[dict], verdicts: list[dict]) -> None:
    """The file of --json."""
    version = subprocess.run([arguments.medvqa, "--version"], capture_output=True, text=True,
                             check=True).stdout.splitlines()[0]
    figures = (verdicts or rows)[0] | {
        "machine": machine, "medvqa": version, "samples": arguments.samples,
        "steps": arguments.steps, "turns": arguments.turns,
        "reference_adapters": arguments.reference_adapters,
        "reference_optimizer": arguments.reference_optimizer,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "verdicts": verdicts, "rows": rows}
    arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def main() -> None:
    arguments = parse(sys.argv[1:])
    machine = ask(arguments.device)
    if "skipped" in machine:
        print(f"vs_reference: skipped: {machine['skipped']}")
        sys.exit(SKIPPED)
    print(f"{arguments.shape}, {arguments.samples} samples a step; " +
          ", ".join(f"{name} {value}" for name, value in machine.items() if value) + "\n")
    print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD), flush=True)
    rows, verdicts = [], []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepare(folder, arguments)
        for compute in arguments.compute or [machine["compute"]]:
            # Features as transformers 5 computes them; Qwen2-VL has none.
            family = SHAPES[arguments.shape]["model_type"]
            options = {"device": arguments.device, "compute": compute, "steps": arguments.steps,
                       "samples": arguments.samples, "adapters": arguments.reference_adapters,
                       "optimizer": arguments.reference_optimizer,
                       "features": "block_output" if family == "mllama" else None}
            of_type = [row_of(arguments.shape, options, policy, runs)
                       for policy, runs in measure(folder, arguments, options).items()]
            for row in of_type:
                print("| " + " | ".join(cells_of(row)) + " |", flush=True)
            rows += of_type
            best = verdict(of_type)
            verdicts += [best] if best else []
    if arguments.json:
        write_json(arguments, machine, rows, verdicts)
    without = [c for c in dict.fromkeys(r["compute"] for r in rows)
               if c not in (v["compute"] for v in verdicts)]
    print("\n" + "\n".join([in_words(row) for row in verdicts] + [
        f"{compute}: no policy ran in the memory of a reference with recompute"
        for compute in without]))


if __name__ == "__main__":
    main()
