"""Bad command lines and configurations, places that cannot be written, missing devices."""

import os
import resource
import shutil
import signal
import struct

from bad_kinds import Kind, arguments, setting, train
from program import FIXTURE, Medvqa, Skip


def config_text(name: str, text: str, *culprit: str) -> Kind:
    """A configuration file of just this text."""
    def prepare(medvqa: Medvqa):
        file = medvqa.scratch / "written.json"
        file.write_text(text, encoding="utf-8")
        return train(file)
    return Kind(name, 3, ("written.json", *culprit), prepare)


def used_output(medvqa: Medvqa):
    """The output is a run that has been finished."""
    return train(medvqa.config(), "--set", f"output={medvqa.scratch}/finished-run")


def used_output_dry(medvqa: Medvqa):
    """The same, only tried."""
    return train(medvqa.config(), "--dry-run", "--set", f"output={medvqa.scratch}/finished-run")


def file_as_output(medvqa: Medvqa):
    """The output is a regular file."""
    (medvqa.scratch / "a-file").write_text("mine", encoding="utf-8")
    return train(medvqa.config(), "--set", f"output={medvqa.scratch}/a-file")


def below_a_file(medvqa: Medvqa):
    """The output lies below a regular file."""
    (medvqa.scratch / "a-file").write_text("mine", encoding="utf-8")
    return train(medvqa.config(), "--set", f"output={medvqa.scratch}/a-file/run")


def probe_below_a_file(medvqa: Medvqa):
    """--probe below a regular file."""
    (medvqa.scratch / "a-file").write_text("mine", encoding="utf-8")
    return train(medvqa.config(), "--probe", medvqa.scratch / "a-file/p")


def read_only_folder(medvqa: Medvqa):
    """An output in a folder without write permission."""
    if os.geteuid() == 0:
        raise Skip("permissions do not bind root")
    folder = medvqa.scratch / "locked"
    folder.mkdir(mode=0o555)
    return train(medvqa.config(), "--set", f"output={folder}/run")


def proc_as_output(medvqa: Medvqa):
    """A file system that makes no folders, for root as well."""
    return train(medvqa.config(), "--set", "output=/proc/medvqa-run")


def limited(size: int):
    """In the child: files end at `size` bytes, as on a full disk."""
    def apply() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    return apply


def full_disk(medvqa: Medvqa):
    """No room for the next checkpoint of a run that goes on."""
    config = medvqa.config(train__max_steps=4)
    return train(config, "--resume", "auto", "--set", f"output={medvqa.scratch}/finished-run",
                 before=limited(20000))


def full_disk_for_init(medvqa: Medvqa):
    """No room for a random model."""
    return (("init", "--preset", "tiny-qwen2-vl", "--out", medvqa.scratch / "model"),
            {"before": limited(20000)})


def full_disk_for_probe(medvqa: Medvqa):
    """No room for a probe."""
    return train(medvqa.config(), "--probe", medvqa.scratch / "probe", before=limited(2000))


def diverging(medvqa: Medvqa):
    """A starting adapter with an infinity."""
    shutil.copytree(FIXTURE / "adapter", medvqa.scratch / "start")
    file = medvqa.scratch / "start/adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + struct.pack("<f", float("inf")))
    return train(medvqa.config(lora__init_from=str(medvqa.scratch / "start")))


def bad_environment(medvqa: Medvqa):
    """An unknown key in the environment."""
    return train(medvqa.config(), environment={"MEDVQA__TRAIN__SEDE": "1"})


def no_checkpoint(medvqa: Medvqa):
    """--resume from a folder that is none."""
    return train(medvqa.config(), "--resume", medvqa.scratch / "nowhere")


# What a run that goes on writes before its next checkpoint.
LOGS = tuple(f"finished-run/{name}" for name in (
    "config.resolved.json", "events.", "log.txt", "loss.svg", "metrics.jsonl"))
NO_START = ("--set", "lora.init_from=null")

