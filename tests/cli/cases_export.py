"""medvqa export."""

import json
import signal
import subprocess
import time

from bad_classes import texts
from program import FIXTURE, Medvqa, contents, fails, holds, succeeds
from safetensors.numpy import load_file

FROM_FIXTURE = ("export", "--adapter", FIXTURE / "adapter", "--base", FIXTURE / "checkpoint")


def names_in(file) -> set[str]:
    """Tensor names of a file; bf16 has no numpy type, so the header is read."""
    data = file.read_bytes()
    header = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])
    return {name for name in header if name != "__metadata__"}


def case_export_of_a_run(medvqa: Medvqa) -> None:
    """A run's merged export trains on; the same command gives the same bytes."""
    succeeds(medvqa.run("train", "--config", medvqa.config()))
    out = medvqa.scratch / "merged"
    result = succeeds(medvqa.run("export", "--run", medvqa.output(), "--out", out))
    holds(result.out.strip() == str(out), f"stdout is {result.out}")
    holds("of their values changed" in result.err, result.err)
    base = {n for n in names_in(FIXTURE / "checkpoint/model.safetensors")
            if n.count(".weight.") == 0}
    holds(names_in(out / "model.safetensors") == base, "names differ from the base's")
    again = medvqa.scratch / "again" / "merged"
    succeeds(medvqa.run("export", "--run", medvqa.output(), "--out", again))
    holds(contents(again) == contents(out), "the same export gave other bytes")
    before = contents(out)
    fails(medvqa.run("export", "--run", medvqa.output(), "--out", out), 3, "--overwrite")
    holds(contents(out) == before, "the refused export changed something")
    succeeds(medvqa.run("export", "--run", medvqa.output(), "--out", out, "--overwrite", "--dtype",
                        "f16", "--max-shard-size", "50KB"))
    index = json.loads((out / "model.safetensors.index.json").read_text(encoding="utf-8"))
    holds(set(index["weight_map"]) == base, "the index names other tensors")
    holds(set(index["weight_map"].values()) == {p.name for p in out.glob("model-*")}, f"{index}")
    holds(not (out / "model.safetensors").exists(), "the first export's file is still there")
    onward = medvqa.config("onward", model__path=str(out), lora__init_from=None)
    succeeds(medvqa.run("train", "--config", onward))


def case_export_of_an_adapter(medvqa: Medvqa) -> None:
    """Old and new keys; both go back into medvqa with the same loss."""
    losses = []
    for style in ("current", "legacy"):
        out = medvqa.scratch / style
        succeeds(medvqa.run(*FROM_FIXTURE, "--out", out, "--form", "adapter", "--key-style", style))
        keys = set(load_file(out / "adapter_model.safetensors"))
        old = "base_model.model.visual.blocks.0.attn.qkv.lora_A.weight" in keys
        holds(old == (style == "legacy"), f"{style}: {sorted(keys)[:2]}")
        config = medvqa.config(style, lora__init_from=str(out))
        succeeds(medvqa.run("train", "--config", config, "--set", "train.max_steps=1"))
        line = (medvqa.output(style) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0]
        losses.append(json.loads(line)["loss"])
    holds(losses[0] == losses[1], f"losses {losses}")


