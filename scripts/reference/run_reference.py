"""Probe tensors and training runs of transformers + PEFT + bitsandbytes on a CPU.

Samples run one at a time, without padding; the loss of a step is the sum of the cross-entropy
over all its label tokens divided by their number, as HF Trainer computes it. The names, shapes
and meanings of the probe tensors are those of the configuration reference. Shape letters: T
tokens of all samples, P patches, R rows that predict a label, V vocabulary.
"""

import dataclasses
import json
import math
import warnings
from pathlib import Path

import bitsandbytes
import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from transformers import PreTrainedTokenizerFast
from transformers.image_utils import load_image

from reference import (checkpoints, compare, four_bit, llama_classes_family, llama_family,
                       mllama_family, qwen2_5_vl_family, qwen2_vl_family, sentencepiece_tokenizer)
from reference.samples import read_dataset

# By model_type; the last is llama again, with another task.
FAMILIES = {"qwen2_vl": qwen2_vl_family, "mllama": mllama_family, "llama": llama_family,
            "qwen2_5_vl": qwen2_5_vl_family, "llama_classes": llama_classes_family}


@dataclasses.dataclass
class Sample:
    """One encoded sample; the tensors are the probe's, for this sample alone."""

    input_ids: torch.Tensor   # i64 [T]
    labels: torch.Tensor      # i64 [T], -100 where the loss is not computed; or i64 [1], a class
    logit_rows: torch.Tensor  # i64 [R]: row t predicts label t + 1, or the class
    images: dict              # pixel_values f32 and the family's integers; empty without images
    targets: torch.Tensor     # i64 [R]: what the rows predict


@dataclasses.dataclass
class Training:
    """The recipe of a training run, as in medvqa's section `train`."""

    steps: int = 10
    batch_size: int = 2
    gradient_accumulation: int = 2
    learning_rate: float = 2e-4
    warmup_steps: int = 2
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    seed: int = 3407


def open_image(path: Path) -> Image.Image:
    """As transformers opens it; 16-bit grey is scaled to 8 bits, where Pillow would clip it."""
    picture = load_image(Image.open(path)) if not _is_grey16(path) else None
    if picture is None:
        wide = np.asarray(Image.open(path)).astype(np.float64)
        picture = Image.fromarray(np.round(wide / 257).astype(np.uint8))
    return picture.convert("RGB")


def _is_grey16(path: Path) -> bool:
    with Image.open(path) as picture:
        return picture.mode.startswith("I")


class Encoder:
    """Text and image to model inputs, from the files of a checkpoint folder."""

    def __init__(self, checkpoint: Path):
        kind = json.loads((checkpoint / "config.json").read_text())["model_type"]
        self.family = FAMILIES[kind]
        self.processor = self.family.image_processor(checkpoint)
        if (checkpoint / "tokenizer.model").exists():
            self.tokenizer = sentencepiece_tokenizer.load(checkpoint)
            self.end_of_turn = self.tokenizer.eos_token
            return
        self.end_of_turn = self.family.END_OF_TURN
        # The Hub has a file of its own, `medvqa init` a key of the settings.
        files = [checkpoint / name for name in ("chat_template.json", "tokenizer_config.json")]
        settings = json.loads(next(file for file in files if file.exists()).read_text())
        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(checkpoint / "tokenizer.json"),
            chat_template=settings["chat_template"])

    def encode(self, row: dict, images: Path) -> Sample:
        """One row {"image", "question", "answer"}: labels on the answer and its end token."""
        names = row.get("image") or []
        names = [names] if isinstance(names, str) else names
        pictures = [open_image(images / name) for name in names]
        tensors = self.family.image_tensors(self.processor, pictures) if pictures else {}
        user = {"role": "user", "content": self._content(row["question"], len(pictures))}
        answer = {"role": "assistant", "content": self._content(row["answer"], 0)}
        render = self.tokenizer.apply_chat_template
        prompt = render([user], tokenize=False, add_generation_prompt=True)
        text = render([user, answer], tokenize=False)
        assert text.startswith(prompt), "the prompt is not a prefix of the conversation"
        prompt, text = (self.family.expand(t, self.processor, tensors) for t in (prompt, text))
        begin, end = len(prompt), text.rindex(self.end_of_turn) + len(self.end_of_turn)
        encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids = torch.tensor(encoding["input_ids"])
        inside = torch.tensor([begin <= a < b <= end for a, b in encoding["offset_mapping"]])
        labels = torch.where(inside, ids, -100)
        rows = torch.nonzero(labels[1:] != -100).flatten()
        return Sample(ids, labels, rows, tensors, labels[rows + 1])

    def _content(self, text: str, pictures: int):
        """A message's parts; the templates of models without pictures take a string."""
        if getattr(self.family, "TEXT_ONLY", False):
            return text
        return [*({"type": "image"} for _ in range(pictures)), {"type": "text", "text": text}]


