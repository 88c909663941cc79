"""The shipped smoke configurations of mllama and llama, shortened: they learn, and they repeat."""

import json
from pathlib import Path

from program import ROOT, Medvqa, fails, holds, metrics, succeeds

FINDINGS = ("--questions", "closed", "--findings", "effusion", "--validation", "0.2")
STEPS = 20


def learns_and_repeats(medvqa: Medvqa, name: str, preset: str, data: str, *synth: str) -> None:
    """Two runs of configs/NAME.json on its preset and drawn data, some steps each."""
    model, root = medvqa.scratch / preset, medvqa.scratch / "data"
    succeeds(medvqa.run("init", "--preset", preset, "--quantization", "nf4", "--out", model))
    root.mkdir()
    succeeds(medvqa.run("data", "synth", "--out", root / data, "--count", "60", "--seed", "7",
                        *FINDINGS, *synth))
    runs = [medvqa.scratch / "run", medvqa.scratch / "again"]
    for run in runs:
        settings = {"model.path": str(model), "output": str(run), "train.max_steps": STEPS,
                    "train.batch_size": 8}
        succeeds(medvqa.run(
            "train", "--config", ROOT / f"configs/{name}.json", "--quiet",
            *[word for key, value in settings.items() for word in (
                "--set", f"{key}={json.dumps(value)}")], environment={"MEDVQA_DATA": str(root)}))
    losses = [line["loss"] for line in metrics(runs[0])]
    third = len(losses) // 3
    first, last = sum(losses[:third]) / third, sum(losses[-third:]) / third
    holds(len(losses) == STEPS and last < first, f"the loss went from {first} to {last}")
    holds(losses == [line["loss"] for line in metrics(runs[1])], "a second run has other losses")
    weights = [(run / "adapter/adapter_model.safetensors").read_bytes() for run in runs]
    holds(weights[0] == weights[1], "a second run has another adapter")


def case_smoke_mllama_learns_and_repeats(medvqa: Medvqa) -> None:
    """Pictures of one tile."""
    learns_and_repeats(medvqa, "smoke_mllama", "tiny-mllama", "phantoms", "--size", "48")


def case_smoke_llama_learns_and_repeats(medvqa: Medvqa) -> None:
    """Reports without pictures."""
    learns_and_repeats(medvqa, "smoke_llama", "tiny-llama", "reports", "--text-only")


def case_medpix_plans_and_says_what_is_missing(medvqa: Medvqa) -> None:
    """The recipe is there before the reader of its data."""
    model = medvqa.scratch / "model"
    succeeds(medvqa.run("init", "--preset", "tiny-qwen2-vl", "--out", model))
    path = ("--set", f"model.path={json.dumps(str(model))}")
    for config in ("qwen2vl7b_medpix.json", "qwen2vl7b_medpix_recommended.json"):
        succeeds(medvqa.run("plan", "--config", config, *path, cwd=medvqa.scratch))
        output = ("--set", f"output={json.dumps(str(medvqa.scratch / Path(config).stem))}")
        fails(medvqa.run("train", "--config", config, *path, *output), 4, "medpix",
              "not built in yet", "vqa-rad, jsonl, json, csv")
