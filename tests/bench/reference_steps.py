#!/usr/bin/env python3
"""Optimizer steps of transformers + PEFT + bitsandbytes, timed. A child of vs_reference.py.

Prints one JSON object: seconds of every step, seconds to the end of the first one since the start
of the process, and the loss of each step; on a GPU also the largest device memory the steps had
allocated and reserved, in GB, or "out_of_memory". Every step trains on the same samples, in one
batch.

On a GPU the weights stay in 4 bits and bitsandbytes' own CUDA kernels read them. Adapters are f32
under autocast, as transformers' Trainer has them with bf16 or fp16 (f16 with its GradScaler), or
with --adapters compute in the compute type without autocast: fewer conversions than any recipe.
"""

import argparse
import contextlib
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

TYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
OPTIMIZERS = {"adamw8bit": bitsandbytes.optim.AdamW8bit,
              "paged": bitsandbytes.optim.PagedAdamW8bit}


def load(folder: Path, family, compute: torch.dtype, arguments):
    """The 4-bit model with LoRA r = 16 on every vision and language linear, ready to train."""
    place = 0 if arguments.device == "cuda" else "cpu"
    model = family.MODEL.from_pretrained(folder, dtype=compute, attn_implementation="sdpa",
                                         device_map={"": place})
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
    if arguments.adapters == "compute":
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(compute)
    if arguments.recompute == "all":
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable(
            gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


def batch(folder: Path, encoder, model, compute: torch.dtype, arguments) -> dict:
    """The first samples of data.jsonl, which all have one length, on the device."""
    rows = [json.loads(line) for line in (folder / "data.jsonl").read_text().splitlines()]
    samples = [encoder.encode(row, folder / "images") for row in rows[:arguments.samples]]
    ids = torch.stack([s.input_ids for s in samples])
    images = [encoder.family.image_arguments(model, s, compute) for s in samples]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids),
              "labels": torch.stack([s.labels for s in samples]),
              **{name: torch.cat([image[name] for image in images]) for name in images[0]}}
    return {name: values.to(arguments.device) for name, values in inputs.items()}


def steps(model, inputs: dict, compute: torch.dtype, arguments) -> dict:
    """Seconds and losses of the steps."""
    on_gpu = arguments.device == "cuda"
    synchronize = torch.cuda.synchronize if on_gpu else lambda: None
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = OPTIMIZERS[arguments.optimizer](trained, lr=1e-4, weight_decay=0.01)
    mixed = on_gpu and compute != torch.float32 and arguments.adapters == "f32"
    scaler = torch.amp.GradScaler("cuda", enabled=mixed and compute == torch.float16)
    seconds, losses, first = [], [], 0.0
    for _ in range(arguments.steps):
        synchronize()
        begin = time.monotonic()
        with torch.autocast("cuda", dtype=compute) if mixed else contextlib.nullcontext():
            loss = model(**inputs).loss
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        synchronize()
        seconds.append(time.monotonic() - begin)
        first = first or time.monotonic() - START
        losses.append(float(loss.detach()))
    return {"seconds": seconds, "first_step": first, "losses": losses,
            "trainable": sum(p.numel() for p in trained)}


def run(arguments) -> dict:
    """What is printed."""
    compute = TYPES[arguments.compute]
    encoder = run_reference.Encoder(arguments.folder / "checkpoint")
    model = load(arguments.folder / "checkpoint", encoder.family, compute, arguments)
    inputs = batch(arguments.folder, encoder, model.get_base_model(), compute, arguments)
    if arguments.device != "cuda":
        return steps(model, inputs, compute, arguments)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()  # of the steps, not of loading
    found = steps(model, inputs, compute, arguments)
    return found | {"peak_allocated": torch.cuda.max_memory_allocated() / 1e9,
                    "peak_reserved": torch.cuda.max_memory_reserved() / 1e9}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--compute", choices=list(TYPES), required=True)
    parser.add_argument("--recompute", choices=["none", "all"], required=True)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--adapters", choices=["f32", "compute"], default="f32")
    parser.add_argument("--optimizer", choices=list(OPTIMIZERS), default="adamw8bit")
    arguments = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    try:
        found = run(arguments)
    except torch.cuda.OutOfMemoryError as error:
        found = {"out_of_memory": str(error).splitlines()[0]}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
