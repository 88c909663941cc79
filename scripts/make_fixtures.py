#!/usr/bin/env python3
"""Writes the committed fixtures: tiny models, their adapters, images and the expected numbers.

Needs scripts/requirements-reference.txt. The same seeds and versions give the same files.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from reference import mllama_family, program, qwen2_vl_family, run_reference, samples

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ["torch", "transformers", "peft", "bitsandbytes", "tokenizers", "safetensors",
            "pillow", "numpy"]
QWEN2_VL = qwen2_vl_family.Recipe(
    seed=20260301, storage="nf4_nested", tied=False, dtype="bfloat16", heads=3, kv_heads=1,
    head_dim=16, intermediate=256, layers=2, vision_heads=2, vision_head_dim=20, vision_depth=2,
    vision_mlp_ratio=2, merges=64, spare_rows=1, skip_modules=["lm_head", "model.visual.merger"],
    flat_config=True, new_prefixes=False, sharded=False, merges_as_text=True,
    min_pixels=28 * 28, max_pixels=5 * 28 * 28, rope_theta=1000000.0, r=16, alpha=16, rslora=False)
# As the -unsloth-bnb-4bit files are: some linears of the blocks in 16 bits, the others in 4.
MLLAMA = mllama_family.Recipe(
    seed=20260302, storage="nf4_nested", dtype="bfloat16", heads=2, kv_heads=1, head_dim=16,
    intermediate=256, layers=2, cross_layers=[1], vision_heads=2, vision_head_dim=16,
    vision_intermediate=128, vision_layers=2, global_layers=1, feature_layers=[0],
    features="block_input", tile_side=2, patch_size=8, merges=64, spare_tokens=1,
    skip_modules=["lm_head", "multi_modal_projector", "layers.0.self_attn.o_proj", "fc1"],
    hub_config=True, llama3_rope=True, new_prefixes=False, sharded=False, merges_as_text=False,
    r=16, alpha=16, rslora=False)
RECIPES = {"qwen2_vl_tiny": QWEN2_VL, "mllama_tiny": MLLAMA}
TRAINING = run_reference.Training()
SAMPLES = 6
KINDS = ["jpeg_rgb", "png_rgba", "jpeg_grey"]
SIZES = [(61, 83), (128, 40), (30, 33)]


def write_images_and_rows(recipe, folder: Path) -> None:
    """Three images, each asked about twice."""
    samples.write_dataset(recipe.seed, len(KINDS), folder, KINDS, SIZES)
    first = samples.read_dataset(folder)
    rows = first + [{"image": row["image"], "question": f"Is image {i} axial?",
                     "answer": ["yes", "no", "on the left"][i]} for i, row in enumerate(first)]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / "dataset.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_expected(recipe, folder: Path) -> dict:
    """expected.safetensors, expected_inputs.json and expected_training.json; returns rounding."""
    encoded = run_reference.load_samples(folder / "checkpoint", folder)
    order = next(run_reference.step_groups(len(encoded), TRAINING))
    results = {}
    for name, compute in (("f32", torch.float32), ("f64", torch.float64)):
        results[name] = run_reference.results(folder, recipe, TRAINING, encoded, compute)
    probe, records, _ = results["f32"]
    probe["loss"] = probe["loss"].astype(np.float32)
    metadata = {"samples": json.dumps(order)}
    save_file({k: np.ascontiguousarray(v) for k, v in probe.items()},
              folder / "expected.safetensors", metadata)
    inputs = {name: torch.cat([getattr(s, name) for s in encoded]).tolist()
              for name in ("input_ids", "labels")}
    for name in set(encoded[0].images) - {"pixel_values"}:
        inputs[name] = torch.cat([s.images[name] for s in encoded]).tolist()
    (folder / "expected_inputs.json").write_text(json.dumps(inputs) + "\n")
    (folder / "expected_training.json").write_text(json.dumps(records, indent=1) + "\n")
    return run_reference.rounding(results["f32"], results["f64"])


def write_fixture(recipe, folder: Path) -> None:
    """Everything of one model."""
    shutil.rmtree(folder, ignore_errors=True)
    family = run_reference.FAMILIES[recipe.family]
    family.write_checkpoint(recipe, folder / "checkpoint")
    run_reference.make_adapter(folder / "checkpoint", recipe, folder / "adapter")
    write_images_and_rows(recipe, folder)
    rounding = write_expected(recipe, folder)
    config = program.configuration(
        "checkpoint", "dataset.jsonl", "adapter", f"../../../runs/{folder.name}",
        {"r": recipe.r, "alpha": recipe.alpha, "rslora": recipe.rslora},
        dataclasses.asdict(TRAINING))
    (folder / "config_run.json").write_text(json.dumps(config, indent=2) + "\n")
    record = {"made_by": "scripts/make_fixtures.py", "recipe": dataclasses.asdict(recipe),
              "training": dataclasses.asdict(TRAINING), "f32_against_f64": rounding,
              "versions": {p: importlib.metadata.version(p) for p in PACKAGES}}
    (folder / "recipe.json").write_text(json.dumps(record, indent=2) + "\n")
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    print(f"{folder}: {size / 1000:.0f} kB; f32 against f64: {rounding}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "tests/fixtures", help="parent folder")
    parser.add_argument("--only", choices=sorted(RECIPES), help="one model of them")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name, recipe in RECIPES.items():
        if arguments.only in (None, name):
            write_fixture(recipe, arguments.out / name)


if __name__ == "__main__":
    main()