def load_base(checkpoint: Path, recipe, compute: torch.dtype,
              weights: str = "rounded"):
    """The base model in train() mode with every tensor that is not 4-bit in `compute`.

    `weights` is "rounded" or "stack", see four_bit.py.
    """
    family = FAMILIES[recipe.family]
    stored = checkpoints.DTYPES[recipe.dtype]
    settings = {}
    if recipe.storage == "nf4_on_load":
        settings["quantization_config"] = checkpoints.quantization(recipe)
    model, loading = family.MODEL.from_pretrained(
        checkpoint, dtype=stored, output_loading_info=True, **settings)
    tied = {"lm_head.weight"} if getattr(recipe, "tied", False) else set()
    missing = set(loading["missing_keys"]) - tied
    assert not missing and not loading["unexpected_keys"], loading
    for name, module in model.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            found = module.weight.quant_state.dtype
            assert found == stored, f"{name}: quant_state has {found}, the file {stored}"
    for parameter in model.parameters():
        if not isinstance(parameter, bitsandbytes.nn.Params4bit):
            parameter.data = parameter.data.to(compute)
        parameter.requires_grad_(False)
    four_bit.fix_products(model, compute, weights)
    if compute == torch.float64:
        family.keep_double(model)
    return family.prepared(model, recipe).train()


def make_adapter(checkpoint: Path, recipe, folder: Path) -> None:
    """Writes a PEFT adapter on every linear of the blocks, with B not zero."""
    base = load_base(checkpoint, recipe, torch.float32)
    torch.manual_seed(recipe.seed)
    model = get_peft_model(base, LoraConfig(
        r=recipe.r, lora_alpha=recipe.alpha, use_rslora=recipe.rslora, lora_dropout=0.0,
        target_modules=FAMILIES[recipe.family].TARGETS, bias="none", task_type="CAUSAL_LM"))
    generator = torch.Generator().manual_seed(recipe.seed + 1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data = 0.2 / math.sqrt(recipe.r) * noise
    model.peft_config["default"].base_model_name_or_path = "."
    with warnings.catch_warnings():  # PEFT looks for a config.json in "."
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    if recipe.family == "llama_classes":
        llama_classes_family.write_head(recipe, checkpoint, folder)


class Reference:
    """Base model and adapter in one compute dtype; adapters are f32, or f64 under f64."""

    def __init__(self, checkpoint: Path, recipe, adapter: Path,
                 compute: torch.dtype = torch.float32, weights: str = "rounded"):
        base = load_base(checkpoint, recipe, compute, weights)
        self.family = FAMILIES[recipe.family]
        self.head = {}
        if recipe.family == "llama_classes":
            self.head["head.weight"] = self.family.replace_head(base, recipe, checkpoint, adapter,
                                                                compute)
        self.model = PeftModel.from_pretrained(base, adapter, is_trainable=True).train()
        for parameter in self.head.values():
            parameter.requires_grad_(True)
        for parameter in self.adapter().values():
            wide = torch.float64 if compute == torch.float64 else torch.float32
            parameter.data = parameter.data.to(wide)
        self.compute = compute

    def adapter(self) -> dict[str, torch.nn.Parameter]:
        """Adapter parameters by their key in adapter_model.safetensors."""
        return {name.replace(".default.", "."): parameter
                for name, parameter in self.model.named_parameters() if "lora_" in name}

    def trained(self) -> dict[str, torch.nn.Parameter]:
        """All that is trained: the adapter, and the head of a classification."""
        return self.adapter() | self.head

    def position_ids(self, sample: Sample) -> torch.Tensor:
        """Positions as the decoder sees them, i64 [A, T] or [T]."""
        return self.family.position_ids(self.model.get_base_model(), sample)

    def logits(self, sample: Sample) -> torch.Tensor:
        """Logits of the rows that predict a label, [R, V], f32 or f64."""
        ids = sample.input_ids[None]
        images = self.family.image_arguments(self.model.get_base_model(), sample, self.compute)
        output = self.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False,
                            **images)
        rows = output.logits[0, sample.logit_rows]
        return rows if self.compute == torch.float64 else rows.float()

    def accumulate(self, samples: list[Sample],
                   scale: float = 1.0) -> tuple[float, int, list[torch.Tensor]]:
        """Adds the gradients of one optimizer step, times `scale`: (loss, label tokens, logits per
        sample)."""
        tokens = sum(len(s.logit_rows) for s in samples)
        loss, logits = 0.0, []
        for sample in samples:
            rows = self.logits(sample)
            part = torch.nn.functional.cross_entropy(
                rows, sample.targets, reduction="sum") / tokens
            (part * scale).backward()
            loss += float(part.detach().double())
            logits.append(rows.detach())
        return loss, tokens, logits

    def probe(self, samples: list[Sample], scale: float = 1.0) -> dict[str, np.ndarray]:
        """The probe file's tensors for the samples of one optimizer step; updates nothing. The
        loss is scaled for the backward, and the gradients back."""
        self.model.zero_grad(set_to_none=True)
        tensors = inputs(samples, [self.position_ids(s) for s in samples])
        loss, _, logits = self.accumulate(samples, scale)
        tensors["logits"] = torch.cat(logits).numpy()
        tensors["loss"] = np.array([loss], dtype=tensors["logits"].dtype)
        for key, parameter in self.trained().items():
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            tensors["grad." + key] = (grad / scale).numpy()
        self.model.zero_grad(set_to_none=True)
        return tensors

    def train(self, samples: list[Sample], recipe: Training) -> list[dict]:
        """Runs `recipe.steps` optimizer steps; one record a step, as in metrics.jsonl."""
        parameters = list(self.trained().values())
        optimizer = bitsandbytes.optim.AdamW8bit(
            parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, linear_schedule(recipe))
        records = []
        groups = step_groups(len(samples), recipe)
        for step in range(recipe.steps):
            self.model.zero_grad(set_to_none=True)
            loss, tokens, _ = self.accumulate([samples[i] for i in next(groups)])
            norm = torch.nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
            records.append({"step": step + 1, "loss": loss, "grad_norm": float(norm),
                            "learning_rate": scheduler.get_last_lr()[0], "label_tokens": tokens})
            optimizer.step()
            scheduler.step()
        return records


