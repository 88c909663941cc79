"""Whole runs: signals and resuming, and the tiny configuration on the real VQA-RAD."""

import os
import signal
import subprocess
import time
from pathlib import Path

from program import FIXTURE, Medvqa, Skip, contents, fails, holds, metrics, succeeds
from safetensors.numpy import load_file

STEP_KEYS = {"event", "step", "epoch", "loss", "learning_rate", "grad_norm", "label_tokens",
             "tokens", "samples", "seconds"}
EVAL_KEYS = {"event", "step", "loss", "token_accuracy"}


class Running:
    """A training run in the background, its log in a file."""

    def __init__(self, medvqa: Medvqa, *arguments):
        self.log = medvqa.scratch / "log.txt"
        with self.log.open("wb") as log:
            self.child = subprocess.Popen([str(medvqa.executable), "train", *map(str, arguments)],
                                          stdout=log, stderr=log, env=medvqa.environment())

    def wait_for_steps(self, run: Path, count: int, limit: float = 60) -> None:
        """Until metrics.jsonl has `count` lines."""
        end = time.monotonic() + limit
        file = run / "metrics.jsonl"
        while time.monotonic() < end:
            if file.exists() and file.read_text(encoding="utf-8").count("\n") >= count:
                return
            holds(self.child.poll() is None, f"ended early: {self.text()}")
            time.sleep(0.005)
        self.child.kill()
        raise AssertionError(f"no {count} steps in {limit} s: {self.text()}")

    def text(self) -> str:
        """What it said so far."""
        return self.log.read_text(encoding="utf-8")[-600:]

    def end(self, limit: float = 60) -> int:
        """The exit code, negative for a signal's death."""
        try:
            return self.child.wait(limit)
        except subprocess.TimeoutExpired:
            self.child.kill()
            raise AssertionError(f"did not end in {limit} s: {self.text()}") from None


def without_seconds(lines: list[dict]) -> list[dict]:
    """Lines of metrics.jsonl but for the wall time."""
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def case_a_signal_stops_and_resume_goes_on(medvqa: Medvqa) -> None:
    """SIGTERM, SIGINT and SIGUSR1: 75 with a checkpoint; then the straight run's adapter."""
    long = {"train__max_steps": 60, "train__save_every": 50}
    straight = medvqa.config("straight", **long)
    succeeds(medvqa.run("train", "--config", straight))
    wanted = contents(medvqa.output("straight") / "adapter")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        name = f"stopped{int(number)}"
        config = medvqa.config(name, **long)
        output = medvqa.output(name)
        running = Running(medvqa, "--config", config)
        running.wait_for_steps(output, 3)
        running.child.send_signal(number)
        holds(running.end() == 75, f"{number.name}: exit {running.child.returncode}: "
              f"{running.text()}")
        done = len(metrics(output))
        holds(3 <= done < 60, f"{done} steps were done")
        latest = os.readlink(output / "checkpoints/latest")
        holds(latest == f"step-{done:06}", f"latest is {latest} after step {done}")
        holds(not (output / "adapter").exists(), "an adapter after a signal")
        fails(medvqa.run("train", "--config", config), 3, "--resume auto")
        succeeds(medvqa.run("train", "--config", config, "--resume", "auto"))
        name = "adapter_model.safetensors"
        holds(contents(output / "adapter")[name] == wanted[name], f"{number.name}: other adapter")
        holds(without_seconds(metrics(output)) ==
              without_seconds(metrics(medvqa.output("straight"))), "other metrics")


def case_a_killed_run_resumes(medvqa: Medvqa) -> None:
    """SIGKILL, then --resume auto: from the last checkpoint, or the beginning."""
    settings = {"train__max_steps": 40, "train__save_every": 4}
    succeeds(medvqa.run("train", "--config", medvqa.config("straight", **settings)))
    name = "adapter_model.safetensors"
    wanted = contents(medvqa.output("straight") / "adapter")[name]
    config = medvqa.config("killed", **settings)
    for steps in (2, 9):
        running = Running(medvqa, "--config", config, "--resume", "auto")
        running.wait_for_steps(medvqa.output("killed"), steps)
        running.child.kill()
        running.end()
    succeeds(medvqa.run("train", "--config", config, "--resume", "auto"))
    holds(contents(medvqa.output("killed") / "adapter")[name] == wanted, "another adapter")
    left = [p.name for p in (medvqa.output("killed") / "checkpoints").iterdir()
            if p.name.startswith(".tmp")]
    holds(not left, f"half-written folders are left: {left}")


