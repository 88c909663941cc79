"""Text classification as a user runs it: the smoke configuration, its scores and files."""

import json

from program import Medvqa, contents, holds, metrics, succeeds
from safetensors import safe_open

EVAL_KEYS = {"event", "step", "loss", "token_accuracy", "label_tokens", "samples", "accuracy",
             "macro_f1", "f1", "confusion", "classes"}


def case_the_smoke_classification_learns(medvqa: Medvqa) -> None:
    """configs/smoke_classification.json: from the base rate to 90 % on held-out texts."""
    model, data, run = (medvqa.scratch / name for name in ("model", "data", "run"))
    succeeds(medvqa.run("init", "--preset", "tiny-llama", "--out", model))
    succeeds(medvqa.run("data", "synth", "--out", data / "reports", "--count", "1000", "--seed",
                        "7", "--size", "56", "--validation", "0.2", "--questions", "closed",
                        "--findings", "effusion", "--per-image", "1"))
    flags = ["--config", "smoke_classification.json", "--set", f"model.path={model}", "--set",
             f"output={run}"]
    here = {"environment": {"MEDVQA_DATA": str(data)}}
    before = json.loads(succeeds(medvqa.run("train", *flags, "--evaluate", **here)).out)
    holds(before["accuracy"] < 0.7, f"before: {before}")
    result = succeeds(medvqa.run("train", *flags, **here))
    holds("predicted" in result.err, f"no table: {result.err[-800:]}")
    last = metrics(run, "eval")[-1]
    holds(set(last) == EVAL_KEYS, f"keys {set(last) ^ EVAL_KEYS}")
    holds(last["accuracy"] >= 0.9 and last["macro_f1"] >= 0.9, f"after: {last}")
    holds(sum(map(sum, last["confusion"])) == last["samples"] == before["samples"], f"{last}")
    adapter = run / "adapter"
    holds("head.safetensors" in contents(adapter), "no head")
    manifest = (adapter / "manifest.json").read_text(encoding="utf-8")
    holds("head.safetensors" in manifest, "the head is not in the manifest")
    with safe_open(adapter / "head.safetensors", "numpy") as head:
        told = {key: json.loads(value) for key, value in head.metadata().items()
                if key != "format"}
        holds(list(head.keys()) == ["head.weight"], f"{list(head.keys())}")
        holds(told["labels"] == last["classes"], f"{told}")
        holds(head.get_tensor("head.weight").shape == (len(told["token_ids"]), 128), f"{told}")
    again = succeeds(medvqa.run("train", *flags, "--evaluate", "--set",
                                f"lora.init_from={adapter}", **here))
    holds(json.loads(again.out)["accuracy"] == last["accuracy"], f"again: {again.out}")
