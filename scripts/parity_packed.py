#!/usr/bin/env python3
"""Packed batches of samples with no, one, two and three pictures against transformers.

    .venv-reference/bin/python scripts/parity_packed.py \\
        --driver build/cpu/tests/drivers/medvqa_model_driver

The data formats carry one picture a sample, so these samples are drawn here and handed to the
driver as tensors. The reference runs them one at a time. Pictures of one to four tiles, tall, wide
and tiny; first in the text, between words, in runs; text before, between and after them. An
mllama, a Qwen2-VL and a Qwen2.5-VL in turn, unless --family says which.
"""

import argparse
import dataclasses
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

from reference import compare, program, run_reference, seeds

ROOT = Path(__file__).resolve().parent.parent
FAMILIES = ["mllama", "qwen2_vl", "qwen2_5_vl"]
SHAPES = [(1, 1), (3, 1), (1, 3), (4, 1), (1, 4), (2, 2), (1, 2), (2, 1), (0.3, 0.2), (6, 0.2)]


def draw_picture(rng: random.Random, shape: tuple, tile: int) -> Image.Image:
    """Noise of about `shape` tiles wide and high."""
    width, height = (max(1, int(tile * s * rng.uniform(0.7, 1.3))) for s in shape)
    pixels = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def placeholders(config, images: list, tensors: dict) -> list:
    """The ids that stand for each picture: one, or one for every merged patch."""
    if config.model_type == "mllama":
        return [[config.image_token_index]] * len(images)
    merge = config.vision_config.spatial_merge_size
    return [[config.image_token_id] * (int(grid.prod()) // merge**2)
            for grid in tensors.get("image_grid_thw", [])]


def draw_sample(rng: random.Random, encoder, config, pictures: int, tile: int):
    """A sample of random words with placeholders among them; labels on the last words."""
    special = {getattr(config, key, None) for key in ("image_token_id", "video_token_id")}
    words = [i for i in range(config.text_config.vocab_size) if i not in special]
    text = lambda low, high: [rng.choice(words) for _ in range(rng.randint(low, high))]
    # Qwen's pictures stand between marks of their own: something is always between two.
    least = 0 if config.model_type == "mllama" else 1
    images = [draw_picture(rng, rng.choice(SHAPES), tile) for _ in range(pictures)]
    tensors = encoder.family.image_tensors(encoder.processor, images) if images else {}
    ids = text(0, 4) if pictures else text(1, 4)
    for image in placeholders(config, images, tensors):
        ids += image + text(least, 3)
    ids += text(4, 9)
    count = rng.randint(1, 3)
    labels = [-100] * (len(ids) - count) + ids[-count:]
    rows = torch.arange(len(ids) - count - 1, len(ids) - 1)
    labels = torch.tensor(labels)
    return run_reference.Sample(torch.tensor(ids), labels, rows, tensors, labels[rows + 1])


def patches(tiles: torch.Tensor, patch: int) -> torch.Tensor:
    """[tiles, 3, H, W] to rows of patches, tile by tile."""
    count, _, height, width = tiles.shape
    blocks = tiles.reshape(count, 3, height // patch, patch, width // patch, patch)
    return blocks.permute(0, 2, 4, 1, 3, 5).reshape(-1, 3 * patch * patch)


def batch_tensors(samples: list, recipe) -> dict:
    """What the driver reads."""
    joined = run_reference.inputs(samples, [torch.arange(len(s.input_ids)) for s in samples])
    rows, grids = torch.zeros(0, 1), joined.get("image_grid_thw", [])
    if "aspect_ratio_ids" in joined:
        ratios = [(high, wide) for high in range(1, 5) for wide in range(1, 5) if high * wide <= 4]
        grids = [[1, ratios[i - 1][0] * recipe.tile_side, ratios[i - 1][1] * recipe.tile_side]
                 for i in joined["aspect_ratio_ids"]]
        rows = patches(torch.from_numpy(joined["pixel_values"]), recipe.patch_size)
    elif "pixel_values" in joined:
        rows = torch.from_numpy(joined["pixel_values"])
    return {"input_ids": joined["input_ids"], "labels": joined["labels"],
            "cu_seqlens": joined["cu_seqlens"], "patches": np.ascontiguousarray(rows.numpy()),
            "grids": np.array(grids, dtype=np.int64).reshape(-1, 3)}


def run_seed(seed: int, driver: Path, family) -> compare.Table:
    """One checkpoint, several batches."""
    recipe = family.draw(seed)
    rng = random.Random(seed + 3)
    table = compare.Table(f"{recipe.family}, seed {seed}: {dataclasses.asdict(recipe)}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        family.write_checkpoint(recipe, folder / "checkpoint")
        run_reference.make_adapter(folder / "checkpoint", recipe, folder / "adapter")
        training = dataclasses.asdict(run_reference.Training())
        config = program.of_recipe(recipe, training, dataset="none.jsonl")
        (folder / "config.json").write_text(json.dumps(config))
        encoder = run_reference.Encoder(folder / "checkpoint")
        reference = run_reference.Reference(folder / "checkpoint", recipe, folder / "adapter")
        base = reference.model.get_base_model().config
        tile = recipe.tile_side * recipe.patch_size if recipe.family == "mllama" else 70
        for counts in ([1], [2], [0, 1], [2, 0, 1], [3, 1, 2, 0], [0]):
            samples = [draw_sample(rng, encoder, base, n, tile) for n in counts]
            save_file(batch_tensors(samples, recipe), folder / "inputs.safetensors")
            done = subprocess.run(
                [driver, folder / "config.json", folder / "inputs.safetensors",
                 folder / "outputs.safetensors"], capture_output=True, text=True, check=False)
            name = f"pictures {counts}: "
            if done.returncode != 0:
                table.holds(name + "the driver", done.stderr.strip()[-300:], False)
                continue
            compare.compare_results(table, load_file(folder / "outputs.safetensors"),
                                    reference.probe(samples), name)
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--driver", type=Path,
                        default=ROOT / "build/cpu/tests/drivers/medvqa_model_driver")
    seeds.add_options(parser, 6, FAMILIES)
    arguments = parser.parse_args()
    seeds.prepare()
    return seeds.report(run_seed(seed, arguments.driver.resolve(), family)
                        for seed, family in seeds.in_turn(arguments, FAMILIES))


if __name__ == "__main__":
    sys.exit(main())
