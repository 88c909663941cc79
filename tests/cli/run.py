#!/usr/bin/env python3
"""Drives medvqa as a user: help, exit codes, error lines, signals, random models, real data.

Needs scripts/requirements-light.txt only. Every case has a scratch folder of its own; prints one
line a case and, last, `N passed, N failed, N skipped`. Exit code 1 when a case failed.
"""

import argparse
import sys
from pathlib import Path

import cases_classification
import cases_errors
import cases_front_door
import cases_interface
import cases_models
import cases_runs
import cases_smoke
from program import ROOT, run_cases


def main() -> int:
    """Collects the functions named case_* of the case modules."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--medvqa", type=Path, default=ROOT / "build/cpu/medvqa")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    arguments = parser.parse_args()
    cases = [function for module in (
        cases_interface, cases_front_door, cases_errors, cases_models, cases_runs, cases_smoke,
        cases_classification)
             for name, function in vars(module).items() if name.startswith("case_")]
    return run_cases(cases, arguments.medvqa, arguments.only)


if __name__ == "__main__":
    sys.exit(main())
