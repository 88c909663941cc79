"""Every documented exit code, each with one line that names the culprit."""

import json
import resource
import shutil
import signal
from pathlib import Path

from program import FIXTURE, Medvqa, contents, fails, holds, succeeds


def case_usage_errors_are_2(medvqa: Medvqa) -> None:
    """Unknown verbs and flags, missing and malformed arguments."""
    config = medvqa.config()
    for arguments, culprit in (
            ((), "verb"), (("fly",), "fly"), (("train",), "--config"),
            (("train", "--config", config, "--fast"), "--fast"),
            (("train", "--config", config, "extra"), "extra"),
            (("train", "--config", config, "--set", "train.seed"), "train.seed"),
            (("train", "--config", config, "--log-level", "loud"), "loud"),
            (("plan", "--config", config, "--yaml"), "--yaml"),
            (("init", "--out", medvqa.scratch / "x"), "--preset"),
            (("init", "--preset", "huge", "--out", medvqa.scratch / "x"), "huge"),
            (("init", "--preset", "tiny-qwen2-vl"), "--out"),
            (("init", "--preset", "tiny-qwen2-vl", "--out", medvqa.scratch / "x",
              "--quantization", "int3"), "int3"),
            (("init", "--preset", "tiny-qwen2-vl", "--out", medvqa.scratch / "x",
              "--seed", "many"), "many")):
        fails(medvqa.run(*arguments), 2, culprit)
    holds(not (medvqa.scratch / "x").exists(), "a wrong command line made a folder")


def case_configuration_errors_are_3(medvqa: Medvqa) -> None:
    """A missing file, unknown keys, values of wrong type, range or choice, wrong syntax."""
    config = medvqa.config()
    fails(medvqa.run("train", "--config", medvqa.scratch / "no.json"), 3, "no.json")
    for setting, parts in (
            ("train.sede=1", ("train.sede", "train.seed")),
            ("train.seed=-1", ("train.seed", "-1")),
            ('train.seed="x"', ("train.seed", "x")),
            ("train.schedule=step", ("train.schedule", "linear")),
            ("lora.r=0", ("lora.r", "0")),
            ("data.train=[]", ("data.train",)),
            ("data.validation={}", ("data.validation",)),
            ("lora.targets=((", ("lora.targets", "((")),
            ("lora.targets=nothing", ("lora.targets",)),
            ("device=abacus", ("device", "abacus"))):
        extra = () if not setting.startswith("lora.targets") else ("--set", "lora.init_from=null")
        fails(medvqa.run("train", "--config", config, "--set", setting, *extra), 3, *parts)
    fails(medvqa.run("train", "--config", config, environment={"MEDVQA__TRAIN__SEDE": "1"}), 3,
          "MEDVQA__TRAIN__SEDE")
    broken = medvqa.scratch / "broken.json"
    broken.write_text('{"output": "a",\n "task" "vqa"}', encoding="utf-8")
    fails(medvqa.run("train", "--config", broken), 3, "broken.json", "line 2")
    broken.write_text('{"output": "${NO_SUCH_VARIABLE}"}', encoding="utf-8")
    fails(medvqa.run("train", "--config", broken), 3, "NO_SUCH_VARIABLE")
    fails(medvqa.run("plan", "--config", config, "--set", "train.sede=1"), 3, "train.sede")
    holds(not medvqa.output().exists(), "a wrong configuration made the output folder")


def case_a_used_output_is_3_and_untouched(medvqa: Medvqa) -> None:
    """The error names both ways out, and every byte stays."""
    config = medvqa.config()
    succeeds(medvqa.run("train", "--config", config))
    (medvqa.output() / "note.txt").write_text("mine", encoding="utf-8")
    before = contents(medvqa.output())
    fails(medvqa.run("train", "--config", config), 3, str(medvqa.output()), "--resume auto",
          "--overwrite")
    holds(contents(medvqa.output()) == before, "the folder was touched")
    succeeds(medvqa.run("train", "--config", config, "--overwrite"))
    after = contents(medvqa.output())
    holds(after["note.txt"] == before["note.txt"], "--overwrite removed a file of the user's")
    name = "adapter/adapter_model.safetensors"
    holds(after[name] == before[name], "the same run gave another adapter")


