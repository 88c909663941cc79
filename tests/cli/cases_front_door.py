"""What a run tells: report, log, curves; trying one out; looking at data before; installing."""

import json
import os
import pty
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree

from program import FIXTURE, ROOT, Medvqa, Skip, contents, fails, holds, succeeds

VALIDATION = [{"format": "jsonl", "path": str(FIXTURE / "dataset.jsonl")}]


def case_a_dry_run_writes_nothing(medvqa: Medvqa) -> None:
    """It reads, plans and reports; the sample shows what the loss is computed on."""
    config = medvqa.config()
    before = contents(medvqa.scratch)
    result = succeeds(medvqa.run("train", "--config", config, "--dry-run"))
    for part in ("device cpu", "trainable", "memory MiB", "<image x ", "[[", "<|im_end|>]]",
                 "2 optimizer steps", f"next: medvqa train --config {config}"):
        holds(part in result.err, f"no {part!r} in {result.err}")
    holds(result.out == "", f"stdout is {result.out}")
    holds(contents(medvqa.scratch) == before, "something was written")


def case_a_quiet_run_keeps_its_log(medvqa: Medvqa) -> None:
    """log.txt has report and steps whatever stderr shows, and what ended a run."""
    config = medvqa.config()
    holds(succeeds(medvqa.run("train", "--config", config, "--quiet")).err == "", "not quiet")
    log = (medvqa.output() / "log.txt").read_text(encoding="utf-8")
    for part in ("memory MiB", "step 1/2", "step 2/2", "adapter:"):
        holds(part in log, f"no {part!r} in {log}")
    file = medvqa.output() / "checkpoints/step-000002/training.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    fails(medvqa.run("train", "--config", config, "--resume", "auto"), 5, "training.safetensors")
    log = (medvqa.output() / "log.txt").read_text(encoding="utf-8")
    holds("ended by an error" in log.splitlines()[-1], log[-300:])


def case_a_resumed_run_draws_the_whole_curve(medvqa: Medvqa) -> None:
    """loss.svg is XML, and the straight run's but for the name of the folder."""
    pictures = []
    for name in ("straight", "resumed"):
        config = medvqa.config(name, train__max_steps=4, train__eval_every=2, train__keep=9,
                               data__validation=VALIDATION)
        succeeds(medvqa.run("train", "--config", config))
        if name == "resumed":
            second = medvqa.output(name) / "checkpoints/step-000002"
            (medvqa.output(name) / "loss.svg").unlink()
            succeeds(medvqa.run("train", "--config", config, "--resume", second))
        text = (medvqa.output(name) / "loss.svg").read_text(encoding="utf-8")
        ElementTree.fromstring(text)
        pictures.append(text.replace(f"Loss of {name}-run", "Loss"))
    holds(pictures[0] == pictures[1], "another picture")


