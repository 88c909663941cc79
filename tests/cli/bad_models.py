"""Bad models, adapters and checkpoints."""

import json
import shutil
import struct
from pathlib import Path

from bad_kinds import Kind, train
from program import FIXTURE, Medvqa, succeeds


def model(name: str, damage, *culprit: str) -> Kind:
    """A copy of the fixture's checkpoint after `damage(folder)`."""
    def prepare(medvqa: Medvqa):
        folder = medvqa.scratch / "model"
        shutil.copytree(FIXTURE / "checkpoint", folder)
        damage(folder)
        return train(medvqa.config(model__path=str(folder)))
    return Kind(name, 5, culprit, prepare)


def sentencepiece(name: str, damage, *culprit: str) -> Kind:
    """A random llama with a SentencePiece tokenizer after `damage(folder)`."""
    def prepare(medvqa: Medvqa):
        folder, files = medvqa.scratch / "model", FIXTURE.parent / "text/sentencepiece"
        succeeds(medvqa.run("init", "--preset", "tiny-llama", "--out", folder))
        (folder / "tokenizer.json").unlink()
        shutil.copy(files / "tokenizer.model", folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config["vocab_size"] = 640
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        damage(folder)
        return train(medvqa.config(model__path=str(folder), task="text", lora__init_from=None))
    return Kind(name, 5, culprit, prepare)


def adapter(name: str, damage, *culprit: str) -> Kind:
    """A copy of the fixture's adapter after `damage(folder)`."""
    def prepare(medvqa: Medvqa):
        folder = medvqa.scratch / "start"
        shutil.copytree(FIXTURE / "adapter", folder)
        damage(folder)
        return train(medvqa.config(lora__init_from=str(folder)))
    return Kind(name, 5, culprit, prepare)


def checkpoint(name: str, damage, *culprit: str, flags: tuple = (), code: int = 5) -> Kind:
    """The finished run's last checkpoint after `damage(folder)`, resumed into another output."""
    def prepare(medvqa: Medvqa):
        folder = medvqa.scratch / "finished-run/checkpoints/step-000002"
        damage(folder)
        return train(medvqa.config(), "--resume", folder, *flags)
    may_write = ("config-run",) if code == 5 else ()
    return Kind(name, code, ("step-000002", *culprit), prepare, may_write=may_write)


def cut(file: str, size: int):
    """Leaves the first `size` bytes, or takes -`size` from the end."""
    def damage(folder: Path) -> None:
        (folder / file).write_bytes((folder / file).read_bytes()[:size])
    return damage


def flipped(file: str):
    """Changes one bit in the middle."""
    def damage(folder: Path) -> None:
        data = bytearray((folder / file).read_bytes())
        data[len(data) // 2] ^= 0x10
        (folder / file).write_bytes(data)
    return damage


def text(file: str, content: str):
    """Replaces a file."""
    return lambda folder: (folder / file).write_text(content, encoding="utf-8")


def without(file: str):
    """Removes a file."""
    return lambda folder: (folder / file).unlink()


def values(file: str, **changes):
    """Changes members of a JSON file."""
    def damage(folder: Path) -> None:
        old = json.loads((folder / file).read_text(encoding="utf-8"))
        (folder / file).write_text(json.dumps(old | changes), encoding="utf-8")
    return damage


def header(change):
    """Rewrites the header of model.safetensors after change(header)."""
    def damage(folder: Path) -> None:
        file = folder / "model.safetensors"
        data = file.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        entries = json.loads(data[8:8 + size])
        new = change(entries).encode()
        file.write_bytes(struct.pack("<Q", len(new)) + new + data[8 + size:])
    return damage


def tensors(entries: dict) -> list[dict]:
    """The entries that are tensors, by place."""
    found = [v for k, v in entries.items() if k != "__metadata__"]
    return sorted(found, key=lambda v: v["data_offsets"][0])


def overlapping(entries: dict) -> str:
    """The second tensor begins a little before the first ends."""
    second = tensors(entries)[1]["data_offsets"]
    second[0] -= 2
    return json.dumps(entries)


def beyond_the_end(entries: dict) -> str:
    """The last tensor ends behind the file."""
    last = tensors(entries)[-1]
    last["data_offsets"][1] += 4096
    return json.dumps(entries)


def overflowing(entries: dict) -> str:
    """A shape whose product does not fit 64 bits."""
    tensors(entries)[0]["shape"] = [1 << 62, 1 << 62]
    return json.dumps(entries)


def twice(entries: dict) -> str:
    """The first name a second time."""
    name = next(k for k in entries if k != "__metadata__")
    return json.dumps(entries)[:-1] + f", {json.dumps(name)}: {json.dumps(entries[name])}}}"


def another_type(entries: dict) -> str:
    """A type there is none of."""
    tensors(entries)[0]["dtype"] = "F7"
    return json.dumps(entries)


def long_header(folder: Path) -> None:
    """A header of 2^60 bytes."""
    file = folder / "model.safetensors"
    file.write_bytes(struct.pack("<Q", 1 << 60) + file.read_bytes()[8:])


def hub_id(medvqa: Medvqa):
    """A Hub id that has not been downloaded."""
    return train(medvqa.config(), "--set", "model.path=Nobody/Nothing",
                 environment={"HF_HOME": str(medvqa.scratch)})


def no_model(medvqa: Medvqa):
    """A folder that is not there."""
    return train(medvqa.config(model__path=str(medvqa.scratch / "nothing")))


def no_adapter(medvqa: Medvqa):
    """A starting adapter that is not there."""
    return train(medvqa.config(lora__init_from=str(medvqa.scratch / "nothing")))


def adapter_of_another_model(medvqa: Medvqa):
    """The fixture's adapter on a model of another shape."""
    succeeds(medvqa.run("init", "--preset", "tiny-qwen2-vl", "--out", medvqa.scratch / "other"))
    return train(medvqa.config(model__path=str(medvqa.scratch / "other")))


def windows(key: str, value):
    """The small Qwen2.5-VL with another value in its vision_config."""
    def prepare(medvqa: Medvqa):
        folder = medvqa.scratch / "windows"
        succeeds(medvqa.run("init", "--preset", "tiny-qwen2-5-vl", "--out", folder))
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config["vision_config"][key] = value
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return train(medvqa.config(model__path=str(folder), lora__init_from=None))
    return Kind(f"{key} {value}", 5, (f"vision_config.{key}", json.dumps(value).replace(" ", "")), prepare)


def other_rows(medvqa: Medvqa):
    """A run whose data file changes before it goes on."""
    data = medvqa.scratch / "rows.jsonl"
    rows = (FIXTURE / "dataset.jsonl").read_text(encoding="utf-8").replace(
        '"image0', f'"{FIXTURE}/images/image0')
    data.write_text(rows, encoding="utf-8")
    config = medvqa.config(data__train=[{"format": "jsonl", "path": str(data)}])
    succeeds(medvqa.run("train", "--config", config))
    data.write_text(rows.replace("modality", "nodality", 1), encoding="utf-8")
    return train(config, "--resume", "auto")


WEIGHTS, ADAPTER = "model.safetensors", "adapter_model.safetensors"
MODELS = [
    Kind("a model that is not there", 5, ("nothing",), no_model),
    Kind("a Hub id that is not in the cache", 5, ("Nobody/Nothing", "hf download"), hub_id),
    model("no weights", without(WEIGHTS), WEIGHTS),
    model("no config.json", without("config.json"), "config.json"),
    model("no tokenizer", without("tokenizer.json"), "tokenizer.json"),
    model("weights without their end", cut(WEIGHTS, -1), WEIGHTS),
    model("weights of four bytes", cut(WEIGHTS, 4), WEIGHTS),
    model("empty weights", cut(WEIGHTS, 0), WEIGHTS),
    model("a header longer than the file", long_header, WEIGHTS),
    model("a header that is no JSON", header(lambda entries: "{" * 64), WEIGHTS),
    model("tensors that overlap", header(overlapping), WEIGHTS),
    model("a tensor beyond the end", header(beyond_the_end), WEIGHTS),
    model("a shape that overflows", header(overflowing), WEIGHTS),
    model("a tensor's name twice", header(twice), WEIGHTS),
    model("an unknown type of values", header(another_type), WEIGHTS, "F7"),
    model("a config.json cut short", cut("config.json", 40), "config.json"),
    sentencepiece("a tokenizer.model that is none", text("tokenizer.model", "no model"),
                  "tokenizer.model"),
    sentencepiece("a tokenizer.model cut short", cut("tokenizer.model", 2000), "tokenizer.model"),
    sentencepiece("a SentencePiece model without a chat template",
                  text("tokenizer_config.json", "{}"), "chat_template", "Llama 2", "TinyLlama"),
    sentencepiece("a chat template nobody knows",
                  text("tokenizer_config.json", '{"chat_template": "{{ messages }}"}'),
                  "chat_template"),
    model("an unknown family", values("config.json", model_type="llama_9"), "llama_9"),
    model("more layers than weights", values("config.json", num_hidden_layers=3), "layers.2"),
    model("a negative width", values("config.json", hidden_size=-48), "-48"),
    model("a vocabulary that is too small", values("config.json", vocab_size=300), "300"),
    model("positions of an unknown kind",
          values("config.json", rope_scaling={"type": "yarn", "mrope_section": [2, 3, 3]}),
          "rope_type", "yarn"),
    windows("window_size", 20),
    windows("fullatt_block_indexes", ["last"]),
    windows("out_hidden_size", 64),
    model("a tokenizer that is none", text("tokenizer.json", "{}"), "tokenizer.json"),
    model("patches of another size", values("preprocessor_config.json", patch_size=7),
          "patch_size"),
    Kind("an adapter that is not there", 5, ("nothing",), no_adapter),
    Kind("an adapter of another model", 5, ("adapter",), adapter_of_another_model),
    adapter("an adapter without its end", cut(ADAPTER, -8), ADAPTER),
    adapter("an adapter without configuration", without("adapter_config.json"),
            "adapter_config.json"),
    adapter("an adapter of another kind", values("adapter_config.json", peft_type="IA3"), "IA3"),
    checkpoint("a checkpoint without its end", cut("training.safetensors", -100),
               "training.safetensors"),
    checkpoint("a checkpoint whose state is no JSON", text("state.json", "{"), "state.json"),
    checkpoint("a checkpoint with one bit changed", flipped("training.safetensors"),
               "training.safetensors", "altered", "--resume"),
    checkpoint("a checkpoint without its manifest", without("manifest.json"), "manifest.json"),
    checkpoint("a checkpoint of another optimizer", lambda folder: None, "train.optimizer",
               "adamw8bit", "--allow-changes", flags=("--set", "train.optimizer=adamw"), code=3),
    checkpoint("a checkpoint of another seed", lambda folder: None, "train.seed", "--allow-changes",
               flags=("--set", "train.seed=1"), code=3),
    checkpoint("a checkpoint of a longer run", lambda folder: None, "2 steps are done",
               "train.max_steps", flags=("--set", "train.max_steps=1"), code=3),
    checkpoint("an optimizer changed with permission", lambda folder: None, "another model",
               flags=("--set", "train.optimizer=adamw", "--allow-changes")),
    Kind("a checkpoint of other data", 4, ("data.train", "have changed"), other_rows),
]
