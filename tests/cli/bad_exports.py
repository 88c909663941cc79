"""Exports that cannot be made."""

import json
import shutil
from pathlib import Path

from bad_kinds import Kind, arguments
from bad_models import ADAPTER, WEIGHTS, cut, flipped, text, values, without
from bad_settings import limited
from program import FIXTURE, Medvqa, succeeds

BASE = ("--base", FIXTURE / "checkpoint")


def export(name: str, code: int, *culprit: str, flags: tuple = (), out: str = "out", before=None,
           damage=None) -> Kind:
    """The finished run's export after `damage(scratch)`."""
    def prepare(medvqa: Medvqa):
        if damage:
            damage(medvqa.scratch)
        options = {"before": before} if before else {}
        return ("export", "--run", medvqa.scratch / "finished-run", "--out",
                medvqa.scratch / out, *flags), options
    return Kind(name, code, culprit, prepare)


def of_adapter(name: str, damage, *culprit: str, code: int = 5, flags: tuple = BASE) -> Kind:
    """A copy of the fixture's adapter after `damage(folder)`."""
    def prepare(medvqa: Medvqa):
        folder = medvqa.scratch / "start"
        shutil.copytree(FIXTURE / "adapter", folder)
        damage(folder)
        return ("export", "--adapter", folder, "--out", medvqa.scratch / "out", *flags), {}
    return Kind(name, code, culprit, prepare)


def of_base(name: str, damage, *culprit: str) -> Kind:
    """A copy of the fixture's checkpoint after `damage(folder)`."""
    def prepare(medvqa: Medvqa):
        folder = medvqa.scratch / "base"
        shutil.copytree(FIXTURE / "checkpoint", folder)
        damage(folder)
        return ("export", "--adapter", FIXTURE / "adapter", "--base", folder, "--out",
                medvqa.scratch / "out"), {}
    return Kind(name, 5, culprit, prepare)


def another_model(medvqa: Medvqa):
    """The finished run's adapter on a model of another shape."""
    succeeds(medvqa.run("init", "--preset", "tiny-qwen2-vl", "--out", medvqa.scratch / "other"))
    return ("export", "--run", medvqa.scratch / "finished-run", "--base",
            medvqa.scratch / "other", "--out", medvqa.scratch / "out"), {}


def moved_base(scratch: Path) -> None:
    """The run's base lies where it no longer is."""
    file = scratch / "finished-run/config.resolved.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["model"]["path"] = "/gone/checkpoint"
    file.write_text(json.dumps(config), encoding="utf-8")


def used(name: str):
    """Puts a file of the user's into the output folder."""
    def damage(scratch: Path) -> None:
        (scratch / "out").mkdir()
        (scratch / "out" / name).write_text("mine", encoding="utf-8")
    return damage


def a_file(scratch: Path) -> None:
    """A file where a folder is to be."""
    (scratch / "a-file").write_text("mine", encoding="utf-8")


EXPORTS = [
    arguments("an export of nothing", ("export", "--out", "x"), "--run", "--adapter"),
    arguments("an export of a run and an adapter",
              ("export", "--run", "a", "--adapter", "b", "--out", "x"), "--run", "--adapter"),
    arguments("an export to nowhere", ("export", "--run", "a"), "--out"),
    arguments("an export in another form", ("export", "--run", "a", "--out", "x", "--form", "gguf"),
              "--form", "gguf"),
    arguments("an export in f32", ("export", "--run", "a", "--out", "x", "--dtype", "f32"),
              "--dtype", "f32"),
    arguments("an export in files of no size",
              ("export", "--run", "a", "--out", "x", "--max-shard-size", "0GB"),
              "--max-shard-size"),
    arguments("old keys for merged weights",
              ("export", "--run", "a", "--out", "x", "--key-style", "legacy"), "--key-style",
              "--form"),
    arguments("a type for an adapter", ("export", "--run", "a", "--out", "x", "--form", "adapter",
                                        "--dtype", "f16"), "--dtype", "--form"),
    export("an export into a used folder", 3, "out", "not empty", "--overwrite",
           damage=used("precious")),
    export("an export over what is no export", 3, "out", "no earlier export",
           flags=("--overwrite",), damage=used("manifest.json")),
    export("an export into the adapter it reads", 3, "which is read",
           out="finished-run/adapter/merged"),
    export("an export over the adapter it reads", 3, "which is read", out="finished-run/adapter",
           flags=("--overwrite",)),
    Kind("an export of no run", 3, ("config.resolved.json", "--adapter"), lambda medvqa: (
        ("export", "--run", medvqa.scratch, "--out", medvqa.scratch / "out"), {})),
    export("an export of a run without its adapter", 5, "no adapter", "--resume auto",
           damage=lambda scratch: shutil.rmtree(scratch / "finished-run/adapter")),
    export("an export whose base has moved", 5, "/gone/checkpoint", "--base", damage=moved_base),
    Kind("an export to another base", 5, ("another model",), another_model),
    of_adapter("an exported adapter whose base is not named", lambda folder: None, "--base",
               flags=()),
    of_adapter("an exported adapter without its end", cut(ADAPTER, -8), ADAPTER),
    of_adapter("an exported adapter that is none", text("adapter_config.json", "{"),
               "adapter_config.json"),
    of_adapter("an exported adapter with DoRA", values("adapter_config.json", use_dora=True),
               "use_dora"),
    export("an exported adapter with one bit changed", 5, ADAPTER, "altered", damage=lambda scratch:
           flipped(ADAPTER)(scratch / "finished-run/adapter")),
    of_base("an export to a base without weights", without(WEIGHTS), WEIGHTS),
    of_base("an export to a base without its end", cut(WEIGHTS, -1), WEIGHTS),
    export("an export below a file", 8, "a-file", out="a-file/out", damage=a_file),
    export("a full disk for an export", 8, "out", before=limited(20000)),
]
