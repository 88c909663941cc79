#!/usr/bin/env python3
"""Optimizer steps per second: medvqa against transformers + PEFT + bitsandbytes, in one run.

Both train the same 4-bit checkpoint (from `medvqa init`) on the same samples with LoRA r = 16 on
every vision and language linear and 8-bit AdamW. The programs take turns, so that a machine whose
speed drifts treats them alike; medians are reported, and the ceiling of matrix products is measured
between the turns. Run with the Python of scripts/requirements-reference.txt. A program, not a test.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent


def qwen2_vl(text: dict, vision: dict, ids: dict) -> dict:
    """config.json of a Qwen2-VL in the Hub's spelling."""
    return {"architectures": ["Qwen2VLForConditionalGeneration"], "model_type": "qwen2_vl",
            "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1e6,
            "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
            "max_position_embeddings": 32768, "tie_word_embeddings": True,
            "torch_dtype": "bfloat16", **text, **ids,
            "vision_config": {"mlp_ratio": 4, "hidden_size": text["hidden_size"], "in_chans": 3,
                              "patch_size": 14, "spatial_merge_size": 2,
                              "temporal_patch_size": 2, **vision}}


def mllama() -> dict:
    """config.json of a Llama 3.2 Vision of 153 M parameters: tiles of 448 pixels (1,025 tokens)."""
    text = {"model_type": "mllama_text_model", "hidden_size": 768, "intermediate_size": 2304,
            "num_hidden_layers": 8, "num_attention_heads": 6, "num_key_value_heads": 2,
            "vocab_size": 16384, "hidden_act": "silu", "rms_norm_eps": 1e-5,
            "rope_theta": 500000.0, "max_position_embeddings": 131072,
            "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                             "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
            "cross_attention_layers": [2, 5], "tie_word_embeddings": False,
            "bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 258}
    vision = {"model_type": "mllama_vision_model", "hidden_size": 640, "intermediate_size": 2560,
              "attention_heads": 8, "num_hidden_layers": 8, "num_global_layers": 2,
              "num_channels": 3, "hidden_act": "gelu", "norm_eps": 1e-5, "patch_size": 14,
              "image_size": 448, "max_num_tiles": 4, "vision_output_dim": 640 * 6,
              "intermediate_layers_indices": [1, 2, 4, 5, 7],
              "supported_aspect_ratios": [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1],
                                          [4, 1]]}
    return {"architectures": ["MllamaForConditionalGeneration"], "model_type": "mllama",
            "image_token_index": 16384, "torch_dtype": "bfloat16", "text_config": text,
            "vision_config": vision}


