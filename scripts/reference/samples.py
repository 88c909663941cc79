"""Drawn training samples: images of many sizes and file kinds, questions and answers.

A data set is a folder with images/ and dataset.jsonl, one {"image", "question", "answer"} a line.
"""

import json
import random
from pathlib import Path

import numpy as np
from PIL import Image

KINDS = ["jpeg_rgb", "jpeg_grey", "png_rgb", "png_rgba", "png_palette", "png_grey",
         "jpeg_progressive", "jpeg_turned", "png_grey_alpha", "png_grey16", "jpeg_cmyk",
         "png_bilevel", "png_palette_transparent"]
SIZES = [(96, 96), (61, 83), (40, 220), (250, 33), (128, 75), (28, 28), (17, 30), (140, 181),
         (300, 211), (73, 72)]  # width, height in pixels
WORDS = ("is there evidence of a pneumothorax in the left lung what modality was used CT MRI x-ray "
         "effusion heart size normal lesion upper lobe ring-enhancing basal ganglia T2-weighted "
         "FLAIR don't it's 3.5cm 12 mm (arrow) right/left").split()
FOREIGN = ["Öffnung", "cafe\u0301", "épanchement", "肺炎", "結節はどこ", "грудная", "فتق", "🫁", "µm",
           "5–7", "½", "\u1e9b\u0323", "x²", "हृदय", "<b>", "{question}", "|im_end|"]


def draw_image(kind: str, size: tuple[int, int], seed: int) -> Image.Image:
    """A picture of blobs, stripes and noise; `size` is (width, height)."""
    rng = np.random.default_rng(seed)
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    channels = []
    for _ in range(4):
        cx, cy, radius = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(8, 60)
        blob = 150 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / radius**2)
        stripes = 40 * np.sin(x / rng.uniform(2, 20) + y / rng.uniform(2, 20))
        channels.append(60 + blob + stripes + rng.normal(0, 12, x.shape))
    pixels = np.clip(np.round(np.stack(channels, -1)), 0, 255).astype(np.uint8)
    if kind in ("jpeg_grey", "png_grey"):
        return Image.fromarray(pixels[..., 0])
    if kind == "png_grey16":
        wide = np.clip(channels[0] * 257 + rng.normal(0, 90, x.shape), 0, 65535)
        return Image.fromarray(wide.astype(np.uint16))
    if kind == "png_grey_alpha":
        return Image.merge("LA", [Image.fromarray(pixels[..., i]) for i in (0, 3)])
    if kind == "png_rgba":
        return Image.merge("RGBA", [Image.fromarray(pixels[..., i]) for i in range(4)])
    if kind == "jpeg_cmyk":
        return Image.merge("CMYK", [Image.fromarray(pixels[..., i]) for i in range(4)])
    picture = Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
    if kind.startswith("png_palette"):
        return picture.quantize(colors=64, dither=Image.Dither.NONE)
    return picture.convert("1") if kind == "png_bilevel" else picture


def write_image(kind: str, size: tuple[int, int], seed: int, folder: Path, stem: str) -> str:
    """Writes an image of that kind and returns its file name."""
    picture = draw_image(kind, size, seed)
    options: dict = {}
    if kind.startswith("jpeg"):
        options = {"quality": 80 + seed % 16}
        if kind == "jpeg_rgb":
            options["subsampling"] = seed % 3
        if kind == "jpeg_progressive":
            options["progressive"] = True
        if kind == "jpeg_turned":
            exif = Image.Exif()
            exif[0x0112] = 2 + seed % 7
            options["exif"] = exif
    if kind == "png_palette_transparent":
        options["transparency"] = seed % 64
    name = stem + (".jpg" if kind.startswith("jpeg") else ".png")
    picture.save(folder / name, **options)
    return name


def draw_text(rng: random.Random, low: int, high: int) -> str:
    """Between `low` and `high` words, some foreign, with uneven spacing inside."""
    count = rng.randint(low, high)
    words = [rng.choice(FOREIGN) if rng.random() < 0.15 else rng.choice(WORDS)
             for _ in range(count)]
    text = words[0]
    for word in words[1:]:
        text += rng.choice([" "] * 12 + ["  ", "\n", ", ", "   ", "\n\n ", "\t"]) + word
    return text


def write_dataset(seed: int, count: int, folder: Path, kinds: list[str] | None = None,
                  sizes: list[tuple[int, int]] | None = None,
                  text_only: bool = False) -> list[dict]:
    """Writes `count` samples, all kinds and sizes in turn from a drawn start; returns the rows.

    With `text_only` some have no image; the first always has one.
    """
    rng = random.Random(seed * 1000003 + 17)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    kinds = kinds or rng.sample(KINDS, len(KINDS))
    sizes = sizes or rng.sample(SIZES, len(SIZES))
    rows = []
    for i in range(count):
        if text_only and i > 0 and rng.random() < 0.25:
            image = None
        elif i >= 3 and rng.random() < 0.2:
            # Several questions on one image.
            image = rng.choice([row["image"] for row in rows if "image" in row])
        else:
            image = write_image(kinds[i % len(kinds)], sizes[i % len(sizes)], seed % 2**20 + i,
                                folder / "images", f"image{i:02d}")
        row = {"question": draw_text(rng, 3, 14) + rng.choice(["?", ""]),
               "answer": draw_text(rng, 1, 5)}
        rows.append(({"image": image} if image else {}) | row)
    write_rows(rows, rng, folder)
    return rows


def write_texts(seed: int, count: int, folder: Path) -> None:
    """Writes `count` samples without images, some with blanks around question and answer."""
    rng = random.Random(seed * 1000003 + 19)

    def draw(low: int, high: int) -> str:
        ends = [rng.choice(["", "", "", " ", "\n", "\t ", "\u3000", "\u00a0", "\x1d"])
                for _ in range(2)]
        return ends[0] + draw_text(rng, low, high) + ends[1]

    rows = [{"question": draw(3, 14), "answer": draw(1, 5)} for _ in range(count)]
    write_rows(rows, rng, folder)


def write_rows(rows: list[dict], rng: random.Random, folder: Path) -> None:
    """folder/dataset.jsonl, other letters than ASCII in one spelling or the other."""
    lines = [json.dumps(row, ensure_ascii=rng.random() < 0.5) for row in rows]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_dataset(folder: Path) -> list[dict]:
    """The rows of folder/dataset.jsonl."""
    lines = (folder / "dataset.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]
