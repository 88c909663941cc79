#!/usr/bin/env python3
"""The shipped configurations against the JSON Schema the program prints.

The committed schema and reference page must be what the program prints, every shipped
configuration must name the schema and validate, and what the program refuses the schema must
refuse as well. Last line: `N passed, N failed`.
"""

import argparse
import copy
import json
import subprocess
import sys
from pathlib import Path

import jsonschema

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = "config.schema.json"

# Changes of a good configuration that must not validate, as path = value.
WRONG = (
    ("lora.r", 0), ("lora.r", 1.5), ("lora.r", "16"), ("lora.r", None), ("lora.rank", 16),
    ("lora.dropout", 1), ("train.schedule", "step"), ("train.seed", -1), ("train.sede", 1),
    ("train.keep", 1), ("data.train", []), ("data.train", [{"path": "x"}]),
    ("data.train", [{"format": "json", "path": "x", "spilt": "train"}]),
    ("data.validation", {"fraction": 1}), ("data.validation", {"by": "image"}),
    ("data.validation", {"fraction": 0.1, "by": "patient"}), ("data.packing", 1),
    ("data.image.max_pixels", 0), ("model.path", ""), ("model.compute", None), ("colour", "red"),
    ("classification.classes", {"0": 1}), ("output", None))
RIGHT = (
    ("lora.targets", None), ("lora.targets", ".*"), ("train.max_steps", None),
    ("train.max_steps", 3), ("data.validation", None), ("data.validation", {"fraction": 0}),
    ("data.validation", [{"format": "json", "path": "x", "split": "val"}]),
    ("data.image.max_pixels", None), ("$schema", "elsewhere.json"), ("lora.alpha", 0.5))


def without_comments(text: str) -> str:
    """JSON with // and /* */ comments removed, strings left alone."""
    out, i, inside = [], 0, False
    while i < len(text):
        if inside:
            step = 2 if text[i] == "\\" else 1
            inside = text[i] != '"'
            out.append(text[i:i + step])
            i += step
        elif text.startswith("//", i):
            i = text.find("\n", i) if "\n" in text[i:] else len(text)
        elif text.startswith("/*", i):
            i = text.index("*/", i) + 2
        else:
            inside = text[i] == '"'
            out.append(text[i])
            i += 1
    return "".join(out)


def changed(config: dict, path: str, value) -> dict:
    """A copy with one value set."""
    config = copy.deepcopy(config)
    *sections, key = path.split(".")
    at = config
    for section in sections:
        at = at.setdefault(section, {})
    at[key] = value
    return config


def checks(medvqa: Path):
    """Name, whether it holds, and what to say."""
    def printed(flag: str) -> str:
        return subprocess.run([medvqa, "train", flag], capture_output=True, text=True,
                              check=True).stdout

    text = printed("--print-schema")
    schema = json.loads(text)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    configs = ROOT / "configs"
    yield SCHEMA, (configs / SCHEMA).read_text(encoding="utf-8") == text, "differs from the program"
    page = (configs / "REFERENCE.md").read_text(encoding="utf-8")
    yield "REFERENCE.md", page == printed("--print-reference"), "differs from the program"
    good = None
    for file in sorted(configs.glob("*.json")):
        if file.name == SCHEMA:
            continue
        config = json.loads(without_comments(file.read_text(encoding="utf-8")))
        yield f"{file.name} names it", config.get("$schema") == SCHEMA, str(config.get("$schema"))
        errors = [f"{e.json_path}: {e.message}" for e in validator.iter_errors(config)]
        yield f"{file.name} validates", not errors, "; ".join(errors)
        good = good or config
    for path, value in WRONG:
        yield f"refuses {path} = {value}", not validator.is_valid(changed(good, path, value)), path
    for path, value in RIGHT:
        yield f"takes {path} = {value}", validator.is_valid(changed(good, path, value)), path
    for section in ("model", "data", "output"):
        less = {k: v for k, v in good.items() if k != section}
        yield f"refuses none of {section}", not validator.is_valid(less), section


def main() -> int:
    """Prints and counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--medvqa", type=Path, default=ROOT / "build/cpu/medvqa")
    passed = failed = 0
    for name, holds, message in checks(parser.parse_args().medvqa):
        passed, failed = passed + bool(holds), failed + (not holds)
        print(f"ok    {name}" if holds else f"FAIL  {name}: {message}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