def case_a_second_signal_ends_at_once(medvqa: Medvqa) -> None:
    """The second of two signals, sent inside one step, gives 128 + n."""
    lines = (FIXTURE / "dataset.jsonl").read_text(encoding="utf-8")
    data = medvqa.scratch / "many.jsonl"
    data.write_text(lines.replace('"image0', f'"{FIXTURE}/images/image0') * 100, encoding="utf-8")
    config = medvqa.config(data__train=[{"format": "jsonl", "path": str(data)}],
                           train__max_steps=100, train__batch_size=6,
                           train__gradient_accumulation=100)
    running = Running(medvqa, "--config", config)
    running.wait_for_steps(medvqa.output(), 1)
    for _ in range(2):
        running.child.send_signal(signal.SIGTERM)
        time.sleep(0.01)
    code = running.end()
    holds(code == 128 + signal.SIGTERM, f"exit {code}: {running.text()}")


def case_real_vqa_rad(medvqa: Medvqa) -> None:
    """Six steps of the shipped tiny configuration on the real VQA-RAD."""
    data = os.environ.get("MEDVQA_DATA")
    if not data:
        raise Skip("MEDVQA_DATA is not set; it names the folder with vqa-rad")
    if not Path(data, "vqa-rad").is_dir():
        raise Skip(f"{data} has no vqa-rad")
    model, run = medvqa.scratch / "model", medvqa.scratch / "run"
    succeeds(medvqa.run("init", "--preset", "tiny-qwen2-vl", "--quantization", "nf4", "--out",
                        model))
    settings = [f"model.path={model}", f"output={run}", "train.max_steps=6",
                "train.warmup_steps=1", 'data.validation={"fraction": 0.01}',
                "train.schedule=constant"]
    arguments = [part for s in settings for part in ("--set", s)]
    succeeds(medvqa.run("train", "--config", "qwen2vl_tiny_vqarad.json", *arguments))
    steps, evaluations = metrics(run), metrics(run, "eval")
    holds([s["step"] for s in steps] == [1, 2, 3, 4, 5, 6], f"steps {steps}")
    holds(all(set(s) == STEP_KEYS for s in steps), f"keys {set(steps[0]) ^ STEP_KEYS}")
    holds(len(evaluations) == 1 and EVAL_KEYS <= set(evaluations[0]), f"{evaluations}")
    losses = [s["loss"] for s in steps]
    holds(sum(losses[3:]) < 0.97 * sum(losses[:3]), f"losses {losses}")
    holds(all(s["samples"] == 8 and s["seconds"] > 0 for s in steps), f"{steps}")
    files = contents(run / "adapter")
    for name in ("adapter_model.safetensors", "adapter_config.json", "README.md",
                 "tokenizer.json"):
        holds(name in files, f"{name} is not in the adapter")


def case_smoke_of_qwen2_5_vl(medvqa: Medvqa) -> None:
    """Forty steps of the shipped smoke test of the window model: it learns, and PEFT's names."""
    model, run = medvqa.scratch / "model", medvqa.scratch / "run"
    succeeds(medvqa.run("init", "--preset", "tiny-qwen2-5-vl", "--quantization", "nf4", "--out",
                        model))
    succeeds(medvqa.run("data", "synth", "--out", medvqa.scratch / "phantoms", "--count", "60",
                        "--seed", "7", "--size", "84", "--validation", "0.1", "--questions",
                        "closed", "--findings", "effusion"))
    settings = [f"model.path={model}", f"output={run}", "train.max_steps=40", "train.batch_size=4",
                "train.log_every=1"]
    arguments = [part for s in settings for part in ("--set", s)]
    succeeds(medvqa.run("train", "--config", "smoke_qwen25vl.json", *arguments,
                        environment={"MEDVQA_DATA": str(medvqa.scratch)}))
    losses = [step["loss"] for step in metrics(run)]
    holds(len(losses) == 40 and sum(losses[30:]) < 0.2 * sum(losses[:10]), f"losses {losses}")
    names = load_file(run / "adapter/adapter_model.safetensors")
    first = "base_model.model.model.visual.blocks.0.mlp.gate_proj.lora_A.weight"
    holds(len(names) == 2 * (2 * 5 + 2 * 7) and names[first].shape == (16, 128),
          f"{sorted(names)}")


def case_profile_shows_the_operations_of_a_run_of_any_length(medvqa: Medvqa) -> None:
    """A row for each operation: of the steps after the first, or of the only one."""
    calls = []
    for steps in (1, 3):
        config = medvqa.config(f"steps{steps}", train__max_steps=steps)
        result = succeeds(medvqa.run("train", "--config", config, "--profile"))
        rows = [line.split() for line in result.err.splitlines()]
        found = {row[0]: int(row[1]) for row in rows
                 if len(row) > 2 and row[0] in ("gemm", "attention", "adamw") and row[1].isdigit()}
        holds(set(found) == {"gemm", "attention", "adamw"}, f"{steps} steps: {result.err[-600:]}")
        calls.append(found)
    holds(calls[1]["adamw"] == 2 and calls[0]["adamw"] == 1, f"{calls}")
