#!/usr/bin/env python3
"""The dynamic loss scale against torch.amp.GradScaler itself, step by step.

    .venv-reference/bin/python scripts/parity_loss_scale.py \\
        --driver build/cpu/tests/drivers/medvqa_loss_scale_driver

Sequences of steps with and without infinite gradients run through a GradScaler with an optimizer
behind it, and through the driver: scale and growth tracker after every step must be equal, and the
optimizer must have stepped exactly where the step was finite. Last line: `N passed, N failed`.
"""

import argparse
import random
import subprocess
import sys
from pathlib import Path

import torch

from reference import compare, seeds

ROOT = Path(__file__).resolve().parent.parent


def sequences(rng: random.Random) -> list[tuple[str, int, list[bool]]]:
    """(name, growth interval, finite or not) of every case."""
    def drawn(count: int, share: float) -> list[bool]:
        return [rng.random() >= share for _ in range(count)]
    return [
        ("defaults, all finite", 2000, [True] * 4100),
        ("defaults, one in a thousand", 2000, drawn(6000, 1e-3)),
        ("one in ten", 3, drawn(2000, 0.1)),
        ("every other", 2, drawn(2000, 0.5)),
        ("up to the largest f32", 1, [True] * 150),
        ("down to zero", 2000, [False] * 200),
        ("down and up", 1, [False] * 60 + [True] * 200),
    ]


def torch_states(interval: int, steps: list[bool]) -> tuple[list, list]:
    """[(scale, growth tracker)] and whether the optimizer stepped, after every step."""
    scaler = torch.amp.GradScaler("cpu", growth_interval=interval)
    weight = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    states, stepped = [], []
    for finite in steps:
        optimizer.zero_grad()
        scaler.scale(weight.sum()).backward()
        weight.grad[1] = weight.grad[1] if finite else infinite_value(len(states))
        before = weight.detach().clone()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_([weight], 1.0)
        scaler.step(optimizer)
        scaler.update()
        states.append((scaler.get_scale(), scaler.state_dict()["_growth_tracker"]))
        stepped.append(not torch.equal(before, weight))
    return states, stepped


def infinite_value(step: int) -> float:
    """One of the values that are not finite."""
    return (float("inf"), float("-inf"), float("nan"))[step % 3]


def our_states(driver: Path, interval: int, steps: list[bool]) -> list:
    """The driver's lines for the same steps."""
    text = "".join("1" if finite else "0" for finite in steps)
    lines = subprocess.run([driver, str(interval)], input=text, text=True, check=True,
                           stdout=subprocess.PIPE).stdout.splitlines()
    return [(float(torch.tensor(float(scale), dtype=torch.float32)), int(tracker))
            for scale, tracker in (line.split() for line in lines)]


def compare_all(driver: Path, seed: int) -> compare.Table:
    """A row a sequence."""
    table = compare.Table(f"loss scale, seed {seed}, torch {torch.__version__}")
    for name, interval, steps in sequences(random.Random(seed)):
        expected, stepped = torch_states(interval, steps)
        found = our_states(driver, interval, steps)
        differing = sum(a != b for a, b in zip(expected, found)) + abs(len(expected) - len(found))
        table.holds(f"{name}: states that differ of {len(steps)}", differing, differing == 0)
        # At the ends of f32 unscaling itself over- or underflows, and the weight stays.
        inside = [i for i, (scale, _) in enumerate(expected) if 1 <= scale <= 2.0**60]
        wrong = sum(stepped[i] != steps[i] for i in inside)
        table.holds(f"{name}: optimizer steps not ours of {len(inside)}", wrong, wrong == 0)
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--driver", type=Path,
                        default=ROOT / "build/cpu/tests/drivers/medvqa_loss_scale_driver")
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seeds.prepare()
    seed = random.SystemRandom().randrange(2**31) if arguments.seed is None else arguments.seed
    return seeds.report([compare_all(arguments.driver, seed)])


if __name__ == "__main__":
    sys.exit(main())