def on_a_terminal(medvqa: Medvqa, environment: dict, *arguments) -> str:
    """What the command says where stderr is a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([str(medvqa.executable), *map(str, arguments)], stderr=theirs,
                          stdout=subprocess.DEVNULL,
                          env=medvqa.environment(environment)) as child:
        os.close(theirs)
        said = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:
                break
            if not part:
                break
            said += part
        holds(child.wait(60) == 0, said.decode("utf-8")[-500:])
    os.close(ours)
    return said.decode("utf-8")


def case_a_bar_on_a_terminal_only(medvqa: Medvqa) -> None:
    """With time left; without colours or none at all where the terminal or the user says so."""
    arguments = ("train", "--config", medvqa.config(train__max_steps=4), "--overwrite")
    bar = "[########################]"
    colours = on_a_terminal(medvqa, {"TERM": "xterm", "NO_COLOR": ""}, *arguments)
    holds(bar in colours and " left" in colours and "\x1b[32m[" in colours, colours[-800:])
    plain = on_a_terminal(medvqa, {"TERM": "xterm", "NO_COLOR": "1"}, *arguments)
    holds(bar in plain and "\x1b[32m" not in plain, plain[-800:])
    dumb = on_a_terminal(medvqa, {"TERM": "dumb"}, *arguments)
    holds(bar not in dumb and "step 4/4" in dumb and "\x1b" not in dumb, dumb[-800:])
    holds(on_a_terminal(medvqa, {"TERM": "xterm"}, *arguments, "--quiet") == "", "not quiet")


def case_data_check_counts(medvqa: Medvqa) -> None:
    """Rows, lengths, image tokens and leaks, as text and as JSON."""
    config = medvqa.config(data__validation=VALIDATION)
    found = json.loads(succeeds(medvqa.run("data", "check", "--config", config, "--json")).out)
    holds([s["rows"] for s in found["sources"]] == [6, 6], f"{found['sources']}")
    train = found["sets"]["train"]
    holds((train["samples"], train["images"]) == (6, 3), f"{train}")
    holds(sum(entry["samples"] for entry in train["image_tokens"]) == 6, f"{train}")
    holds(train["tokens"]["max"] <= found["max_length"] == 2048, f"{train}")
    leak = found["leaks"][0]
    holds(leak["between"] == ["train", "validation"] and (leak["images"], leak["triples"]) ==
          (3, 6), f"{leak}")
    text = succeeds(medvqa.run("data", "check", "--config", config)).out
    holds("leak: train and validation share 3 images" in text, text)
    fails(medvqa.run("data", "check", "--config", config, "--set", "data.max_length=20"), 4,
          "row 1", "data.max_length")


def case_data_check_names_every_bad_row(medvqa: Medvqa) -> None:
    """All of them, by their numbers, twenty at most in the list."""
    row = {"image": str(FIXTURE / "images/image00.jpg"), "question": "Is it?", "answer": "yes"}
    lines = [json.dumps(row), "{", json.dumps(row | {"answer": ""}),
             json.dumps(row | {"image": "no.png"}), "5",
             json.dumps(row | {"question": "<|image_pad|>"})]
    lines += [json.dumps(row | {"question": ""})] * 30
    data = medvqa.scratch / "data.jsonl"
    data.write_text("\n".join(lines), encoding="utf-8")
    config = medvqa.config(data__train=[{"format": "jsonl", "path": str(data)}])
    result = medvqa.run("data", "check", "--config", config, "--json")
    fails(result, 4, "35 bad rows", "row 2")
    bad = json.loads(result.out)["bad"]
    holds(bad["count"] == 35 and len(bad["rows"]) == 20, f"{bad['count']}, {len(bad['rows'])}")
    text = medvqa.run("data", "check", "--config", config).out
    holds("... 15 more" in text, text)
    for number in (2, 3, 4, 5):
        holds(any(f"row {number}" in line for line in bad["rows"]), f"row {number}: {bad}")


def case_an_installed_program_finds_its_configurations(medvqa: Medvqa) -> None:
    """cmake --install puts program, link, configurations and schema in place."""
    build = medvqa.executable.parent
    if not (build / "cmake_install.cmake").exists() or shutil.which("cmake") is None:
        raise Skip("the program does not lie in a build folder")
    prefix = medvqa.scratch / "prefix"
    done = subprocess.run(["cmake", "--install", build, "--prefix", prefix], text=True,
                          capture_output=True, check=False)
    holds(done.returncode == 0, done.stderr)
    shipped = {p.name for p in (ROOT / "configs").glob("*.json")}
    holds({p.name for p in (prefix / "share/medvqa/configs").glob("*.json")} == shipped,
          "other configurations")
    link = prefix / "bin/medvqa-train"
    holds(os.readlink(link) == "medvqa", "medvqa-train is no link")
    result = succeeds(medvqa.run("--config", "qwen2vl_tiny_vqarad.json", "--print-config",
                                 program=link, environment={"MEDVQA_DATA": "/d"}))
    holds(json.loads(result.out)["data"]["train"][0]["path"] == "/d/vqa-rad", result.out)