def case_data_errors_are_4(medvqa: Medvqa) -> None:
    """Missing and broken images, empty and broken data sets, samples that are too long."""
    line = {"image": "a.png", "question": "Is it?", "answer": "yes"}
    data = medvqa.scratch / "data.jsonl"
    config = medvqa.config(data__train=[{"format": "jsonl", "path": str(data)}])

    def refused(text: str, *parts: str) -> None:
        data.write_text(text, encoding="utf-8")
        fails(medvqa.run("train", "--config", config), 4, *parts)

    refused(json.dumps(line), "a.png")
    (medvqa.scratch / "a.png").write_bytes(b"no picture")
    refused(json.dumps(line), "a.png")
    whole = (FIXTURE / "images/image01.png").read_bytes()
    (medvqa.scratch / "a.png").write_bytes(whole[:len(whole) // 2])
    refused(json.dumps(line), "a.png")
    (medvqa.scratch / "a.png").write_bytes(whole)
    refused("", "data.jsonl")
    refused(json.dumps(line) + "\n{", "data.jsonl", "2")
    refused(json.dumps(line | {"answer": ""}), "data.jsonl", "answer")
    refused(json.dumps(line | {"question": "<|image_pad|>"}), "<|image_pad|>")
    refused(json.dumps(line | {"question": "why " * 3000}), "2048")
    data.unlink()
    fails(medvqa.run("train", "--config", config), 4, "data.jsonl")
    fails(medvqa.run("train", "--config", config, "--set",
                     f'data.train=[{{"format": "oracle", "path": "{data}"}}]'), 4, "oracle")
    holds(not medvqa.output().exists(), "broken data made the output folder")


def copied_model(medvqa: Medvqa) -> Path:
    """The fixture's checkpoint, to be damaged."""
    model = medvqa.scratch / "model"
    shutil.rmtree(model, ignore_errors=True)
    shutil.copytree(FIXTURE / "checkpoint", model)
    return model


def case_model_errors_are_5(medvqa: Medvqa) -> None:
    """Missing weights and files, truncated weights, another vocabulary, an unknown family."""
    config = medvqa.config(model__path=str(medvqa.scratch / "model"))

    def refused(*parts: str) -> None:
        fails(medvqa.run("train", "--config", config), 5, *parts)

    refused("model")
    model = copied_model(medvqa)
    weights = (model / "model.safetensors").read_bytes()
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        copied_model(medvqa)
        (model / name).unlink()
        refused(name)
    copied_model(medvqa)
    for size in (len(weights) - 1, 1000, 4, 0):
        (model / "model.safetensors").write_bytes(weights[:size])
        refused("model.safetensors")
    copied_model(medvqa)
    good = json.loads((model / "config.json").read_text(encoding="utf-8"))
    for change, part in (({"vocab_size": 300}, "300"), ({"vocab_size": 400}, "embed_tokens"),
                         ({"model_type": "llama_9"}, "llama_9"), ({"hidden_size": -48}, "-48"),
                         ({"num_hidden_layers": 3}, "layers.2")):
        (model / "config.json").write_text(json.dumps(good | change), encoding="utf-8")
        refused(part)
    fails(medvqa.run("train", "--config", config, "--set", "model.path=Nobody/Nothing",
                     environment={"HF_HOME": str(medvqa.scratch)}), 5, "hf download")
    holds(not medvqa.output().exists(), "a broken model made the output folder")


def case_adapter_errors_are_5(medvqa: Medvqa) -> None:
    """An adapter of another model, a missing one, a truncated one."""
    config = medvqa.config()
    other = medvqa.scratch / "other"
    succeeds(medvqa.run("init", "--preset", "tiny-qwen2-vl", "--out", other))
    fails(medvqa.run("train", "--config", config, "--set", f"model.path={other}"), 5, "adapter")
    adapter = medvqa.scratch / "adapter"
    fails(medvqa.run("train", "--config", config, "--set", f"lora.init_from={adapter}"), 5,
          str(adapter))
    shutil.copytree(FIXTURE / "adapter", adapter)
    weights = (adapter / "adapter_model.safetensors").read_bytes()
    (adapter / "adapter_model.safetensors").write_bytes(weights[:-8])
    fails(medvqa.run("train", "--config", config, "--set", f"lora.init_from={adapter}"), 5,
          "adapter_model.safetensors")


def case_damaged_checkpoints_are_5(medvqa: Medvqa) -> None:
    """--resume from a truncated checkpoint; the folder stays as it is but for the log."""
    config = medvqa.config()
    succeeds(medvqa.run("train", "--config", config))
    shutil.rmtree(medvqa.output() / "adapter")
    file = medvqa.output() / "checkpoints/step-000002/training.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    before = contents(medvqa.output() / "checkpoints")
    fails(medvqa.run("train", "--config", config, "--resume", "auto"), 5, "training.safetensors")
    holds(contents(medvqa.output() / "checkpoints") == before, "checkpoints changed")
    fails(medvqa.run("train", "--config", config, "--resume", "/no/such"), 3, "/no/such")


def case_divergence_is_7(medvqa: Medvqa) -> None:
    """An adapter with an infinity: stop before the update, nothing saved."""
    adapter = medvqa.scratch / "adapter"
    shutil.copytree(FIXTURE / "adapter", adapter)
    file = adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"\x00\x00\x80\x7f")
    config = medvqa.config(lora__init_from=str(adapter))
    fails(medvqa.run("train", "--config", config), 7, "step 1", "not finite")
    holds(not (medvqa.output() / "adapter").exists(), "an adapter was written")
    holds(not (medvqa.output() / "checkpoints").exists(), "a checkpoint was written")


def case_unwritable_places_are_8(medvqa: Medvqa) -> None:
    """Folders below a regular file."""
    file = medvqa.scratch / "file"
    file.write_text("x", encoding="utf-8")
    config = medvqa.config()
    fails(medvqa.run("train", "--config", config, "--set", f"output={file}/run"), 8,
          f"{file}/run")
    for option in ("--probe", "--probe-inputs"):
        fails(medvqa.run("train", "--config", config, option, file / "p"), 8, str(file))
    fails(medvqa.run("init", "--preset", "tiny-qwen2-vl", "--out", file / "m"), 8, str(file))
    holds(file.read_text(encoding="utf-8") == "x", "the file was touched")


def small_disk(limit: int):
    """In the child: no file may grow beyond `limit` bytes; a write fails as on a full disk."""
    def apply() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    return apply


def case_a_full_disk_is_8_and_keeps_what_was_there(medvqa: Medvqa) -> None:
    """Writes that fail midway leave the last checkpoint whole and no half file."""
    config = medvqa.config(train__max_steps=4)
    succeeds(medvqa.run("train", "--config", config, "--set", "train.max_steps=2"))
    shutil.rmtree(medvqa.output() / "adapter")
    before = contents(medvqa.output() / "checkpoints")
    result = medvqa.run("train", "--config", config, "--resume", "auto", before=small_disk(20000))
    fails(result, 8, "step-000003")
    holds(contents(medvqa.output() / "checkpoints") == before, "checkpoints changed")
    succeeds(medvqa.run("train", "--config", config, "--resume", "auto"))
    model = medvqa.scratch / "model"
    fails(medvqa.run("init", "--preset", "tiny-qwen2-vl", "--out", model,
                     before=small_disk(20000)), 8, "model")
    holds(not [p for p in medvqa.scratch.iterdir() if "model" in p.name], "half a model is left")


def case_a_device_that_is_not_built_in_is_9(medvqa: Medvqa) -> None:
    """A CPU build says so."""
    if "cuda: " in medvqa.run("--version").out:
        return
    for device in ("cuda", "cuda:1"):
        fails(medvqa.run("train", "--config", medvqa.config(), "--set", f"device={device}"), 9,
              device)
