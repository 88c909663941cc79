#!/usr/bin/env python3
"""Live comparison with transformers + PEFT + bitsandbytes on fresh random models.

For every seed a model of drawn shape, an adapter with B != 0 and samples are made, run through the
reference stack and through medvqa, and compared: a Qwen2-VL, an mllama, a llama, a Qwen2.5-VL and a
llama that classifies texts in turn, unless --family says which. Needs
scripts/requirements-reference.txt.
Prints a table a seed and, last, `N passed, N failed`; exit code 1 when a case failed.
"""

import argparse
import dataclasses
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from peft.utils import load_peft_weights, set_peft_model_state_dict

from reference import compare, four_bit, program, run_reference, samples, seeds

ROOT = Path(__file__).resolve().parent.parent
LOW_PRECISION_BAR = 2.0  # our error over the reference's own in that type, both against f32


@dataclasses.dataclass
class Case:
    """One seed: the drawn files in `folder`, and the reference's f32 results."""

    folder: Path
    recipe: object         # of its family
    training: run_reference.Training
    encoded: list
    first: list            # the samples of the first optimizer step
    probe: dict
    records: list
    adapter: dict          # after training

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"


def some_step_has_no_image(encoded: list, training: run_reference.Training) -> bool:
    """PyTorch leaves parameters without a gradient out of an optimizer step, moments and all;
    medvqa's step takes their gradient for zero."""
    groups = run_reference.step_groups(len(encoded), training)
    steps = [next(groups) for _ in range(training.steps)]
    return not all(any(encoded[i].images for i in group) for group in steps)


def make_samples(seed: int, count: int, folder: Path, recipe, training) -> list:
    """Writes the data set of a seed and encodes it."""
    if recipe.family == "llama_classes":
        family = run_reference.FAMILIES[recipe.family]
        family.write_samples(recipe, count, folder)
        return family.encoded(recipe, folder, run_reference.Sample)
    if recipe.family == "llama":
        samples.write_texts(seed, count, folder)
        return run_reference.load_samples(folder / "checkpoint", folder)
    samples.write_dataset(seed, count, folder, text_only=recipe.family == "mllama")
    encoded = run_reference.load_samples(folder / "checkpoint", folder)
    if some_step_has_no_image(encoded, training):
        samples.write_dataset(seed, count, folder)
        encoded = run_reference.load_samples(folder / "checkpoint", folder)
    return encoded


def make_case(seed: int, folder: Path, family) -> Case:
    """Draws everything for a seed, runs the reference in f32, writes medvqa's configuration."""
    recipe = family.draw(seed)
    rng = random.Random(seed + 2)
    # A text with a class has one label: of very few, all may be told so well that the loss is
    # small beside the rounding of its logits.
    sizes = [4, 5, 6] if recipe.family == "llama_classes" else [1, 2, 3]
    training = run_reference.Training(
        batch_size=rng.choice(sizes), gradient_accumulation=rng.choice([1, 2, 3]),
        learning_rate=rng.choice([2e-4, 5e-4]), warmup_steps=rng.choice([0, 2, 5]),
        weight_decay=rng.choice([0.0, 0.01]), max_grad_norm=rng.choice([0.5, 1.0, 100.0]),
        seed=rng.randrange(1, 10000))
    family.write_checkpoint(recipe, folder / "checkpoint")
    run_reference.make_adapter(folder / "checkpoint", recipe, folder / "adapter")
    count = rng.randint(6, 9)
    encoded = make_samples(seed, count, folder, recipe, training)
    first = [encoded[i] for i in next(run_reference.step_groups(len(encoded), training))]
    results = run_reference.results(folder, recipe, training, encoded, torch.float32)
    config = program.of_recipe(recipe, dataclasses.asdict(training))
    if recipe.family == "llama_classes":
        settings = family.settings(recipe, folder / "checkpoint")
        config = config | settings | {"data": config["data"] | settings["data"]}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return Case(folder, recipe, training, encoded, first, *results)


def compare_probes(table: compare.Table, medvqa: program.Program, case: Case) -> dict:
    """Inputs and results against the reference; packing and recomputation against each other."""
    config = case.folder / "config.json"
    model = run_reference.Reference(case.checkpoint, case.recipe, case.folder / "adapter")
    everything = run_reference.inputs(case.encoded, [model.position_ids(s) for s in case.encoded])
    compare.compare_inputs(table, medvqa.probe_inputs(config, "inputs"), everything, "all: ")
    actual = medvqa.probe(config, "probe", 'train.recompute="none"')
    compare.compare_inputs(table, actual, case.probe)
    compare.compare_results(table, actual, case.probe)
    recomputed = medvqa.probe(config, "recomputed", 'train.recompute="all"')
    compare.compare_bits(table, "recompute all = none, bitwise", recomputed, actual)
    count = len(case.first)
    for name, packing in (("all packed: ", "true"), ("separate: ", "false")):
        other = medvqa.probe(config, packing, f"data.packing={packing}",
                             f"train.batch_size={count}", "train.gradient_accumulation=1")
        compare.compare_results(table, other, actual, name)
    return actual


