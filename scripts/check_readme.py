#!/usr/bin/env python3
"""Holds README.md against the tree.

Files named exist; files that runs read or write are named in the sources; functions of the tour
occur in the file named before them; verbs, options, exit codes, configuration, modules, pinned
versions and bars are those of the sources, none missing. Ends in `N passed, N failed`.
"""

import argparse
import ast
import json
import re
import sys
from pathlib import Path

import check_layers

ROOT = Path(__file__).resolve().parent.parent
SUFFIX = r"\.(?:cpp|h|py|sh|txt|json|jsonl|md|safetensors|cmake)"
PATH = re.compile(rf"[\w.*-]+(?:/[\w.*-]+)*{SUFFIX}|[\w.*-]+/(?:[\w.*-]+/?)*|LICENSE")
NAME = re.compile(r"(?:(\w+)::)?(\w+|operator\(\))(?:\(\))?")
KEY = re.compile(r"(?:model|lora|data|train|classification)(?:\.[a-z_]+)+")
TABLE_KEY = re.compile(r'\{"([\w.]+)",\s*K::\w+,\s*(?:R"\((.*?)\)"|"((?:\\.|[^"\\])*)"),'
                       r'\s*\w+,[^{]*\{([^}]*)\}')
RESULTS: list[tuple[bool, str]] = []


def expect(good: object, text: str) -> None:
    """One case; `text` says what is wrong when it fails."""
    RESULTS.append((bool(good), text))


def expect_same(what: str, told: set, true: set) -> None:
    """README and sources list the same things."""
    expect(true, f"{what}: found none in the sources")
    for item in sorted(told | true, key=str):
        expect(item in told, f"{what}: README lacks {item}")
        expect(item in true, f"{what}: README has {item}, the sources do not")


def source(path: str) -> str:
    """The text of a file of the tree, empty if there is none."""
    return (ROOT / path).read_text(encoding="utf-8") if (ROOT / path).is_file() else ""


