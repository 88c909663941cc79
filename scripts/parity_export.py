#!/usr/bin/env python3
"""`medvqa export` against transformers + PEFT on fresh random models.

    .venv-reference/bin/python scripts/parity_export.py --medvqa build/cpu/medvqa

For each family and each storage of its weights (nested NF4, plain NF4, NF4 quantised on load, and
16-bit) a model and an adapter with B != 0 are drawn. The merged checkpoint is compared with
W + scaling B A of the reference, tensor by tensor and by its logits, the re-spelled adapter with
the one it came from, and a classifier's merged form with its trimmed head. Needs
scripts/requirements-reference.txt. Last line: `N passed, N failed`; exit code 1 when one failed.
"""

import argparse
import dataclasses
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from bitsandbytes.nn import Linear4bit
from peft import PeftModel
from peft.utils import load_peft_weights, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

import parity
from reference import compare, four_bit, program, run_reference, seeds

ROOT = Path(__file__).resolve().parent.parent
# transformers from 4.52 to 4.57 brings this map with the model, and PEFT applies it by itself.
QWEN2_VL = {r"^visual": "model.visual",
            r"^model(?!\.(language_model|visual))": "model.language_model"}
KEY_MAPPING = {
    "qwen2_vl": QWEN2_VL,
    "qwen2_5_vl": QWEN2_VL,
    "mllama": {r"^language_model.model": "model.language_model",
               r"^vision_model": "model.vision_model"},
    "llama": None,
}
F32 = 2.0**-24


@dataclasses.dataclass
class Case:
    """Drawn files of one seed, and what the reference makes of them."""

    folder: Path
    recipe: object
    samples: list
    model: run_reference.Reference

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"


def make_case(seed: int, folder: Path, family, plain: bool) -> Case:
    """Draws a model of the seed's storage, or of 16 bits, its adapter and samples."""
    recipe = family.draw(seed)
    if plain:
        recipe.storage = "nf4_on_load"  # how files of 16 bits are written; load_base is told not to
    family.write_checkpoint(recipe, folder / "checkpoint")
    if plain:
        recipe.storage = "plain"
    run_reference.make_adapter(folder / "checkpoint", recipe, folder / "adapter")
    training = run_reference.Training(batch_size=1, gradient_accumulation=1, seed=seed)
    samples = parity.make_samples(seed, 3, folder, recipe, training)
    model = run_reference.Reference(folder / "checkpoint", recipe, folder / "adapter")
    return Case(folder, recipe, samples, model)


def stored_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint's files by its name there."""
    tensors = {}
    for file in sorted(folder.glob("model*.safetensors")):
        tensors |= load_file(file)
    return tensors


def weights_in_f32(model) -> dict[str, torch.Tensor]:
    """Parameters by canonical name, 4-bit ones dequantised as they are multiplied."""
    values = {n: p.detach().float() for n, p in model.named_parameters()}
    for name, module in model.named_modules():
        if isinstance(module, Linear4bit):
            values[name + ".weight"] = four_bit.dequantised(module).float()
    return values


def adapter_modules(case: Case) -> dict[str, tuple[torch.Tensor, torch.Tensor, float]]:
    """A, B and scaling of each adapted linear by canonical name."""
    tensors = load_file(case.adapter / "adapter_model.safetensors")
    settings = json.loads((case.adapter / "adapter_config.json").read_text())
    rank = settings["r"] ** (0.5 if settings["use_rslora"] else 1)
    found = {}
    for key in tensors:
        name, _, rest = key.removeprefix("base_model.model.").partition(".lora_")
        if rest.startswith("A"):
            found[name] = (tensors[key].float(), tensors[key.replace(".lora_A.", ".lora_B.")]
                           .float(), settings["lora_alpha"] / rank)
    return found


