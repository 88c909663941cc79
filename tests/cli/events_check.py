#!/usr/bin/env python3
"""Reads a run's event files with TensorBoard's own reader and compares with metrics.jsonl.

A straight run, and one that was killed and resumed from an older checkpoint. Skipped, counted,
where tensorboard cannot be imported. Last line: `N passed, N failed, N skipped`.
"""

import argparse
import sys
from pathlib import Path

from program import FIXTURE, ROOT, Medvqa, Skip, holds, metrics, run_cases, succeeds

try:
    from tensorboard.backend.event_processing import event_accumulator
except ImportError:
    event_accumulator = None

TAGS = {"train/loss": ("step", "loss"), "train/learning_rate": ("step", "learning_rate"),
        "train/grad_norm": ("step", "grad_norm"), "eval/loss": ("eval", "loss"),
        "eval/token_accuracy": ("eval", "token_accuracy"),
        "eval/yes_no_accuracy": ("eval", "yes_no_accuracy")}


def config_of(medvqa: Medvqa, **settings) -> Path:
    """Six steps, evaluations on samples that have yes and no among them."""
    validation = [{"format": "jsonl", "path": str(FIXTURE / "dataset.jsonl")}]
    return medvqa.config(data__validation=validation, train__max_steps=6, train__eval_every=2,
                         train__save_every=2, train__keep=5, **settings)


def same_as_metrics(run: Path) -> None:
    """Every scalar of every tag, in order, but for single precision."""
    if event_accumulator is None:
        raise Skip("tensorboard is not installed for this Python")
    read = event_accumulator.EventAccumulator(str(run), size_guidance={"scalars": 0})
    read.Reload()
    holds(set(read.Tags()["scalars"]) == set(TAGS), f"tags {read.Tags()['scalars']}")
    for tag, (event, key) in TAGS.items():
        wanted = [(line["step"], line[key]) for line in metrics(run, event)]
        found = [(scalar.step, scalar.value) for scalar in read.Scalars(tag)]
        holds([s for s, _ in found] == [s for s, _ in wanted], f"{tag}: steps {found}")
        for (_, a), (_, b) in zip(found, wanted):
            holds(abs(a - b) <= 1e-6 * max(1e-9, abs(b)), f"{tag}: {a}, metrics.jsonl {b}")


def case_a_straight_run(medvqa: Medvqa) -> None:
    """One file with everything."""
    succeeds(medvqa.run("train", "--config", config_of(medvqa)))
    holds(len(list(medvqa.output().glob("events.out.tfevents.*"))) == 1, "not one event file")
    same_as_metrics(medvqa.output())


def case_a_resumed_run(medvqa: Medvqa) -> None:
    """Steps done twice count once, as in metrics.jsonl."""
    config = config_of(medvqa)
    succeeds(medvqa.run("train", "--config", config))
    second = medvqa.output() / "checkpoints/step-000002"
    succeeds(medvqa.run("train", "--config", config, "--resume", second))
    holds(len(list(medvqa.output().glob("events.out.tfevents.*"))) == 2, "not two event files")
    same_as_metrics(medvqa.output())


def case_overwritten_runs_leave_no_events(medvqa: Medvqa) -> None:
    """--overwrite takes the old curves away."""
    config = config_of(medvqa)
    succeeds(medvqa.run("train", "--config", config))
    succeeds(medvqa.run("train", "--config", config, "--overwrite"))
    holds(len(list(medvqa.output().glob("events.out.tfevents.*"))) == 1, "old events are left")
    same_as_metrics(medvqa.output())


def main() -> int:
    """All cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--medvqa", type=Path, default=ROOT / "build/cpu/medvqa")
    cases = [f for name, f in globals().items() if name.startswith("case_")]
    return run_cases(cases, parser.parse_args().medvqa, "")


if __name__ == "__main__":
    sys.exit(main())
