#!/usr/bin/env python3
"""Packed batches of mllama samples with no, one, two and three pictures against transformers.

    .venv-reference/bin/python scripts/parity_packed.py \\
        --driver build/cpu/tests/drivers/medvqa_model_driver

The data formats carry one picture a sample, so these samples are drawn here and handed to the
driver as tensors. The reference runs them one at a time. Pictures of one to four tiles, tall, wide
and tiny; first in the text, between words, in runs; text before, between and after them.
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
import transformers
from PIL import Image
from safetensors.numpy import load_file, save_file

from reference import compare, mllama_family, program, run_reference

ROOT = Path(__file__).resolve().parent.parent
SHAPES = [(1, 1), (3, 1), (1, 3), (4, 1), (1, 4), (2, 2), (1, 2), (2, 1), (0.3, 0.2), (6, 0.2)]


def draw_picture(rng: random.Random, shape: tuple, tile: int) -> Image.Image:
    """Noise of about `shape` tiles wide and high."""
    width, height = (max(1, int(tile * s * rng.uniform(0.7, 1.3))) for s in shape)
    pixels = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def draw_sample(rng: random.Random, encoder, config, pictures: int, tile: int):
    """A sample of random words with placeholders among them; labels on the last words."""
    words = config.text_config.vocab_size
    text = lambda low, high: [rng.randrange(words) for _ in range(rng.randint(low, high))]
    image = [config.image_token_index]
    ids = text(0, 4) if pictures else text(1, 4)
    for _ in range(pictures):
        ids += image + text(0, 3)
    ids += text(4, 9)
    count = rng.randint(1, 3)
    labels = [-100] * (len(ids) - count) + ids[-count:]
    images = [draw_picture(rng, rng.choice(SHAPES), tile) for _ in range(pictures)]
    tensors = mllama_family.image_tensors(encoder.processor, images) if images else {}
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
    ratios = [(high, wide) for high in range(1, 5) for wide in range(1, 5) if high * wide <= 4]
    grids = [[1, ratios[i - 1][0] * recipe.tile_side, ratios[i - 1][1] * recipe.tile_side]
             for i in joined.get("aspect_ratio_ids", [])]
    pixels = torch.from_numpy(joined["pixel_values"]) if grids else torch.zeros(0, 3, 8, 8)
    rows = patches(pixels, recipe.patch_size) if grids else torch.zeros(0, 1)
    return {"input_ids": joined["input_ids"], "labels": joined["labels"],
            "cu_seqlens": joined["cu_seqlens"], "patches": np.ascontiguousarray(rows.numpy()),
            "grids": np.array(grids, dtype=np.int64).reshape(-1, 3)}


def run_seed(seed: int, driver: Path) -> compare.Table:
    """One checkpoint, several batches."""
    recipe = mllama_family.draw(seed)
    rng = random.Random(seed + 3)
    table = compare.Table(f"seed {seed}: {dataclasses.asdict(recipe)}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        mllama_family.write_checkpoint(recipe, folder / "checkpoint")
        run_reference.make_adapter(folder / "checkpoint", recipe, folder / "adapter")
        model = {"quantization": "nf4", "double_quant": False} \
            if recipe.storage == "nf4_on_load" else {"quantization": "auto"}
        config = program.configuration(
            "checkpoint", "none.jsonl", "adapter", "run",
            {"r": recipe.r, "alpha": recipe.alpha, "rslora": recipe.rslora},
            dataclasses.asdict(run_reference.Training()),
            model | {"vision_features": recipe.features})
        (folder / "config.json").write_text(json.dumps(config))
        encoder = run_reference.Encoder(folder / "checkpoint")
        reference = run_reference.Reference(folder / "checkpoint", recipe, folder / "adapter")
        base = reference.model.get_base_model().config
        tile = recipe.tile_side * recipe.patch_size
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
    parser.add_argument("--seeds", type=int, default=4, help="how many fresh consecutive seeds")
    parser.add_argument("--seed", type=int, action="append", help="a given seed, repeatable")
    arguments = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    start = random.SystemRandom().randrange(2**31 - 4096)
    passed = failed = 0
    for seed in arguments.seed or range(start, start + arguments.seeds):
        table = run_seed(seed, arguments.driver.resolve())
        table.print()
        sys.stdout.flush()
        passed, failed = passed + table.passed, failed + table.failed
    print(f"\n{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
