"""Bad data: files, rows, images, lengths."""

import json
import struct
import zlib

from bad_kinds import Kind, train
from program import FIXTURE, Medvqa

ROW = {"image": "a.png", "question": "Is it?", "answer": "yes"}


def dataset(medvqa: Medvqa, text: bytes, image: bytes | None = None, **settings):
    """data.jsonl of these bytes, a.png beside it, and a configuration that reads it."""
    (medvqa.scratch / "data.jsonl").write_bytes(text)
    whole = (FIXTURE / "images/image01.png").read_bytes()
    (medvqa.scratch / "a.png").write_bytes(whole if image is None else image)
    source = {"format": "jsonl", "path": str(medvqa.scratch / "data.jsonl")}
    return medvqa.config(**({"data__train": [source]} | settings))


def row(name: str, changes: dict, *culprit: str) -> Kind:
    """A good row, then one with these values; None takes a column out."""
    values = {k: v for k, v in (ROW | changes).items() if v is not None}
    text = (json.dumps(ROW) + "\n" + json.dumps(values)).encode()
    return Kind(name, 4, culprit, lambda medvqa: train(dataset(medvqa, text)))


def rows(name: str, text: bytes, *culprit: str) -> Kind:
    """A data file of just these bytes."""
    return Kind(name, 4, culprit, lambda medvqa: train(dataset(medvqa, text)))


def csv_rows(name: str, text: bytes, *culprit: str, **source) -> Kind:
    """A CSV file of just these bytes."""
    def prepare(medvqa: Medvqa):
        path = medvqa.scratch / "data.csv"
        path.write_bytes(text)
        return train(medvqa.config(data__train=[{"format": "csv", "path": str(path)} | source]))
    return Kind(name, 3 if source else 4, culprit, prepare)


def image(name: str, make, *culprit: str, flags: tuple = ()) -> Kind:
    """A row whose image is what `make` returns."""
    def prepare(medvqa: Medvqa):
        config = dataset(medvqa, json.dumps(ROW).encode(), make(), train__batch_size=1,
                         train__gradient_accumulation=1)
        return train(config, *flags)
    return Kind(name, 4, ("a.png", *culprit), prepare, may_write=("config-run",))


def chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(
        ">I", zlib.crc32(kind + body))


def large_png(side: int) -> bytes:
    """A header that promises a square of so many pixels, and nothing behind it."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")


def half(name: str):
    """The first half of a fixture's image."""
    def make() -> bytes:
        whole = (FIXTURE / "images" / name).read_bytes()
        return whole[:len(whole) // 2]
    return make


def source(name: str, values: dict, *culprit: str) -> Kind:
    """Another data source."""
    def prepare(medvqa: Medvqa):
        dataset(medvqa, json.dumps(ROW).encode())
        (medvqa.scratch / "empty").mkdir()
        full = values | {"path": str(medvqa.scratch / values["path"])}
        return train(medvqa.config(data__train=[full]))
    return Kind(name, 4, culprit, prepare)


def too_long(medvqa: Medvqa):
    """More tokens than data.max_length."""
    return train(dataset(medvqa, json.dumps(ROW).encode(), data__max_length=8))


def all_dropped(medvqa: Medvqa):
    """Every sample is too long and dropped."""
    return train(dataset(medvqa, json.dumps(ROW).encode(), data__max_length=8,
                         data__too_long="drop"))


def one_image_held_out(medvqa: Medvqa):
    """Nothing is left to train on."""
    return train(dataset(medvqa, json.dumps(ROW).encode(),
                         data__validation={"fraction": 0.5, "by": "image"}))


def checked_rows(medvqa: Medvqa):
    """`data check` names the first of several bad rows."""
    lines = [json.dumps(ROW), json.dumps(ROW | {"answer": ""}), "{", json.dumps(
        ROW | {"image": "b.png"})]
    config = dataset(medvqa, "\n".join(lines).encode())
    return ("data", "check", "--config", config), {}


DATA = [
    source("data that is not there", {"format": "jsonl", "path": "no.jsonl"}, "no.jsonl"),
    source("an unknown format", {"format": "oracle", "path": "data.jsonl"}, "oracle", "jsonl"),
    source("a format that is not built in", {"format": "slake", "path": "data.jsonl"}, "slake"),
    source("a folder without data", {"format": "jsonl", "path": "empty"}, "empty"),
    source("a folder that is no VQA-RAD", {"format": "vqa-rad", "path": "empty"}, "VQA-RAD"),
    rows("an empty data file", b"", "data.jsonl"),
    rows("a data file of blanks", b" \n\n", "data.jsonl"),
    rows("a row cut short", json.dumps(ROW).encode() + b'\n{"image": "a.p', "row 2"),
    rows("a row that is a list", json.dumps(ROW).encode() + b"\n[]", "row 2", "object"),
    rows("a row that is not UTF-8", b'{"image": "a.png", "question": "\xff", "answer": "a"}',
         "row 1"),
    rows("a key twice in a row", b'{"image": "a.png", "image": "b.png"}', "row 1", "image"),
    row("a row without an answer", {"answer": None}, "row 2", "answer"),
    row("an empty answer", {"answer": " "}, "row 2", "answer"),
    row("an empty question", {"question": ""}, "row 2", "question"),
    row("an answer that is a list", {"answer": ["a"]}, "row 2", "answer"),
    row("a missing image", {"image": "b.png"}, "row 2", "b.png"),
    row("an image that is a folder", {"image": "/"}, "row 2"),
    row("an image that is a number", {"image": 5}, "row 2", "image"),
    row("a placeholder in a question", {"question": "Is <|image_pad|> it?"}, "<|image_pad|>"),
    csv_rows("an empty CSV file", b"", "data.csv"),
    csv_rows("a CSV file of a header alone", b"question,answer\n", "data.csv"),
    csv_rows("a CSV file with a column twice", b"question,question\nq,a", "line 1", "twice"),
    csv_rows("a CSV file without answers", b"question,reply\nq,a", "line 2", "answer"),
    csv_rows("a CSV row that is too short", b"question,answer\nq,a\nq\n", "line 3", "1 cells"),
    csv_rows("a CSV row with an empty answer", b'question,answer\n"q\nr",a\nq,\n', "line 4"),
    csv_rows("a CSV row that is not UTF-8", b"question,answer\nq,\xe4\n", "line 2", "UTF-8"),
    csv_rows("a CSV quote that is never closed", b'question,answer\nq,"a\nq,a\n', "line 2"),
    csv_rows("a delimiter of two characters", b"question,answer\nq,a", "delimiter",
             delimiter="::"),
    image("an empty image", lambda: b""),
    image("an image that is text", lambda: b"no picture"),
    image("a picture of another kind", lambda: b"GIF89a" + bytes(50)),
    image("a truncated PNG", half("image01.png")),
    image("a truncated JPEG", half("image00.jpg")),
    image("a PNG of ten thousand million pixels", lambda: large_png(100000)),
    Kind("a sample that is too long", 4, ("data.max_length", "8"), too_long),
    Kind("nothing but samples that are too long", 4, ("data.max_length",), all_dropped),
    Kind("every image held out", 4, ("fraction",), one_image_held_out),
    Kind("bad rows in a data check", 4, ("3 bad rows", "row 3"), checked_rows),
]