SHAPES = {
    "143m": qwen2_vl(
        {"hidden_size": 768, "intermediate_size": 2304, "num_hidden_layers": 10,
         "num_attention_heads": 6, "num_key_value_heads": 2, "vocab_size": 16384},
        {"depth": 8, "embed_dim": 640, "num_heads": 8},
        {"bos_token_id": 256, "eos_token_id": 258, "vision_start_token_id": 265,
         "vision_end_token_id": 266, "vision_token_id": 267, "image_token_id": 268,
         "video_token_id": 269}),
    "2b": qwen2_vl(
        {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
         "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151936},
        {"depth": 32, "embed_dim": 1280, "num_heads": 16},
        {"bos_token_id": 151643, "eos_token_id": 151645, "vision_start_token_id": 151652,
         "vision_end_token_id": 151653, "vision_token_id": 151654, "image_token_id": 151655,
         "video_token_id": 151656}),
    "mllama-1-tile": mllama(),
    "mllama-4-tiles": mllama(),
}
# Sides of the square pictures: 1,296 patches (324 tokens) of a Qwen2-VL, one tile, two by two.
SIDES = {"143m": 504, "2b": 504, "mllama-1-tile": 448, "mllama-4-tiles": 896}


def prepare(medvqa: Path, folder: Path, shape: str, samples: int) -> None:
    """Checkpoint, pictures and questions."""
    (folder / "config.json").write_text(json.dumps(SHAPES[shape]))
    subprocess.run([medvqa, "init", "--model-config", folder / "config.json", "--quantization",
                    "nf4", "--out", folder / "checkpoint"], check=True, capture_output=True)
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for i in range(samples):
        pixels = rng.integers(0, 255, (SIDES[shape], SIDES[shape], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{i}.png")
        rows.append({"image": f"{i}.png", "question": "Is it so?", "answer": "a" * 12})
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def measured(command: list) -> tuple[subprocess.CompletedProcess, float, float]:
    """A finished child, its wall seconds and its peak resident memory in GB."""
    begin = time.monotonic()
    timed = ["/usr/bin/env", "python3", "-c",
             "import resource, subprocess, sys\n"
             "code = subprocess.call(sys.argv[1:])\n"
             "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
             "print('peak-kib', peak, file=sys.stderr)\nsys.exit(code)", *map(str, command)]
    done = subprocess.run(timed, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    peak = int(re.search(r"peak-kib (\d+)", done.stderr)[1]) * 1024 / 1e9
    return done, time.monotonic() - begin, peak


def run_medvqa(medvqa: Path, folder: Path, options) -> dict:
    """Steps of medvqa; GFLOP a step and GFLOP/s of products and attention from its profile."""
    config = {"model": {"path": "checkpoint", "compute": options["compute"]},
              "data": {"train": [{"format": "jsonl", "path": "data.jsonl"}], "validation": None},
              "train": {"batch_size": options["samples"], "gradient_accumulation": 1,
                        "max_steps": options["steps"], "warmup_steps": 0, "learning_rate": 1e-4,
                        "recompute": options["recompute"]},
              "output": "run"}
    if options["features"]:
        config["model"]["vision_features"] = options["features"]
    (folder / "run.json").write_text(json.dumps(config))
    begin = time.time()
    done, _, peak = measured([medvqa, "train", "--config", folder / "run.json", "--overwrite",
                              "--profile"])
    lines = (folder / "run/metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    seconds = [s["seconds"] for s in steps if s["event"] == "step"]
    first = (folder / "run/config.resolved.json").stat().st_mtime - begin + seconds[0]
    result = {"seconds": seconds, "peak": peak, "first_step": first}
    for line in done.stderr.splitlines():
        row = re.match(r"(gemm|attention|attention_backward|linear_cross_entropy)\s+\d+\s+"
                       r"([\d.]+)\s+[\d.]+%\s+([\d.]+)", line)
        if row:
            result[row[1]] = (float(row[2]), float(row[2]) * float(row[3]))
    return result


def run_reference(folder: Path, options) -> dict:
    """Steps of the reference stack."""
    done, _, peak = measured([sys.executable, HERE / "reference_steps.py", folder, "--compute",
                              options["compute"], "--recompute", options["recompute"], "--steps",
                              options["steps"], "--samples", options["samples"]])
    return json.loads(done.stdout.splitlines()[-1]) | {"peak": peak}


def ceiling(compute: str) -> float:
    """GFLOP/s of a large square product with oneDNN through PyTorch, best of five."""
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[compute]
    a, b = (torch.randn(2048, 2048).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        begin = time.monotonic()
        torch.mm(a, b)
        best = min(best, time.monotonic() - begin)
    return 2 * 2048**3 / best / 1e9


def cells_of(runs: list) -> list[str]:
    """Step, peak and seconds to the first step, for the table."""
    if not runs:
        return ["-"] * 3
    step, peak = figures_of(runs)
    first = statistics.median(r["first_step"] for r in runs)
    return [f"{step:.2f}", f"{peak:.2f}", f"{first:.1f}"]


def figures_of(runs: list) -> tuple[float, float]:
    """Median step after the first, and the largest peak."""
    return (statistics.median(s for r in runs for s in r["seconds"][1:]),
            max(r["peak"] for r in runs))


def work_of(runs: list, count: int, step: float, top: float) -> list[str]:
    """GFLOP of products and attention a step, and their rates against the ceiling `top`."""
    rows = [r for r in runs if "gemm" in r]
    def rate(*names: str) -> float:
        return statistics.median(sum(r[n][1] for n in names) / sum(r[n][0] for n in names)
                                 for r in rows)
    linear = statistics.median((r["gemm"][1] + r.get("linear_cross_entropy", (0, 0))[1]) / count
                               for r in rows)
    attention = statistics.median((r["attention"][1] + r["attention_backward"][1]) / count
                                  for r in rows)
    return [f"{linear:.0f} + {attention:.0f}", f"{100 * (linear + attention) / step / top:.0f}%",
            f"{100 * rate('gemm') / top:.0f}%",
            f"{100 * rate('attention', 'attention_backward') / top:.0f}%"]


def measure(medvqa: Path, folder: Path, arguments, options: dict) -> dict:
    """Runs of both programs and measured ceilings by policy. A turn goes through everything once,
    so that a machine whose speed drifts treats all alike."""
    policies = dict.fromkeys(arguments.recompute + arguments.reference_recompute)
    runs = {policy: {"ours": [], "theirs": [], "ceilings": []} for policy in policies}
    for _ in range(arguments.turns):
        for policy, found in runs.items():
            found["ceilings"].append(ceiling(options["compute"]))
            if policy in arguments.recompute:
                found["ours"].append(run_medvqa(medvqa, folder, options | {"recompute": policy}))
            if policy in arguments.reference_recompute:
                found["theirs"].append(run_reference(folder, options | {"recompute": policy}))
    return runs


def row_of(options: dict, policy: str, runs: dict) -> list[str]:
    """The table's row of a policy."""
    ours, theirs, top = runs["ours"], runs["theirs"], statistics.median(runs["ceilings"])
    cells = [options["compute"], policy, *cells_of(ours), *cells_of(theirs)]
    both = ours and theirs
    cells.append(f"{figures_of(theirs)[0] / figures_of(ours)[0]:.2f}" if both else "-")
    cells += work_of(ours, options["steps"] - 1, figures_of(ours)[0], top) if ours else ["-"] * 4
    return [*cells, f"{top:.0f}"]


def verdict(compute: str, runs: dict) -> str:
    """Our fastest policy that stays below the peak of the reference with recompute, against it."""
    bar, limit = figures_of(runs["all"]["theirs"])
    figures = {policy: figures_of(found["ours"]) for policy, found in runs.items()
               if found["ours"]}
    fitting = {policy: f for policy, f in figures.items() if f[1] <= limit}
    if not fitting:
        return f"{compute}: no policy stays below the {limit:.2f} GB of the reference"
    policy = min(fitting, key=lambda p: fitting[p][0])
    return (f"{compute}: recompute {policy} takes {fitting[policy][0]:.2f} s in "
            f"{fitting[policy][1]:.2f} GB, the reference with recompute {bar:.2f} s in "
            f"{limit:.2f} GB: {bar / fitting[policy][0]:.2f} x its steps per second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--medvqa", type=Path, default=ROOT / "build/cpu/medvqa")
    parser.add_argument("--shape", choices=list(SHAPES), default="143m")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--compute", nargs="+", default=["f32", "bf16"])
    policies = {"nargs": "*", "choices": ["none", "all"], "default": ["none", "all"]}
    parser.add_argument("--recompute", **policies, help="policies of medvqa")
    parser.add_argument("--reference-recompute", **policies,
                        help="policies of the reference; none given: it does not run")
    arguments = parser.parse_args()
    head = ["compute", "recompute", "step s", "peak GB", "first s", "ref step s", "ref peak GB",
            "ref first s", "ratio", "GFLOP linear + attention", "of ceiling", "linears",
            "attention", "ceiling GFLOP/s"]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepare(arguments.medvqa.resolve(), folder, arguments.shape, arguments.samples)
        verdicts = []
        for compute in arguments.compute:
            # Features as transformers 5 computes them; Qwen2-VL has none.
            options = {"compute": compute, "steps": arguments.steps, "samples": arguments.samples,
                       "features": "block_output" if "mllama" in arguments.shape else None}
            runs = measure(arguments.medvqa.resolve(), folder, arguments, options)
            for policy, found in runs.items():
                print("| " + " | ".join(row_of(options, policy, found)) + " |", flush=True)
            if runs.get("all", {}).get("theirs") and arguments.recompute:
                verdicts.append(verdict(compute, runs))
        print("\n" + "\n".join(verdicts))


if __name__ == "__main__":
    main()