def rows(readme: str, head: str) -> list[list[str]]:
    """The cells of the table whose first heading is `head`."""
    found = re.search(rf"^\| {re.escape(head)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", readme, re.M)
    lines = found[1].splitlines() if found else []
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def quoted(text: str) -> list[str]:
    """What stands in backticks, fenced blocks left out."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))


def check_paths(readme: str) -> None:
    """Files of the tree exist; files of runs and models are named in the sources."""
    ignored = {line.strip("/\n") for line in source(".gitignore").splitlines()}
    files = [*(ROOT / "src").rglob("*.cpp"), *(ROOT / "include").rglob("*.h")]
    code = "".join(f.read_text(encoding="utf-8") for f in files)
    shown = re.findall(r"(?<![\w/`])(?:\./)?((?:scripts|configs)/\w[\w./-]*)", readme)
    for path in shown + [p for p in quoted(readme) if PATH.fullmatch(p)]:
        if path.split("/")[0] not in ignored:
            named = "/" not in path and f'"{path}"' in code
            expect(named or list(ROOT.glob(path.rstrip("/"))), f"{path} does not exist")


def check_commands(readme: str) -> None:
    """Verbs, options and presets, in the tables and in the command lines shown."""
    cmake = {p["name"] for p in json.loads(source("CMakePresets.json"))["configurePresets"]}
    verbs = set(re.findall(r'verb == "(\w+)"', source("src/app/run.cpp"))) - {"help"}
    options = {o for f in (ROOT / "src/app").glob("*.cpp") for o in re.findall(
        r'add_(?:option|flag)\(\s*"(--[\w-]+)"', f.read_text(encoding="utf-8"))}
    expect_same("verb", {r[0].strip("`") for r in rows(readme, "verb")}, verbs)
    expect_same("option", {o for r in rows(readme, "option") for o in quoted(r[0])}, options)
    shown = "".join(re.findall(r"^```sh\n(.*?)^```", readme, re.S | re.M))
    for part in re.split(r"\n|&&", shown.replace("\\\n", "")):
        for preset in re.findall(r"--preset ([\w-]+)", part):
            known = cmake if "cmake" in part else source("src/train/presets.cpp").split('"')
            expect(preset in known, f"unknown preset {preset} in: {part.strip()}")
        found = re.match(r"\s*build/cpu/medvqa(-train)? (?:(\w+) )?", part)
        for option in re.findall(r"--[\w-]+", part) if found else []:
            expect(option in options, f"unknown option {option} in: {part.strip()}")
        expect(not found or found[1] or found[2] in verbs, f"unknown verb in: {part.strip()}")


def check_configuration(readme: str) -> None:
    """Keys, defaults and choices against the one table of configuration keys."""
    true, choices, told, table = {}, {}, {}, source("src/train/config_table.cpp")
    for key, raw, text, words in TABLE_KEY.findall(table):
        value = raw or json.loads(f'"{text}"')
        true[key] = json.dumps(json.loads(value)) if value else "required"
        choices[key] = re.findall(r'"(\w+)"', words)
    for names, default, meaning in rows(readme, "key"):
        default = default.strip("`")
        for key in quoted(names):
            told[key] = default if default == "required" else json.dumps(json.loads(default))
            for choice in choices.get(key, []):
                expect(f"`{choice}`" in meaning, f"{key}: the choice {choice} is not named")
    expect(len(true) == table.count("K::"), "not every key of the sources could be read")
    expect_same("configuration key", set(told.items()), set(true.items()))
    for key in (k for k in quoted(readme) if KEY.fullmatch(k) and not PATH.fullmatch(k)):
        expect(key in true, f"no configuration key {key}")


def occurs(name: str, path: str) -> bool:
    """Whether a file has `name`; Class::function may also stand inside its class."""
    text, (owner, member) = source(path), NAME.fullmatch(name).groups()
    if not owner:
        return bool(re.search(rf"\b{member}\b", text))
    call, inside = re.escape(member) + r"\s*\(", rf"\b(?:class|struct) {owner}\b"
    return bool(re.search(rf"\b{owner}::{call}|{inside}(?=.*?{call})", text, re.S))


def check_tour(readme: str) -> None:
    """Every name occurs in the file beside it, or named before it in the same step."""
    tour = readme.partition("\n## How one training step runs\n")[2].partition("\n## ")[0]
    chain, _, steps = tour.partition("**Before")
    told = [line.split()[:2] for line in re.findall(r"^.*\.(?:cpp|h) .*$", chain, re.M)]
    for step in re.split(r"\n(?=\d+\. )", steps):
        path = ""
        for word in quoted(step):
            path = word if PATH.fullmatch(word) else path
            told += [[word, path]] if NAME.fullmatch(word) else []
    for name, path in told:
        expect(occurs(name, path), f"tour: {name} does not occur in {path or 'any file'}")
    numbers = re.findall(r"^(\d+)\. ", steps, re.M)
    expect(numbers == [str(i) for i in range(1, 14)] and len(told) > 50, f"tour: steps {numbers}")


def check_tables(readme: str) -> None:
    """Exit codes, modules, pinned versions and bars."""
    codes = source("include/medvqa/core/error.h").partition("enum class ExitCode")[2]
    expect_same("exit code", {(r[1].strip("`"), r[0]) for r in rows(readme, "exit code")},
                set(re.findall(r"(\w+) = (\d+)", codes.partition("}")[0])))
    built = {m for m in check_layers.TABLE if m != "app" and any(
        (ROOT / folder).is_dir() for folder in (f"src/{m}", m))}
    told = {r[0].strip("`"): r[1] for r in rows(readme, "module")}
    expect_same("module", set(told), built)
    for module in sorted(built & set(told)):
        true = check_layers.TABLE[module] & built | {""}
        expect_same(f"what {module} may include", {"", *told[module].split(", ")}, true)
    pins = re.findall(r"^([\w-]+)==([\d.]+)", source("scripts/requirements-reference.txt"), re.M)
    stated = readme.partition("\nThe reference is")[2].partition("\n\n")[0]
    expect_same("pinned version", set(re.findall(r"([\w-]+)\s(\d+\.\d+\.\d+)", stated)), set(pins))
    bars = [n.value for n in ast.parse(source("scripts/reference/compare.py")).body
            if isinstance(n, ast.Assign) and n.targets[0].id == "BARS"]
    expect_same("bar", {(r[0].strip("`"), float(r[1])) for r in rows(readme, "bar")},
                set(ast.literal_eval(bars[0]).items()))


def failures(readme: str) -> list[str]:
    """What is wrong with a README."""
    RESULTS.clear()
    for check in (check_paths, check_commands, check_configuration, check_tour, check_tables):
        check(readme)
    return [text for good, text in RESULTS if not good]


PLANTS = """`src/nn/linear.cpp` => `src/nn/linears.cpp` ;; `tokenizer.json` => `tokens.json` ;;
cases_*.cpp => case_*.cpp ;; ./scripts/install => ./scripts/instal ;; cmake --preset cpu => cmake
--preset gpu ;; init --preset tiny => init --preset small ;; medvqa init -- => medvqa make -- ;;
nf4 --out => nf4 --to ;; | `plan` | ;; | `plan` | => | `eval` | ;; | `--probe` | ;; | `--json` =>
| `--yaml` ;; | 9 | `device` | ;; | 7 | `diverged` => | 8 | `diverged` ;; | `train.seed` | ;;
`train.seed` | `3407` => `train.seed` | `3408` ;; `lora.mlp` => `lora.ffn` ;; | `output` | required
=> | `output` | `"runs"` ;; `cosine` => `sine` ;; `data.prompt` as => `data.prompts` as ;;
`Trainer::step` => `Trainer::stride` ;; run_pass => run_past ;; `Tape::grad` => `Tape::slope` ;;
`epoch_order` => `pack_order` ;; 7. **Splice => **Splice ;; image, text, io => image, models, io ;;
| `nn` | ;; torch 2.11.0 => torch 2.12.0 ;; peft 0.21.2, => peft, ;; | 2e-5 | => | 2e-6 |"""


def self_test(readme: str) -> int:
    """Every planted error (`text => replacement`, or a text whose line goes) is found."""
    before, missed, plants = set(failures(readme)), 0, " ".join(PLANTS.split()).split(" ;; ")
    for plant in plants:
        text, arrow, replacement = plant.partition(" => ")
        pattern = re.escape(text) + ("" if arrow else r".*\n")
        planted, count = re.subn(pattern, lambda _, r=replacement: r, readme, count=1)
        if count == 0 or not set(failures(planted)) - before:
            missed += 1
            print(f"self-test: not noticed: {plant}")
    print(f"check_readme self-test: {len(plants) - missed} passed, {missed} failed")
    return 1 if missed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--self-test", action="store_true", help="prove that it can fail")
    readme = source("README.md")
    if parser.parse_args().self_test:
        return self_test(readme)
    wrong = failures(readme)
    print("\n".join(wrong + [f"{len(RESULTS) - len(wrong)} passed, {len(wrong)} failed"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
