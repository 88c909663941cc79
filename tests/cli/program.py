"""What the command line tests share: running medvqa as a user does, and counting cases."""

import hashlib
import json
import os
import subprocess
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIXTURE = ROOT / "tests/fixtures/qwen2_vl_tiny"


@dataclass
class Result:
    """How one command ended."""

    code: int
    out: str
    err: str

    def error_lines(self) -> list[str]:
        """The error messages, without the log."""
        return [line for line in self.err.splitlines() if line.startswith("medvqa: ")]


class Skip(Exception):
    """A case that cannot run here; the text says why."""


class Medvqa:
    """The program under test and a scratch folder; every run is one child with a time limit."""

    def __init__(self, executable: Path, scratch: Path):
        self.executable, self.scratch = executable.resolve(), scratch

    def run(self, *arguments, program: Path | None = None, environment: dict | None = None,
            cwd: Path | None = None, before=None, limit: float = 120) -> Result:
        """Runs to the end. `before` is called in the child before the program starts."""
        done = subprocess.run([str(program or self.executable), *map(str, arguments)], text=True,
                              capture_output=True, timeout=limit, check=False, cwd=cwd,
                              env=self.environment(environment), preexec_fn=before)
        return Result(done.returncode, done.stdout, done.stderr)

    @staticmethod
    def environment(extra: dict | None = None) -> dict:
        """The caller's environment without MEDVQA__ settings."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MEDVQA__")}
        return {"GOMP_SPINCOUNT": "1000"} | kept | (extra or {})

    def config(self, name: str = "config", **settings) -> Path:
        """The fixture's configuration with settings like train__seed=1; its output is NAME-run."""
        config = json.loads((FIXTURE / "config_run.json").read_text(encoding="utf-8"))
        config["model"]["path"] = str(FIXTURE / "checkpoint")
        config["lora"]["init_from"] = str(FIXTURE / "adapter")
        config["data"]["train"][0]["path"] = str(FIXTURE / "dataset.jsonl")
        config["train"] |= {"max_steps": 2, "save_every": 1}
        config["output"] = str(self.scratch / f"{name}-run")
        for path, value in settings.items():
            *sections, key = path.split("__")
            target = config
            for section in sections:
                target = target.setdefault(section, {})
            target[key] = value
        file = self.scratch / f"{name}.json"
        file.write_text(json.dumps(config, indent=1), encoding="utf-8")
        return file

    def output(self, name: str = "config") -> Path:
        """Where the run of config(NAME) goes."""
        return self.scratch / f"{name}-run"


def holds(condition: bool, message: str) -> None:
    """Fails the case with the message unless the condition holds."""
    if not condition:
        raise AssertionError(message)


def fails(result: Result, code: int, *parts: str) -> None:
    """The run ended with `code` and exactly one error line, which has all the parts."""
    holds(result.code == code, f"exit {result.code}, expected {code}: {result.err[-500:]}")
    lines = result.error_lines()
    holds(len(lines) == 1, f"{len(lines)} error lines, expected 1: {result.err[-500:]}")
    holds(result.err.splitlines()[-1] == lines[0], f"something after the error: {result.err}")
    for part in parts:
        holds(part in lines[0], f"expected {part!r} in: {lines[0]}")


def succeeds(result: Result) -> Result:
    """The run ended with 0 and no error line."""
    holds(result.code == 0, f"exit {result.code}: {result.err[-500:]}")
    holds(not result.error_lines(), result.err[-500:])
    return result


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder (or the one file) by name: a hash, or where a link points."""
    found = {}
    for path in sorted([folder, *folder.rglob("*")]):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = "-> " + os.readlink(path)
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "folder" if path.exists() else "absent"
    return found


def metrics(run: Path, event: str = "step") -> list[dict]:
    """The lines of metrics.jsonl with that event."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if line["event"] == event]


def run_cases(cases: list, executable: Path, only: str) -> int:
    """Runs every case in a scratch folder of its own; prints and counts. 1 if one failed."""
    passed = failed = skipped = 0
    for case in cases:
        if only not in case.__name__:
            continue
        with tempfile.TemporaryDirectory(prefix="medvqa-cli-") as scratch:
            try:
                case(Medvqa(executable, Path(scratch).resolve()))
                passed += 1
                print(f"ok    {case.__name__}", flush=True)
            except Skip as reason:
                skipped += 1
                print(f"skip  {case.__name__}: {reason}", flush=True)
            except Exception as error:  # pylint: disable=broad-except
                failed += 1
                where = traceback.extract_tb(error.__traceback__)[1 if len(
                    traceback.extract_tb(error.__traceback__)) > 1 else 0]
                print(f"FAIL  {case.__name__}, line {where.lineno}: "
                      f"{type(error).__name__}: {error}", flush=True)
    print(f"\n{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0
