"""Text classification with LLaMA 2 and 3: the family's random checkpoints, a head trimmed to the
rows of the classes' tokens and trained in f32, and texts with a class.

A text's tokens are those of transformers' own tokenizer call, special tokens included; the recipe
draws what tokenizer.json's post_processor puts around it. What tokenizer_config.json says about it
does not count beside a tokenizer.json in transformers 5.17, which "settings" holds; beside a
tokenizer.model alone nothing else does.

AdamW-8bit keeps f32 moments of tensors below 4096 elements: some heads are smaller, some not.
"""

import dataclasses
import json
import random
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from reference import checkpoints, llama_family, samples, sentencepiece_tokenizer

MODEL = llama_family.MODEL
TARGETS = llama_family.TARGETS
keep_double = llama_family.keep_double
prepared = llama_family.prepared
position_ids = llama_family.position_ids
image_arguments = llama_family.image_arguments
PROMPT = "Report: {text}\n{{site {site}}} class:"
LABELS = ["no", "yes", "10", "9", "unclear", "B|A", "é"]  # neither sorted nor plain
# Texts that may be one token: marks and digits to Llama 3's kind only, words that the merges drawn
# reach to either.
TEXTS = ["A", "7", "é", " no", "yes", " the", "lung", "e", " a", "z", "#", "0", " in", "is", " to",
         "this", " of", "image", " I", "W", "H", " right", "T", " s", "t", "D", "i", " l", "p", "b",
         "m", " c", "u", "h", " n", "What", " The", "mass", "Is", "d"]


@dataclasses.dataclass
class Recipe(llama_family.Recipe):
    """A checkpoint, its adapter, and the classes."""

    classes: int = 2           # many times hidden, 4096: an 8-bit state of the head
    special: str = "none"      # none | post_processor | settings | both_ends
    head_file: bool = False    # whether the starting adapter has a head of its own
    family = "llama_classes"


def draw(seed: int) -> Recipe:
    """The recipe of a seed."""
    rng = random.Random(seed + 5)
    base = dataclasses.asdict(llama_family.draw(seed))
    base |= checkpoints.draw_scale(rng, rslora_share=0.5)
    count = rng.randint(2, 5)
    if rng.random() < 0.4:
        # Wide rather than many classes: every one needs a token of a small vocabulary.
        base |= {"heads": 4, "kv_heads": 2, "head_dim": 64, "merges": max(base["merges"], 100)}
        count = 4096 // 256 + rng.choice([0, 0, 1, 3])
    return Recipe(**base, classes=count, head_file=rng.random() < 0.5,
                  special=rng.choice(["none", "post_processor", "settings", "both_ends"]))


def _template(before: list[str], after: list[str], ids: dict) -> dict:
    """TemplateProcessing with these tokens around one text."""
    def special(name: str) -> dict:
        return {"SpecialToken": {"id": name, "type_id": 0}}
    single = [*map(special, before), {"Sequence": {"id": "A", "type_id": 0}}, *map(special, after)]
    known = {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in before + after}
    return {"type": "TemplateProcessing", "single": single,
            "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": known}


def write_checkpoint(recipe: Recipe, folder: Path) -> None:
    """The family's checkpoint, then who adds special tokens."""
    llama_family.write_checkpoint(recipe, folder)
    if recipe.special == "none":
        return
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    file = folder / "tokenizer.json"
    if recipe.special == "settings" or not file.exists():
        settings |= {"add_bos_token": recipe.special != "settings" or recipe.seed % 5 > 0,
                     "add_eos_token": recipe.special == "both_ends" or recipe.seed % 3 == 0}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
        return
    content = json.loads(file.read_text(encoding="utf-8"))
    ids = {token["content"]: token["id"] for token in content["added_tokens"]}
    begin, end = settings["bos_token"], settings["eos_token"]
    if recipe.special == "post_processor":
        content["post_processor"] = {"type": "Sequence", "processors": [
            content["post_processor"], _template([begin], [], ids)]}
    else:
        content["post_processor"] = _template([begin], [end], ids)
    file.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