def compare_training(table: compare.Table, medvqa: program.Program, case: Case) -> None:
    """Ten steps, then the written adapter through PEFT and back through medvqa."""
    config, run = case.folder / "config.json", case.folder / "run"
    compare.compare_training(table, medvqa.train(config, run), case.records)
    written = program.read_adapter(run / "adapter")
    compare.compare_adapter(table, written, case.adapter)
    start = run_reference.Reference(case.checkpoint, case.recipe, case.folder / "adapter")
    for name, parameter in start.head.items():
        before = parameter.detach().numpy()
        table.at_most(f"{name}: the change", compare.norm(
            written[name] - before, case.adapter[name] - before), compare.BARS["head_change"])

    base = run_reference.load_base(case.checkpoint, case.recipe, torch.float32)
    model = PeftModel.from_pretrained(base, run / "adapter")
    result = set_peft_model_state_dict(model, load_peft_weights(run / "adapter", device="cpu"))
    missing = [key for key in result.missing_keys if "lora_" in key]
    table.holds("PEFT: missing keys", len(missing), not missing)
    table.holds("PEFT: unexpected keys", len(result.unexpected_keys),
                not result.unexpected_keys)
    reference = run_reference.Reference(case.checkpoint, case.recipe, run / "adapter")
    inside = {k: p.detach().numpy() for k, p in reference.trained().items()}
    same = set(inside) == set(written) and all(np.array_equal(inside[k], written[k])
                                               for k in inside)
    table.holds("PEFT: tensors are the file's", "same" if same else "different", same)
    again = medvqa.probe(config, "again", f"lora.init_from={json.dumps(str(run / 'adapter'))}")
    expected = reference.probe(case.first)
    table.at_most("PEFT: logits with the written adapter",
                  compare.relative(again["logits"], expected["logits"]), compare.BARS["logits"])


def joined(probe: dict) -> np.ndarray:
    """All gradients of a probe as one vector."""
    return np.concatenate([probe[k].ravel() for k in sorted(probe) if k.startswith("grad.")])


def compare_low_precision(table: compare.Table, case: Case, kind: str, ours: dict,
                          theirs: dict) -> None:
    """Errors against f32: ours over the reference's own."""
    for name, pick in (("logits", lambda p: p["logits"]), ("gradients", joined)):
        own = compare.norm(pick(theirs), pick(case.probe))
        table.note(f"{kind} {name}: the reference's error", own)
        found = compare.norm(pick(ours), pick(case.probe))
        table.note(f"{kind} {name}: our error", found)
        table.at_most(f"{kind} {name}: ours over the reference's", found / own, LOW_PRECISION_BAR)


def compare_bf16(table: compare.Table, medvqa: program.Program, case: Case) -> None:
    """Both in bf16."""
    model = run_reference.Reference(case.checkpoint, case.recipe, case.folder / "adapter",
                                    torch.bfloat16)
    ours = medvqa.probe(case.folder / "config.json", "bf16", 'model.compute="bf16"')
    compare_low_precision(table, case, "bf16", ours, model.probe(case.first))


def compare_f16(table: compare.Table, medvqa: program.Program, case: Case) -> None:
    """Both in f16, each with the first loss scale of GradScaler's that gives finite gradients."""
    model = run_reference.Reference(case.checkpoint, case.recipe, case.folder / "adapter",
                                    torch.float16)
    scale = 2.0**16
    theirs = model.probe(case.first, scale)
    while not np.isfinite(joined(theirs)).all() and scale > 1:
        scale /= 2
        theirs = model.probe(case.first, scale)
    ours = medvqa.probe(case.folder / "config.json", "f16", 'model.compute="f16"')
    compare_low_precision(table, case, "f16", ours, theirs)


def note_rounding(table: compare.Table, case: Case) -> None:
    """The reference's own f32 rounding, and the stack's unrounded forward where it can be run."""
    wide = run_reference.results(case.folder, case.recipe, case.training, case.encoded,
                                 torch.float64)
    narrow = (case.probe, case.records, case.adapter)
    for name, value in run_reference.rounding(narrow, wide).items():
        table.at_most(f"f32 against f64: {name}", value, compare.BARS[name])
    try:
        stack = run_reference.Reference(case.checkpoint, case.recipe, case.folder / "adapter",
                                        weights="stack").probe(case.first)
    except four_bit.Unreliable as reason:
        table.note("bitsandbytes' own products", f"not run: {reason}")
        return
    table.note("bitsandbytes' own products: logits",
               compare.relative(stack["logits"], case.probe["logits"]))
    table.note("bitsandbytes' own products: gradients",
               compare.norm(joined(stack), joined(case.probe)))


def run_seed(seed: int, executable: Path | None, family) -> compare.Table:
    """Everything for one seed; `executable` None checks the reference against its own f64."""
    with tempfile.TemporaryDirectory() as scratch:
        begin = time.monotonic()
        folder = Path(scratch)
        case = make_case(seed, folder, family)
        shape = {k: v for k, v in dataclasses.asdict(case.recipe).items()}
        table = compare.Table(f"{case.recipe.family}, seed {seed}: {shape} {case.training}")
        if executable is None:
            note_rounding(table, case)
        else:
            medvqa = program.Program(executable, folder)
            for check in (compare_probes, compare_training, compare_bf16, compare_f16):
                try:
                    check(table, medvqa, case)
                except (program.Failure, OSError, KeyError) as error:
                    table.holds(check.__name__, f"{type(error).__name__}: {error}", False)
        table.note("seconds", f"{time.monotonic() - begin:.0f}")
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--medvqa", type=Path, default=ROOT / "build/cpu/medvqa")
    seeds.add_options(parser, 8, run_reference.FAMILIES)
    parser.add_argument("--reference-only", action="store_true",
                        help="compare the reference's f32 with its f64; medvqa is not run")
    arguments = parser.parse_args()
    seeds.prepare()
    cases = seeds.in_turn(arguments, run_reference.FAMILIES)
    print("seeds:", " ".join(str(seed) for seed, _ in cases), flush=True)
    executable = None if arguments.reference_only else arguments.medvqa
    return seeds.report(run_seed(seed, executable, family) for seed, family in cases)


if __name__ == "__main__":
    sys.exit(main())
