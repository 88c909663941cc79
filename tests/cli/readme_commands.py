#!/usr/bin/env python3
"""Runs the commands of README.md as they are written, in its order.

Every fenced `sh` or `bash` block counts. They run in a scratch tree: the repository's files by
links, the program under test as build/cpu, and small data sets where the page says a reader's own
lie. What NOT_RUN lists is skipped, counted, with its reason, and a light form of it runs instead.
Last line: `N passed, N failed, N skipped`.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from program import FIXTURE, ROOT, Medvqa

# Command -> why it does not run here, and what runs instead.
NOT_RUN = {
    "./scripts/quickstart.sh": (
        "installs packages, builds, and trains for minutes", "./scripts/quickstart.sh --help"),
    "./scripts/install_dependencies.sh": (
        "installs packages; scripts/test.sh begins with it",
        "./scripts/install_dependencies.sh --help"),
    "cmake --preset cpu && cmake --build --preset cpu": (
        "builds; the program under test is what it made",
        "cmake --list-presets=configure && cmake --list-presets=build"),
}
IMAGES = sorted((FIXTURE / "images").iterdir())
OWN = ("build", "models", "data", "runs", "mydata")
ROWS, LIMIT = 24, 300


def commands(readme: str) -> list[str]:
    """The commands of the fenced blocks, continued lines joined as the shell joins them."""
    found = []
    for block in re.findall(r"^```(?:sh|bash)\n(.*?)^```", readme, re.S | re.M):
        lines = block.replace("\\\n", "").splitlines()
        found += [line.strip() for line in lines if not line.lstrip().startswith("#")]
    return [command for command in found if command]


def write_dataset(folder: Path) -> None:
    """train.jsonl with pictures beside it in images/: a form that both data readers know."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for i in range(ROWS):
        picture = IMAGES[i % len(IMAGES)]
        name = f"{i % 8}{picture.suffix}"
        shutil.copy(picture, folder / "images" / name)
        rows.append({"image": name, "question": f"Is there a fracture in {i}?",
                     "answer": "yes" if i % 2 else "no"})
    text = "\n".join(map(json.dumps, rows)) + "\n"
    (folder / "train.jsonl").write_text(text, encoding="utf-8")


def make_tree(tree: Path, program: Path) -> None:
    """What a reader has before the first command."""
    for entry in ROOT.iterdir():
        if entry.name not in OWN and not entry.name.startswith(".venv"):
            (tree / entry.name).symlink_to(entry)
    (tree / "build").mkdir()
    (tree / "build/cpu").symlink_to(program.resolve().parent)
    write_dataset(tree / "data/vqa-rad")
    write_dataset(tree / "mydata")


def run(command: str, before: list[str], tree: Path) -> str:
    """Runs a command after the exports before it; empty, or what went wrong."""
    environment = Medvqa.environment()
    environment.pop("MEDVQA_DATA", None)
    environment["PWD"] = str(tree)
    script = "\n".join(["set -euo pipefail", *before, command])
    try:
        done = subprocess.run(["bash", "-c", script], cwd=tree, env=environment, text=True,
                              capture_output=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return f"not done after {LIMIT} s"
    return "" if done.returncode == 0 else f"exit {done.returncode}: {done.stderr[-400:]}"


class Runner:
    """Counts."""

    def __init__(self, tree: Path):
        self.tree, self.exports = tree, []
        self.passed = self.failed = self.skipped = 0

    def count(self, command: str, wrong: str, seconds: float = 0) -> None:
        """Prints one result."""
        self.passed, self.failed = self.passed + (not wrong), self.failed + bool(wrong)
        print(f"FAIL  {command}: {wrong}" if wrong else f"ok    {command} ({seconds:.1f} s)",
              flush=True)

    def take(self, command: str) -> None:
        """One command of the page."""
        if command in NOT_RUN:
            reason, instead = NOT_RUN[command]
            self.skipped += 1
            print(f"skip  {command}: {reason}; instead:", flush=True)
            command = instead
        begin = time.monotonic()
        wrong = run(command, self.exports, self.tree)
        self.count(command, wrong, time.monotonic() - begin)
        if command.startswith("export "):
            self.exports.append(command)


def main() -> int:
    """Runs them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--medvqa", type=Path, default=ROOT / "build/cpu/medvqa")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    arguments = parser.parse_args()
    told = commands(arguments.readme.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="medvqa-readme-") as folder:
        # Without links in its own path, so that $PWD and the program agree about it.
        tree = Path(os.path.realpath(folder))
        make_tree(tree, arguments.medvqa)
        runner = Runner(tree)
        for command in told:
            runner.take(command)
    for command in NOT_RUN:
        if command not in told:
            runner.count(command, "NOT_RUN has it, the page does not")
    if len(told) < 5:
        runner.count("commands", f"only {len(told)} were found")
    print(f"{runner.passed} passed, {runner.failed} failed, {runner.skipped} skipped")
    return 1 if runner.failed else 0


if __name__ == "__main__":
    sys.exit(main())