def load_tokenizer(checkpoint: Path):
    """transformers' tokenizer of the checkpoint."""
    if (checkpoint / "tokenizer.model").exists():
        return sentencepiece_tokenizer.load(checkpoint)
    return PreTrainedTokenizerFast.from_pretrained(checkpoint)


def _plain_ids(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def classes(recipe: Recipe, checkpoint: Path) -> dict[str, str]:
    """label -> text of one token, in a drawn order."""
    rng = random.Random(recipe.seed + 6)
    tokenizer = load_tokenizer(checkpoint)
    texts = {}  # by token: to SentencePiece "lung" and " lung" are one
    for text in TEXTS:
        ids = _plain_ids(tokenizer, text)
        if len(ids) == 1:
            texts.setdefault(ids[0], text)
    chosen = rng.sample(list(texts.values()), recipe.classes)
    labels = LABELS + [f"label {i}" for i in range(len(LABELS), recipe.classes)]
    return dict(zip(rng.sample(labels, recipe.classes), chosen))


def token_ids(recipe: Recipe, checkpoint: Path) -> list[int]:
    """The rows of the head, in the order of the classes."""
    tokenizer = load_tokenizer(checkpoint)
    return [_plain_ids(tokenizer, text)[0] for text in classes(recipe, checkpoint).values()]


class Head(torch.nn.Module):
    """Logits of the classes; the f32 weight is cast for the product, as adapters are."""

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.weight = torch.nn.Parameter(weight.clone())

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[..., C] to [..., classes]."""
        return torch.nn.functional.linear(hidden, self.weight.to(hidden.dtype))


def replace_head(model, recipe: Recipe, checkpoint: Path, adapter: Path,
                 compute: torch.dtype) -> torch.nn.Parameter:
    """Trims the model's head, or takes the adapter folder's; returns its weight."""
    wide = torch.float64 if compute == torch.float64 else torch.float32
    weight = model.get_output_embeddings().weight.detach()[token_ids(recipe, checkpoint)]
    if (adapter / "head.safetensors").exists():
        weight = load_file(adapter / "head.safetensors")["head.weight"]
    model.lm_head = Head(weight.to(wide))
    return model.lm_head.weight


def write_head(recipe: Recipe, checkpoint: Path, adapter: Path) -> None:
    """A starting head beside the adapter that is not the model's, if the recipe has one."""
    if not recipe.head_file:
        return
    generator = torch.Generator().manual_seed(recipe.seed + 7)
    weight = torch.randn((recipe.classes, recipe.hidden), generator=generator)
    save_file({"head.weight": weight / recipe.hidden**0.5}, adapter / "head.safetensors",
              metadata={"token_ids": json.dumps(token_ids(recipe, checkpoint)),
                        "labels": json.dumps(list(classes(recipe, checkpoint)))})


def write_samples(recipe: Recipe, count: int, folder: Path) -> None:
    """folder/dataset.jsonl with texts, sites and classes; the checkpoint is beside it."""
    rng = random.Random(recipe.seed * 1000003 + 23)
    labels = list(classes(recipe, folder / "checkpoint"))
    rows = [{"text": samples.draw_text(rng, 1, 30), "site": rng.randint(1, 20),
             "label": rng.choice(labels)} for _ in range(count)]
    samples.write_rows(rows, rng, folder)


def encoded(recipe: Recipe, folder: Path, sample) -> list:
    """The samples of folder/dataset.jsonl; `sample` is run_reference.Sample."""
    tokenizer = load_tokenizer(folder / "checkpoint")
    labels = list(classes(recipe, folder / "checkpoint"))
    result = []
    for row in samples.read_dataset(folder):
        ids = torch.tensor(tokenizer(PROMPT.format(**row))["input_ids"])
        label = torch.tensor([labels.index(row["label"])])
        result.append(sample(ids, label, torch.tensor([len(ids) - 1]), {}, label))
    return result


def settings(recipe: Recipe, checkpoint: Path) -> dict:
    """What the configuration says beside the other families'."""
    return {"task": "classification", "data": {"prompt": PROMPT},
            "classification": {"classes": classes(recipe, checkpoint)}}