def inputs(samples: list[Sample], positions: list[torch.Tensor]) -> dict[str, np.ndarray]:
    """The first seven probe tensors: samples one after another, without padding."""
    lengths = [len(s.input_ids) for s in samples]
    begins = np.concatenate([[0], np.cumsum(lengths)])
    names = {name for s in samples for name in s.images}
    pictures = {name: torch.cat([s.images[name] for s in samples if s.images]).numpy()
                for name in sorted(names)}
    return {
        "input_ids": torch.cat([s.input_ids for s in samples]).numpy(),
        "cu_seqlens": begins.astype(np.int32),
        "labels": torch.cat([s.labels for s in samples]).numpy(),
        "position_ids": torch.cat(positions, dim=-1).contiguous().numpy(),
        "logit_rows": torch.cat([s.logit_rows + int(b)
                                 for s, b in zip(samples, begins)]).numpy(),
        **pictures,
    }


def linear_schedule(recipe: Training):
    """HF's linear schedule: the factor of the k-th optimizer step, k from 0."""
    def factor(step: int) -> float:
        if step < recipe.warmup_steps:
            return step / max(1, recipe.warmup_steps)
        left = recipe.steps - step
        return max(0.0, left / max(1, recipe.steps - recipe.warmup_steps))
    return factor


def step_groups(count: int, recipe: Training):
    """Yields the sample indices of each optimizer step; the order is HF Trainer's for the seed."""
    epoch = 0
    while True:
        generator = torch.Generator().manual_seed(recipe.seed + epoch)
        order = torch.randperm(count, generator=generator).tolist()
        size = recipe.batch_size * recipe.gradient_accumulation
        for begin in range(0, count, size):
            yield order[begin:begin + size]
        epoch += 1


def load_samples(checkpoint: Path, dataset: Path) -> list[Sample]:
    """All samples of a data set folder, in file order."""
    encoder = Encoder(checkpoint)
    return [encoder.encode(row, dataset / "images") for row in read_dataset(dataset)]


def results(folder: Path, recipe, training: Training, encoded: list[Sample],
            compute: torch.dtype) -> tuple:
    """(probe of the first step, step records, trained tensors) in one compute type; the checkpoint
    and the adapter are in `folder`."""
    model = Reference(folder / "checkpoint", recipe, folder / "adapter", compute)
    first = next(step_groups(len(encoded), training))
    probe = model.probe([encoded[i] for i in first])
    records = model.train(encoded, training)
    return probe, records, {k: p.detach().numpy() for k, p in model.trained().items()}


def rounding(narrow: tuple, wide: tuple) -> dict[str, float]:
    """Differences of two (probe, step records, adapter) of the same run in two compute types."""
    a, b = narrow[0], wide[0]
    return {
        "logits": compare.relative(a["logits"], b["logits"]),
        "loss": compare.relative(a["loss"], b["loss"]),
        "gradient": max(compare.norm(a[k], b[k]) for k in b if k.startswith("grad.")),
        "step_loss": max(abs(x["loss"] / y["loss"] - 1) for x, y in zip(narrow[1], wide[1])),
        "step_grad_norm": max(abs(x["grad_norm"] / y["grad_norm"] - 1)
                              for x, y in zip(narrow[1], wide[1])),
        "adapter": max(compare.norm(narrow[2][k], wide[2][k]) for k in wide[2]),
    }