def ordered(bits: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """16-bit floats as integers in the order of their values; neighbours differ by one."""
    codes = bits.view(torch.int16).to(torch.int32)
    assert bits.dtype == dtype
    return torch.where(codes < 0, -(codes & 0x7FFF), codes)


def compare_merged(table: compare.Table, case: Case, out: Path, dtype: torch.dtype) -> None:
    """Names, shapes, and every value of the merged files."""
    side = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map",
            ".quant_state.bitsandbytes__nf4")
    base_files = stored_tensors(case.checkpoint)
    names = {n for n in base_files if not n.endswith(side)}
    merged = stored_tensors(out)
    table.holds("names as in the base's files", f"{len(names ^ set(merged))} differ",
                names == set(merged))
    types = {t.dtype for t in merged.values()}
    table.holds("types of the merged tensors", types, types == {dtype})
    base = weights_in_f32(run_reference.load_base(case.checkpoint, case.recipe, torch.float32))
    loaded = case.model.family.MODEL.from_pretrained(out, dtype=dtype)
    ours = {n: p.detach() for n, p in loaded.named_parameters()}
    table.holds("parameters transformers loads", f"{len(set(base) ^ set(ours))} differ",
                set(base) == set(ours))
    modules = adapter_modules(case)
    counts = {"ulp": 0, "outside": 0, "other": 0, "same": 0, "elements": 0}
    for name, w in base.items():
        found, module = ours[name], name.removesuffix(".weight")
        if module not in modules:
            counts["other"] += int(torch.sum(found != w.to(dtype)))
            continue
        a, b, scaling = modules.pop(module)
        expected = (w + (b @ a) * scaling).to(dtype)
        counts["elements"] += w.numel()
        counts["ulp"] += int(torch.sum(ordered(found, dtype) != ordered(expected, dtype)))
        # What f32 arithmetic in any order may round to.
        exact = w.double() + scaling * (b.double() @ a.double())
        error = (a.shape[0] + 3) * F32 * (w.abs().double()
                                          + scaling * (b.abs().double() @ a.abs().double()))
        low, high = (exact - error).float().to(dtype), (exact + error).float().to(dtype)
        counts["outside"] += int(torch.sum((found < low) | (found > high)))
        counts["same"] += bool(torch.equal(found, w.to(dtype)))
    table.holds("adapters without a tensor", len(modules), not modules)
    table.holds("values without an adapter", f"{counts['other']} differ", counts["other"] == 0)
    table.holds("W + s B A beyond f32's rounding", f"{counts['outside']} of {counts['elements']}",
                counts["outside"] == 0)
    table.note("W + s B A, other 16-bit value than PEFT's", f"{counts['ulp']}")
    table.holds("merged tensors equal to the base's", counts["same"], counts["same"] == 0)


def logits_of(model, case: Case, with_adapter: bool) -> list[torch.Tensor]:
    """Logits of the label rows of every sample in f32."""
    holder = run_reference.Reference.__new__(run_reference.Reference)
    holder.family, holder.compute = case.model.family, torch.float32
    holder.model = model if with_adapter else _Plain(model)
    with torch.no_grad():
        return [holder.logits(s) for s in case.samples]


class _Plain:
    """A model that is no PeftModel, where one is expected."""

    def __init__(self, model):
        self.model = model

    def __call__(self, **arguments):
        return self.model(**arguments)

    def get_base_model(self):
        return self.model


def compare_logits(table: compare.Table, case: Case, out: Path, dtype: torch.dtype) -> None:
    """The merged files' logits against base + adapter; the bar is what rounding alone does."""
    expected = logits_of(case.model.model, case, True)
    family, recipe = case.model.family, case.recipe

    def loaded(folder: Path):
        model = family.MODEL.from_pretrained(folder, dtype=torch.float32)
        return family.prepared(model, recipe).eval()

    found = logits_of(loaded(out), case, False)
    # The reference's own merge, in f32 and rounded to the output type.
    wide = family.prepared(merged_reference(case), recipe).eval()
    exact = logits_of(wide, case, False)
    rounded = wide
    for parameter in rounded.parameters():
        parameter.data = parameter.data.to(dtype).float()
    theirs = logits_of(rounded, case, False)
    plain = logits_of(run_reference.load_base(case.checkpoint, recipe, torch.float32).eval(), case,
                      False)

    def worst(left: list, right: list) -> float:
        return max(compare.relative(a.numpy(), b.numpy()) for a, b in zip(left, right))

    table.note("PEFT's merge in f32: logits", worst(exact, expected))
    cost = worst(theirs, expected)
    table.note(f"rounding the weights to {dtype}: logits", cost)
    table.at_most("merged: logits, over what rounding does", worst(found, expected) / cost, 2.0)
    table.at_most("merged: logits against PEFT's merge, rounded", worst(found, theirs),
                  max(compare.BARS["logits"], 0.5 * cost))
    table.holds("merged: logits away from the base's", f"{worst(found, plain):.1e}",
                worst(found, plain) > 4 * cost)


