"""Bad classifications: classes, their tokens, labels, models, heads."""

import json
import shutil

from bad_kinds import Kind, train
from program import Medvqa, succeeds

ROWS = [{"text": f"Report {i}.", "label": str(i % 2)} for i in range(4)]


def texts(medvqa: Medvqa, rows=None, **settings):
    """A tiny llama, texts.jsonl of these rows, and a configuration that classifies them."""
    model = medvqa.scratch / "llama"
    if not model.exists():
        succeeds(medvqa.run("init", "--preset", "tiny-llama", "--out", model))
    lines = [json.dumps(row) for row in (ROWS if rows is None else rows)]
    (medvqa.scratch / "texts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    source = {"format": "jsonl", "path": str(medvqa.scratch / "texts.jsonl")}
    values = {"task": "classification", "model__path": str(model), "lora__init_from": None,
              "data__train": [source], "data__prompt": "{text}",
              "classification__classes": {"0": "A", "1": "B"}}
    return medvqa.config(**(values | settings))


def kind(name: str, code: int, *culprit: str, rows=None, **settings) -> Kind:
    """That configuration with other rows or settings."""
    return Kind(name, code, culprit, lambda medvqa: train(texts(medvqa, rows, **settings)))


def another_head(medvqa: Medvqa):
    """lora.init_from a run with the classes the other way round."""
    start = medvqa.scratch / "start"
    config = texts(medvqa, output=str(medvqa.scratch / "first"))
    succeeds(medvqa.run("train", "--config", config))
    shutil.move(medvqa.scratch / "first/adapter", start)
    shutil.rmtree(medvqa.scratch / "first")
    return train(texts(medvqa, lora__init_from=str(start),
                       classification__classes={"1": "B", "0": "A"}))


def processor_of_another_kind(medvqa: Medvqa):
    """A tokenizer.json whose post_processor is not understood."""
    config = texts(medvqa)
    file = medvqa.scratch / "llama/tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["post_processor"] = {"type": "BertProcessing", "sep": ["x", 1], "cls": ["y", 2]}
    file.write_text(json.dumps(content), encoding="utf-8")
    return train(config)


CLASSES = [
    Kind("a classification with a model that has eyes", 3, ("qwen2_vl", "llama"),
         lambda medvqa: train(medvqa.config(task="classification"))),
    kind("a single class", 3, "classification.classes", "at least two",
         classification__classes={"0": "A"}),
    kind("a class of several tokens", 3, "\" maybe\"", "exactly one",
         classification__classes={"0": "A", "1": " maybe"}),
    kind("two classes with one token", 3, "\"A\"", "of its own",
         classification__classes={"0": "A", "1": "A"}),
    kind("a label that is no class", 4, "\"2\"", "0, 1",
         rows=ROWS + [{"text": "x", "label": 2}]),
    kind("a row without its class", 4, "row 5", "\"label\"", rows=ROWS + [{"text": "x"}]),
    Kind("a head of other classes", 5, ("head.safetensors", "classification.classes"),
         another_head),
    Kind("a post-processor that is not understood", 5, ("tokenizer.json", "post_processor"),
         processor_of_another_kind),
]
