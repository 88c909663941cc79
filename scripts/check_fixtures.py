#!/usr/bin/env python3
"""Holds medvqa against the committed fixtures: inputs, logits, loss, gradients, ten steps.

Needs scripts/requirements-light.txt only. Prints one table of differences and, last, a line
`N passed, N failed`; exit code 1 when a case failed.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from reference import compare, program

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = [ROOT / "tests/fixtures" / name for name in ("qwen2_vl_tiny", "mllama_tiny")]


def check_inputs(table: compare.Table, medvqa: program.Program, fixture: Path) -> None:
    """--probe-inputs: every training sample, in file order."""
    expected = json.loads((fixture / "expected_inputs.json").read_text())
    actual = medvqa.probe_inputs(fixture / "config_run.json", "inputs")
    for name, values in expected.items():
        found = actual.get(name, np.empty(0, dtype=np.int64))
        table.holds(f"all samples: {name}", list(found.shape),
                    np.array_equal(found, np.array(values)))


def check_probe(table: compare.Table, medvqa: program.Program, fixture: Path) -> None:
    """--probe: against the reference, packed against separate, recomputed against kept."""
    config, expected = fixture / "config_run.json", load_file(fixture / "expected.safetensors")
    actual = medvqa.probe(config, "probe", 'train.recompute="none"')
    compare.compare_inputs(table, actual, expected)
    compare.compare_results(table, actual, expected)
    recomputed = medvqa.probe(config, "recompute", 'train.recompute="all"')
    compare.compare_bits(table, "recompute all = none, bitwise", recomputed, actual)
    separate = medvqa.probe(config, "separate", "data.packing=false")
    compare.compare_results(table, separate, expected, "separate samples: ")


def check_training(table: compare.Table, medvqa: program.Program, fixture: Path) -> None:
    """Ten optimizer steps with 8-bit AdamW from the fixture's adapter."""
    expected = json.loads((fixture / "expected_training.json").read_text())
    run = medvqa.scratch / "run"
    compare.compare_training(table, medvqa.train(fixture / "config_run.json", run), expected)
    start, end = program.read_adapter(fixture / "adapter"), program.read_adapter(run / "adapter")
    table.holds("adapter names", f"{len(set(start) ^ set(end))} differ", set(start) == set(end))
    moved = sum(not np.array_equal(start[k], end[k]) for k in set(start) & set(end))
    table.holds("adapter tensors that moved", f"{moved} of {len(start)}", moved == len(start))


def self_test(fixture: Path) -> int:
    """Feeds the expected as the actual, then planted errors, each of which must fail."""
    expected = load_file(fixture / "expected.safetensors")
    records = json.loads((fixture / "expected_training.json").read_text())

    def failures(actual: dict, steps: list[dict]) -> int:
        table = compare.Table("self-test")
        compare.compare_inputs(table, actual, expected)
        compare.compare_results(table, actual, expected)
        compare.compare_training(table, steps, records)
        return table.failed

    wrong = [] if failures(expected, records) == 0 else ["nothing planted"]
    for name, value in expected.items():
        planted = value.copy()
        if value.dtype == np.float32:  # a relative error of 1e-3 at the largest value
            place = np.unravel_index(np.argmax(np.abs(planted)), planted.shape)
            planted[place] *= 1.001
        else:
            planted.flat[planted.size // 2] += 1
        for broken in (expected | {name: planted}, expected | {name: value[:-1]},
                       {k: v for k, v in expected.items() if k != name}):
            if failures(broken, records) == 0:
                wrong.append(name)
    for key in ("loss", "grad_norm", "learning_rate", "label_tokens"):
        planted = [dict(r) for r in records]
        planted[-1][key] += 0.01 * planted[-2][key]
        if failures(expected, planted) == 0 or failures(expected, records[:-1]) == 0:
            wrong.append(key)
    nan = expected | {"loss": np.array([np.nan], dtype=np.float32)}
    wrong += [] if failures(nan, records) else ["loss not a number"]
    cases = len(expected) * 3 + 6
    print(f"{fixture.name}, self-test: {cases} cases, not noticed: {wrong or 'none'}")
    return 1 if wrong else 0


def run_fixture(executable: Path, fixture: Path) -> compare.Table:
    """All checks of one fixture."""
    table = compare.Table(f"{fixture.name}: medvqa against the committed reference")
    with tempfile.TemporaryDirectory() as scratch:
        medvqa = program.Program(executable, Path(scratch))
        for check in (check_inputs, check_probe, check_training):
            try:
                check(table, medvqa, fixture)
            except (program.Failure, OSError, KeyError) as error:
                table.holds(check.__name__, f"{type(error).__name__}: {error}", False)
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--medvqa", type=Path, default=ROOT / "build/cpu/medvqa")
    parser.add_argument("--self-test", action="store_true", help="test the comparison itself")
    arguments = parser.parse_args()
    if arguments.self_test:
        return max(self_test(fixture) for fixture in FIXTURES)
    tables = [run_fixture(arguments.medvqa, fixture) for fixture in FIXTURES]
    for table in tables:
        table.print()
    failed = sum(table.failed for table in tables)
    print(f"\n{sum(table.passed for table in tables)} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