SETTINGS = [
    arguments("no verb", (), "verb"),
    arguments("an unknown verb", ("fly",), "fly", "train"),
    arguments("an unknown flag", ("train", "--config", "CONFIG", "--fast"), "--fast"),
    arguments("no configuration", ("train",), "--config"),
    arguments("a --set without value", ("train", "--config", "CONFIG", "--set", "lora.r"),
              "lora.r", "KEY=JSON"),
    arguments("an unknown log level", ("train", "--config", "CONFIG", "--log-level", "loud"),
              "loud", "debug"),
    arguments("an unknown device of a plan", ("plan", "--config", "CONFIG", "--device", "t9"),
              "t9", "t4"),
    arguments("an unknown preset", ("init", "--preset", "huge", "--out", "x"), "huge"),
    arguments("an unknown data command", ("data", "fry"), "fry", "check"),
    Kind("a missing configuration", 3, ("no.json",), lambda medvqa: train("no.json")),
    config_text("wrong syntax", '{"output": "a",\n "task" "vqa"}', "line 2"),
    config_text("the same key twice", '{"output": "a", "output": "b"}', "output"),
    config_text("a configuration that is a list", "[]", "object"),
    config_text("nothing but blanks", " \n"),
    config_text("nesting without end", '{"lora": ' + "[" * 100 + "]" * 100 + "}"),
    config_text("no output", '{"model": {"path": "m"}, "data": {"train": [{"format": "json", '
                '"path": "d"}]}}', "output", "required"),
    config_text("an unset variable", '{"output": "${NO_SUCH_VARIABLE}"}', "NO_SUCH_VARIABLE"),
    setting("an unknown key", 3, "train.learningrate=1", "train.learningrate",
            "train.learning_rate"),
    setting("an unknown section", 3, "trian.seed=1", "trian.seed", "train.seed"),
    setting("a value of the wrong type", 3, 'lora.r="many"', "lora.r", "many"),
    setting("a value out of range", 3, "lora.dropout=1.5", "lora.dropout", "0.99"),
    setting("an impossible choice", 3, "train.schedule=step", "train.schedule", "cosine"),
    setting("null where none may be", 3, "train.seed=null", "train.seed"),
    setting("no training sources", 3, "data.train=[]", "data.train"),
    setting("an unknown key of a source", 3,
            'data.train=[{"format": "json", "path": "x", "spilt": "train"}]', "spilt"),
    setting("everything held out", 3, 'data.validation={"fraction": 1}', "data.validation"),
    setting("a regular expression that is none", 3, "lora.targets=((", "lora.targets",
            flags=NO_START),
    setting("a pattern with the patch embedding", 3, "lora.targets=.*proj", "lora.targets",
            "patch_embed", flags=NO_START),
    setting("a pattern of a hundred thousand characters", 3, "lora.targets=" + "(" * 100000,
            "lora.targets", "2000", flags=NO_START),
    setting("no linear adapted", 3, "lora.targets=nothing", "lora.targets", flags=NO_START),
    setting("a device that is none", 3, "device=abacus", "abacus"),
    setting("an unmatched brace in the prompt", 3, "data.prompt={question", "brace"),
    setting("a prompt with an unknown column", 3, "data.prompt={organ}", "organ"),
    setting("fewer pixels at most than at least", 3,
            'data.image={"min_pixels": 90000, "max_pixels": 3000}', "data.image"),
    Kind("an unknown key in the environment", 3, ("MEDVQA__TRAIN__SEDE",), bad_environment),
    Kind("an output that is in use", 3, ("finished-run", "--resume auto", "--overwrite"),
         used_output),
    Kind("an output in use, dry run", 3, ("finished-run", "--overwrite"), used_output_dry),
    Kind("an output that is a file", 3, ("a-file",), file_as_output),
    Kind("a checkpoint that is not there", 3, ("nowhere", "--resume"), no_checkpoint),
    Kind("numbers that are not finite", 7, ("step 1", "not finite"), diverging,
         may_write=("config-run",)),
    Kind("an output below a file", 8, ("a-file/run",), below_a_file),
    Kind("a probe below a file", 8, ("a-file",), probe_below_a_file),
    Kind("a folder that is locked", 8, ("locked/run",), read_only_folder),
    Kind("a place where no folder can be made", 8, ("/proc/medvqa-run",), proc_as_output),
    Kind("a full disk while training goes on", 8, ("step-000003",), full_disk,
         may_write=LOGS),
    Kind("a full disk for a new model", 8, ("model",), full_disk_for_init),
    Kind("a full disk for a probe", 8, ("probe",), full_disk_for_probe),
    setting("a device that is not built in", 9, "device=cuda", "cuda"),
]
