#!/usr/bin/env python3
"""The table of bad inputs: what it is, the exit code, what the one error line must name.

Every kind runs in a scratch folder beside a finished run. Beyond code and line it must leave every
byte that was there as it was, and may make nothing but the output folder of its own run where that
is said. Last line: `N passed, N failed, N skipped`.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from bad_classes import CLASSES
from bad_data import DATA
from bad_exports import EXPORTS
from bad_memory import MEMORY
from bad_models import MODELS
from bad_settings import SETTINGS
from program import ROOT, Medvqa, Result, contents, fails, holds, run_cases, succeeds

TABLE = SETTINGS + CLASSES + DATA + MODELS + EXPORTS + MEMORY
LEAST = 100
# What a user can cause and mend: 1 is a bug of ours, 75 a signal (cases_runs.py).
CODES = {2, 3, 4, 5, 6, 7, 8, 9}


def finished_run(medvqa: Medvqa) -> Path:
    """A run to be left alone, made once."""
    succeeds(medvqa.run("train", "--config", medvqa.config("finished")))
    return medvqa.output("finished")


def untouched(before: dict[str, str], after: dict[str, str], allowed: tuple[str, ...]) -> None:
    """Everything is as it was; only what begins with `allowed` is new or changed."""
    def outside(names: dict[str, str]) -> dict[str, str]:
        return {k: v for k, v in names.items() if not k.startswith(allowed)}

    before, after = outside(before), outside(after)
    changed = [k for k in before if after.get(k) != before[k]]
    holds(not changed, f"changed: {changed}")
    new = [k for k in after if k not in before]
    holds(not new, f"made: {new}")


def case_of(kind, finished: Path):
    """The kind as a case for run_cases."""
    def case(medvqa: Medvqa) -> None:
        shutil.copytree(finished, medvqa.scratch / "finished-run", symlinks=True)
        arguments, options = kind.prepare(medvqa)
        before = contents(medvqa.scratch)
        result: Result = medvqa.run(*arguments, **options)
        fails(result, kind.code, *kind.culprit)
        line = result.error_lines()[0]
        holds(len(line) < 900, f"a line of {len(line)} characters")
        untouched(before, contents(medvqa.scratch), kind.may_write)

    case.__name__ = f"{kind.code} {kind.name}"
    return case


def main() -> int:
    """Runs the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--medvqa", type=Path, default=ROOT / "build/cpu/medvqa")
    parser.add_argument("--only", default="", help="kinds whose name contains this")
    parser.add_argument("--list", action="store_true", help="print the table and stop")
    arguments = parser.parse_args()
    names = [kind.name for kind in TABLE]
    assert len(set(names)) == len(names) >= LEAST, f"{len(names)} kinds, or a name twice"
    codes = {kind.code for kind in TABLE}
    assert codes == CODES, f"exit codes without a kind: {CODES ^ codes}"
    if arguments.list:
        for kind in sorted(TABLE, key=lambda k: k.code):
            print(f"{kind.code:>2}  {kind.name}")
        return 0
    with tempfile.TemporaryDirectory(prefix="medvqa-bad-") as folder:
        finished = finished_run(Medvqa(arguments.medvqa, Path(folder).resolve()))
        return run_cases([case_of(kind, finished) for kind in TABLE], arguments.medvqa,
                         arguments.only)


if __name__ == "__main__":
    sys.exit(main())