def merged_reference(case: Case):
    """PEFT's merge_and_unload on the dequantised base, in f32."""
    family = case.model.family
    values = weights_in_f32(run_reference.load_base(case.checkpoint, case.recipe, torch.float32))
    config = transformers.AutoConfig.from_pretrained(case.checkpoint)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = family.MODEL(config).float()
    missing = model.load_state_dict(values, strict=False)
    assert not missing.unexpected_keys, missing
    model.tie_weights()
    return PeftModel.from_pretrained(model, case.adapter).merge_and_unload()


def compare_adapters(table: compare.Table, medvqa: program.Program, case: Case) -> None:
    """The re-spelled adapter in PEFT and in medvqa; the values are the first one's."""
    kind = case.recipe.family
    original = load_file(case.adapter / "adapter_model.safetensors")
    for style in ("current", "legacy"):
        out = case.folder / style
        medvqa.run("export", "--adapter", str(case.adapter), "--base", str(case.checkpoint),
                   "--out", str(out), "--form", "adapter", "--key-style", style)
        base = run_reference.load_base(case.checkpoint, case.recipe, torch.float32)
        mapping = KEY_MAPPING[kind] if style == "legacy" else None
        model = PeftModel.from_pretrained(base, out, key_mapping=mapping)
        weights = load_peft_weights(out, device="cpu", key_mapping=mapping)
        result = set_peft_model_state_dict(model, weights)
        missing = [key for key in result.missing_keys if "lora_" in key]
        table.holds(f"{style}: keys PEFT misses or does not expect",
                    f"{len(missing)} and {len(result.unexpected_keys)}",
                    not missing and not result.unexpected_keys)
        inside = {n.replace(".default.", "."): p.detach() for n, p in model.named_parameters()
                  if "lora_" in n}
        same = set(inside) == set(original) and all(torch.equal(inside[k], original[k])
                                                    for k in inside)
        table.holds(f"{style}: tensors in PEFT", "same" if same else "different", same)
    spelled = set(load_file(case.folder / "legacy/adapter_model.safetensors"))
    table.holds("legacy: keys are other ones", len(spelled - set(original)),
                kind == "llama" or not spelled & {k for k in original if ".layers." in k})
    config = configuration(case)
    first = medvqa.probe(config, "first")
    again = medvqa.probe(config, "again",
                         f"lora.init_from={json.dumps(str(case.folder / 'legacy'))}")
    compare.compare_bits(table, "legacy: medvqa reads it as the first, bitwise", again, first)


def configuration(case: Case) -> Path:
    """medvqa's configuration of the case."""
    training = run_reference.Training(steps=1, batch_size=3, gradient_accumulation=1)
    config = program.of_recipe(case.recipe, dataclasses.asdict(training))
    file = case.folder / "config.json"
    file.write_text(json.dumps(config, indent=2) + "\n")
    return file


