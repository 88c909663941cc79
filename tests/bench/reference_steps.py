#!/usr/bin/env python3
"""Optimizer steps of transformers + PEFT + bitsandbytes, timed. A child of vs_reference.py.

Prints one JSON object: seconds of every step, seconds to the end of the first one since the start
of the process, and the loss of each step. Every step trains on the same two samples, in one batch.
"""

import argparse
import json
import sys
import time
from pathlib import Path

START = time.monotonic()

import bitsandbytes  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from reference import run_reference  # noqa: E402


def load(folder: Path, family, compute: torch.dtype, recompute: bool):
    """The 4-bit model with LoRA r = 16 on every vision and language linear, ready to train."""
    model = family.MODEL.from_pretrained(folder, dtype=compute)
    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.compute_dtype, module.compute_type_is_set = compute, True
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        if parameter.dtype.is_floating_point:
            parameter.data = parameter.data.to(compute)
    model.config.use_cache = False
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=16, lora_dropout=0.0,
                                             target_modules=family.TARGETS))
    if recompute:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable(
            gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


def batch(folder: Path, encoder, model, compute: torch.dtype, count: int) -> dict:
    """The first samples of data.jsonl, which all have one length."""
    rows = [json.loads(line) for line in (folder / "data.jsonl").read_text().splitlines()]
    samples = [encoder.encode(row, folder / "images") for row in rows[:count]]
    ids = torch.stack([s.input_ids for s in samples])
    images = [encoder.family.image_arguments(model, s, compute) for s in samples]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids),
            "labels": torch.stack([s.labels for s in samples]),
            **{name: torch.cat([image[name] for image in images]) for name in images[0]}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--compute", choices=["f32", "bf16"], required=True)
    parser.add_argument("--recompute", choices=["none", "all"], required=True)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--samples", type=int, default=2)
    arguments = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    compute = {"f32": torch.float32, "bf16": torch.bfloat16}[arguments.compute]
    encoder = run_reference.Encoder(arguments.folder / "checkpoint")
    model = load(arguments.folder / "checkpoint", encoder.family, compute,
                 arguments.recompute == "all")
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = bitsandbytes.optim.AdamW8bit(trained, lr=1e-4, weight_decay=0.01)
    inputs = batch(arguments.folder, encoder, model.get_base_model(), compute, arguments.samples)
    seconds, losses, first = [], [], 0.0
    for _ in range(arguments.steps):
        begin = time.monotonic()
        loss = model(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.monotonic() - begin)
        first = first or time.monotonic() - START
        losses.append(float(loss.detach()))
    print(json.dumps({"seconds": seconds, "first_step": first, "losses": losses,
                      "trainable": sum(p.numel() for p in trained)}))


if __name__ == "__main__":
    main()