def case_llama_exports_carry_their_terms(medvqa: Medvqa) -> None:
    """NOTICE, model card, and what has to be known before the model is handed on."""
    base = medvqa.scratch / "base"
    succeeds(medvqa.run("init", "--preset", "tiny-mllama", "--out", base, "--quantization", "nf4"))
    data = medvqa.scratch / "rows.jsonl"
    data.write_text(json.dumps({"question": "Is it?", "answer": "yes"}) + "\n", encoding="utf-8")
    config = medvqa.config("llama", model__path=str(base), lora__init_from=None,
                           data__train=[{"format": "jsonl", "path": str(data)}])
    succeeds(medvqa.run("train", "--config", config, "--set", "train.warmup_steps=0", "--set",
                        "lora.vision=false", "--set", "train.learning_rate=0.01"))
    out = medvqa.scratch / "my-model"
    told = succeeds(medvqa.run("export", "--run", medvqa.output("llama"), "--out", out)).err
    for part in ("Llama 3.2 Community License", "European Union", "begins with Llama", "my-model",
                 "no LICENSE"):
        holds(part in told, f"{part!r} is not in: {told}")
    holds("Llama 3.2 Community License" in (out / "NOTICE").read_text(encoding="utf-8"), "NOTICE")
    card = (out / "README.md").read_text(encoding="utf-8")
    for part in ("Built with Llama.", "license: llama3.2", "8-bit AdamW"):
        holds(part in card, f"{part!r} is not in: {card}")
    (base / "LICENSE").write_text("LLAMA 3.2 COMMUNITY LICENSE AGREEMENT\n", encoding="utf-8")
    named = medvqa.scratch / "Llama-3.2-mine"
    told = succeeds(medvqa.run("export", "--run", medvqa.output("llama"), "--out", named)).err
    holds("begins with Llama" not in told and "no LICENSE" not in told, told)
    holds((named / "LICENSE").exists(), "LICENSE was not copied")
    tensors = names_in(named / "model.safetensors")
    holds("language_model.model.embed_tokens.weight" in tensors, f"{sorted(tensors)[:3]}")


def case_a_trained_classifier_goes_out(medvqa: Medvqa) -> None:
    """The head of a classification run: score.weight of a Llama, or rows of a whole head."""
    config = texts(medvqa, train__warmup_steps=0)
    succeeds(medvqa.run("train", "--config", config))
    run = medvqa.output()
    head = load_file(run / "adapter/head.safetensors")["head.weight"]
    merged, full = medvqa.scratch / "merged", medvqa.scratch / "full"
    succeeds(medvqa.run("export", "--run", run, "--out", merged))
    names = names_in(merged / "model.safetensors")
    holds("score.weight" in names and "lm_head.weight" not in names, f"{sorted(names)[-3:]}")
    written = json.loads((merged / "config.json").read_text(encoding="utf-8"))
    holds(written["architectures"] == ["LlamaForSequenceClassification"] and
          written["id2label"] == {"0": "0", "1": "1"}, f"{written}")
    succeeds(medvqa.run("export", "--run", run, "--out", full, "--form", "adapter"))
    weight = load_file(full / "lm_head.safetensors")["lm_head.weight"]
    holds(head.tobytes() in weight.tobytes(), "the head's rows are not in the whole one")
    again = texts(medvqa, lora__init_from=str(full), output=str(medvqa.scratch / "again"))
    succeeds(medvqa.run("train", "--config", again))


def case_a_killed_export_leaves_nothing(medvqa: Medvqa) -> None:
    """SIGTERM takes what was begun away; what SIGKILL leaves goes with the next export."""
    base, adapter = medvqa.scratch / "base", medvqa.scratch / "adapter-run"
    succeeds(medvqa.run("init", "--preset", "smoke-qwen2-vl", "--out", base))
    config = medvqa.config("adapter", model__path=str(base), lora__init_from=None)
    succeeds(medvqa.run("train", "--config", config, "--set", "train.warmup_steps=0", "--set",
                        "train.max_steps=1"))
    out = medvqa.scratch / "out"
    command = [str(medvqa.executable), "export", "--run", str(adapter), "--out", str(out)]
    for number in (signal.SIGTERM, signal.SIGKILL):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                 env=medvqa.environment())
        end = time.monotonic() + 60
        while time.monotonic() < end and child.poll() is None:
            if list(medvqa.scratch.glob(".tmp-out-*/.tmp-model*")):
                child.send_signal(number)
                break
            time.sleep(0.0005)
        code = child.wait(60)
        if code == 0:  # it was through before the signal came
            holds((out / "manifest.json").exists(), "an export that ended is not there")
            return
        left = list(medvqa.scratch.glob(".tmp-out-*"))
        holds(not out.exists(), "a killed export is there")
        if number == signal.SIGTERM:
            holds(code == 128 + signal.SIGTERM, f"exit {code}")
            holds(not left, f"left behind: {left}")
    succeeds(medvqa.run("export", "--run", adapter, "--out", out))
    holds(not list(medvqa.scratch.glob(".tmp-out-*")), "leftovers of a killed export")
