"""Runs the medvqa program: configuration files, probes, training. Needs no reference stack."""

import json
import subprocess
from pathlib import Path

from safetensors.numpy import load_file


def configuration(checkpoint: str, dataset: str, adapter: str, output: str, lora: dict,
                  training: dict, model: dict | None = None) -> dict:
    """medvqa's configuration: f32, every sample trained on, LoRA started from `adapter`.

    Paths are relative to the configuration's folder. `training` has the keys of
    run_reference.Training; batch_size and gradient_accumulation are medvqa's own.
    """
    return {
        "task": "vqa", "device": "cpu",
        "model": {"path": checkpoint, "compute": "f32"} | (model or {}),
        "lora": lora | {"dropout": 0.0, "init_from": adapter},
        "data": {"train": [{"format": "jsonl", "path": dataset}], "validation": None,
                 "packing": True, "shuffle": True, "threads": 1},
        "train": {
            "batch_size": training["batch_size"],
            "gradient_accumulation": training["gradient_accumulation"],
            "max_steps": training["steps"], "learning_rate": training["learning_rate"],
            "schedule": "linear", "warmup_steps": training["warmup_steps"],
            "weight_decay": training["weight_decay"],
            "max_grad_norm": training["max_grad_norm"], "optimizer": "adamw8bit",
            "seed": training["seed"], "log_every": 1,
        },
        "output": output,
    }


def of_recipe(recipe, training: dict, dataset: str = "dataset.jsonl") -> dict:
    """The configuration of a drawn model: in its folder checkpoint, adapter, run and the data."""
    model = {"quantization": "nf4", "double_quant": False} \
        if recipe.storage == "nf4_on_load" else {"quantization": "auto"}
    if hasattr(recipe, "features"):
        model["vision_features"] = recipe.features
    lora = {"r": recipe.r, "alpha": recipe.alpha, "rslora": recipe.rslora}
    config = configuration("checkpoint", dataset, "adapter", "run", lora, training, model)
    return config | {"task": "text" if recipe.family == "llama" else "vqa"}


class Failure(Exception):
    """medvqa ended with an error; the text carries its last lines."""


class Program:
    """The medvqa executable, its scratch folder and a time limit in seconds for each run."""

    def __init__(self, executable: Path, scratch: Path, limit: float = 300):
        self.executable, self.scratch, self.limit = executable.resolve(), scratch, limit

    def run(self, *arguments: str) -> str:
        """Runs medvqa and returns its standard output; Failure on a non-zero exit."""
        command = [str(self.executable), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=self.limit,
                                  check=False)
        except subprocess.TimeoutExpired as late:
            raise Failure(f"{' '.join(command)}: no end after {self.limit} s") from late
        if done.returncode != 0:
            last = "\n".join((done.stdout + done.stderr).splitlines()[-8:])
            raise Failure(f"{' '.join(command)}: exit {done.returncode}\n{last}")
        return done.stdout

    def probe(self, config: Path, name: str, *settings: str) -> dict:
        """The tensors of `train --probe`; settings are --set arguments (a.b=JSON)."""
        return self._tensors("--probe", config, name, settings)

    def probe_inputs(self, config: Path, name: str, *settings: str) -> dict:
        """The tensors of `train --probe-inputs`: every training sample, in file order."""
        return self._tensors("--probe-inputs", config, name, settings)

    def _tensors(self, option: str, config: Path, name: str, settings: tuple) -> dict:
        file = self.scratch / f"{name}.safetensors"
        self.run("train", "--config", str(config), option, str(file),
                 *[part for s in settings for part in ("--set", s)])
        return load_file(file)

    def train(self, config: Path, output: Path, *settings: str) -> list[dict]:
        """Trains into `output` and returns the step records of its metrics.jsonl."""
        self.run("train", "--config", str(config), "--set", f"output={json.dumps(str(output))}",
                 *[part for s in settings for part in ("--set", s)])
        lines = (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines if line.strip()]
        return [record for record in records if record["event"] == "step"]


def read_adapter(folder: Path) -> dict:
    """The tensors of adapter_model.safetensors by key, and those of head.safetensors."""
    head = folder / "head.safetensors"
    return load_file(folder / "adapter_model.safetensors") | (
        load_file(head) if head.exists() else {})