def compare_classifier(table: compare.Table, medvqa: program.Program, case: Case) -> None:
    """A trimmed head beside the adapter: the full head's rows, and the merged classifier."""
    folder, labels = case.folder / "classifier", ["No", "Yes", "Maybe"]
    shutil.copytree(case.adapter, folder)
    embedding = case.model.model.get_input_embeddings().weight
    ids = [7, 3, embedding.shape[0] - 1]
    generator = torch.Generator().manual_seed(case.recipe.seed)
    head = torch.randn(len(ids), embedding.shape[1], generator=generator)
    save_file({"head.weight": head}, folder / "head.safetensors",
              metadata={"token_ids": json.dumps(ids), "labels": json.dumps(labels)})
    from_adapter = ("export", "--adapter", str(folder), "--base", str(case.checkpoint), "--out")
    medvqa.run(*from_adapter, str(case.folder / "full"), "--form", "adapter")
    full = load_file(case.folder / "full/lm_head.safetensors")
    weight, bias = torch.zeros_like(embedding.float()), torch.full((len(embedding),), -1000.0)
    weight[ids], bias[ids] = head, 0.0
    table.holds("full head", "rows and bias", torch.equal(full["lm_head.weight"], weight)
                and torch.equal(full["lm_head.bias"], bias))
    medvqa.run(*from_adapter, str(case.folder / "sequence"), *quantization(case.recipe))
    medvqa.run("export", "--adapter", str(case.adapter), "--base", str(case.checkpoint), "--out",
               str(case.folder / "causal"), *quantization(case.recipe))
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        case.folder / "sequence", dtype=torch.float32).eval()
    table.holds("classifier", type(model).__name__, isinstance(
        model, transformers.LlamaForSequenceClassification) and
        model.config.id2label == dict(enumerate(labels)))
    causal = case.model.family.MODEL.from_pretrained(case.folder / "causal",
                                                     dtype=torch.float32).eval()
    with torch.no_grad():
        found = [model(input_ids=s.input_ids[None]).logits[0] for s in case.samples]
        hidden = [causal.model(input_ids=s.input_ids[None]).last_hidden_state[0, -1]
                  for s in case.samples]
    expected = [h @ head.T for h in hidden]
    worst = max(compare.relative(a.numpy(), b.numpy()) for a, b in zip(found, expected))
    table.at_most("classifier: logits of the trimmed head", worst, compare.BARS["logits"])


def quantization(recipe) -> list[str]:
    """How the base is quantised on load."""
    return ["--quantization", "nf4-plain"] if recipe.storage == "nf4_on_load" else []


def run_case(seed: int, family, plain: bool, executable: Path) -> compare.Table:
    """Everything for one seed."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        case = make_case(seed, folder, family, plain)
        dtype = getattr(torch, case.recipe.dtype)
        table = compare.Table(f"{case.recipe.family}, seed {seed}, {case.recipe.storage}, "
                              f"{case.recipe.dtype}, sharded {case.recipe.sharded}")
        medvqa = program.Program(executable, folder)
        try:
            shard = ["--max-shard-size", "200KB"] if case.recipe.sharded else []
            medvqa.run("export", "--adapter", str(case.adapter), "--base", str(case.checkpoint),
                       "--out", str(folder / "merged"), *shard, *quantization(case.recipe))
            compare_merged(table, case, folder / "merged", dtype)
            compare_logits(table, case, folder / "merged", dtype)
            compare_adapters(table, medvqa, case)
            if case.recipe.family == "llama":
                compare_classifier(table, medvqa, case)
        except (program.Failure, OSError, KeyError, ValueError, RuntimeError) as error:
            table.holds("the whole case", f"{type(error).__name__}: {error}", False)
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--medvqa", type=Path, default=ROOT / "build/cpu/medvqa")
    parser.add_argument("--seed", type=int, help="of the first model; the others follow it")
    parser.add_argument("--family", choices=sorted(KEY_MAPPING))
    arguments = parser.parse_args()
    seeds.prepare()
    start = random.SystemRandom().randrange(2**29) * 4
    start = start if arguments.seed is None else arguments.seed
    print("first seed:", start, flush=True)
    names = [arguments.family] if arguments.family else list(KEY_MAPPING)
    # The storage turns with the seed; the fourth is left in 16 bits.
    return seeds.report(run_case(start + step, run_reference.FAMILIES[name], step == 3,
                                 arguments.medvqa) for name in names for step in range(4))


if __name__ == "__main__":
    sys.exit(main())
