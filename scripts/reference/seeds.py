"""What the comparison programs do around a seed: their options, the order of the families, the
tables and the last line."""

import argparse
import random
import sys

import torch
import transformers

from reference import run_reference


def prepare() -> None:
    """No words of transformers' own, and two threads at most."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(min(2, torch.get_num_threads()))


def add_options(parser: argparse.ArgumentParser, count: int, families) -> None:
    """--family, --seeds and --seed; `count` seeds without them."""
    parser.add_argument("--family", choices=sorted(families))
    parser.add_argument("--seeds", type=int, default=count, help="how many fresh consecutive seeds")
    parser.add_argument("--seed", type=int, action="append", help="a given seed, repeatable")


def in_turn(arguments: argparse.Namespace, families) -> list[tuple]:
    """(seed, family module) of every case: the given seeds or fresh ones, the families in turn."""
    start = random.SystemRandom().randrange(2**31 - 4096)
    seeds = arguments.seed or range(start, start + arguments.seeds)
    names = [arguments.family] if arguments.family else list(families)
    return [(seed, run_reference.FAMILIES[names[place % len(names)]])
            for place, seed in enumerate(seeds)]


def report(tables) -> int:
    """Prints every compare.Table as it comes, and the last line; the exit code."""
    passed = failed = 0
    for table in tables:
        table.print()
        sys.stdout.flush()
        passed, failed = passed + table.passed, failed + table.failed
    print(f"\n{passed} passed, {failed} failed")
    return 1 if failed else 0
