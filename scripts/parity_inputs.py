#!/usr/bin/env python3
"""Compares the tokenizer and the image processor with the reference stack, at length.

    DRIVER=build/cpu/tests/drivers/medvqa_inputs_driver
    .venv-reference/bin/python scripts/parity_inputs.py text --driver $DRIVER
    .venv-reference/bin/python scripts/parity_inputs.py sentencepiece --driver $DRIVER
    .venv-reference/bin/python scripts/parity_inputs.py images --driver $DRIVER --data $MEDVQA_DATA

text: Qwen2's and Llama-3's vocabularies, rebuilt in a temporary folder from dashscope's
qwen.tiktoken and llama-models' tokenizer.model, and strings of mixed scripts, random code points,
random bytes, marks and special tokens: ids, and offsets
wherever NFC changes nothing. sentencepiece: models trained here, in every form LlamaTokenizer reads
(ids, offsets, decoded text). images: pixels and patches of real and of drawn pictures against
Qwen2VLImageProcessorPil, tiles against MllamaImageProcessorPil, and resizing against Pillow. Exit 1
on any mismatch.
"""

import argparse
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from parity_text import check_sentencepiece, check_text

def drawn_pictures(folder, rng, np):
    """JPEG and PNG of many kinds, of noise over a gradient."""
    from PIL import Image

    def picture(w, h, channels):
        y, x = np.mgrid[0:h, 0:w]
        base = np.stack([(x * 3 + y * (c + 1)) % 256 for c in range(channels)], -1)
        return np.clip(base + rng.integers(-20, 20, base.shape), 0, 255).astype(np.uint8)

    paths = []

    def save(image, name, **options):
        paths.append(folder / f"{len(paths):03d}_{name}")
        image.save(paths[-1], **options)

    for w, h in [(64, 48), (33, 47), (101, 7), (17, 130)]:
        rgb = Image.fromarray(picture(w, h, 3))
        grey = Image.fromarray(picture(w, h, 1)[..., 0])
        cmyk = Image.frombytes("CMYK", (w, h), picture(w, h, 4).tobytes())
        for sampling in (0, 1, 2):
            for progressive in (False, True):
                for quality in (30, 75, 95):
                    options = dict(
                        quality=quality, subsampling=sampling, progressive=progressive
                    )
                    save(rgb, "rgb.jpg", **options)
        save(grey, "grey.jpg", quality=80)
        save(cmyk, "cmyk.jpg", quality=90)
        for orientation in range(1, 9):
            exif = Image.Exif()
            exif[0x0112] = orientation
            save(rgb, f"turned{orientation}.jpg", quality=90, exif=exif)
            save(rgb, f"turned{orientation}.png", exif=exif)
        save(rgb, "rgb.png")
        save(Image.fromarray(picture(w, h, 4), "RGBA"), "rgba.png")
        save(Image.fromarray(picture(w, h, 2), "LA"), "la.png")
        save(grey, "grey.png")
        save(grey.convert("1"), "bilevel.png")
        for colours in (2, 4, 16, 200):
            save(rgb.quantize(colours), f"palette{colours}.png")
        save(rgb.quantize(16), "transparent.png", transparency=3)
        save(rgb, "transparent_rgb.png", transparency=(0, 1, 2))
        save(rgb, "rgb.bmp")
        save(grey, "grey.bmp")
        save(rgb.quantize(16), "palette.bmp")
        save(grey.convert("1"), "bilevel.bmp")
    return paths


def read_answer(stream, np):
    head = json.loads(stream.readline())
    if "error" in head:
        return head
    take = lambda count, dtype: np.frombuffer(
        stream.read(count * np.dtype(dtype).itemsize), dtype
    )
    (w, h), (rw, rh), (_, gh, gw) = head["size"], head["resized"], head["grid"]
    head["rgb"] = take(w * h * 3, np.uint8).reshape(h, w, 3)
    head["scaled"] = take(rw * rh * 3, np.uint8).reshape(rh, rw, 3)
    head["patches"] = take(gh * gw * 1176, np.float32).reshape(-1, 1176)
    return head


def compare_images(driver, paths, name, max_pixels):
    import numpy as np
    from PIL import Image, ImageOps
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    processor = Qwen2VLImageProcessorPil(min_pixels=3136, max_pixels=max_pixels)
    wrong = {"decoded": 0, "resized": 0, "patches": 0, "grids": 0, "refused": 0}
    values = 0
    process = subprocess.Popen(
        [driver, "images", str(max_pixels)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    for path in paths:
        process.stdin.write(json.dumps(str(path)).encode() + b"\n")
        process.stdin.flush()
        answer = read_answer(process.stdout, np)
        if "error" in answer:
            wrong["refused"] += 1
            print(answer["error"])
            continue
        image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        expected = processor(images=[image], return_tensors="np")
        rh, rw = answer["scaled"].shape[:2]
        scaled = np.asarray(image.resize((rw, rh), Image.Resampling.BICUBIC))
        patches = np.asarray(expected["pixel_values"])
        values += patches.size
        bad = {
            "decoded": not np.array_equal(np.asarray(image), answer["rgb"]),
            "resized": not np.array_equal(scaled, answer["scaled"]),
            "patches": patches.tobytes() != answer["patches"].tobytes(),
            "grids": expected["image_grid_thw"].tolist() != [answer["grid"]],
        }
        for key, is_bad in bad.items():
            wrong[key] += is_bad
        if any(bad.values()) and sum(wrong.values()) < 40:
            print("differs:", path, [k for k, v in bad.items() if v])
    process.stdin.close()
    process.wait()
    print(f"{name}: {len(paths)} pictures, {values} patch values, mismatches {wrong}")
    return sum(wrong.values())


def compare_tiles(driver, paths, name, side):
    import numpy as np
    from PIL import Image, ImageOps
    from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

    processor = MllamaImageProcessorPil(
        size={"height": side, "width": side}, image_mean=[0.48145466, 0.4578275, 0.40821073],
        image_std=[0.26862954, 0.26130258, 0.27577711])  # fmt: skip
    process = subprocess.Popen(
        [driver, "tiles", str(side)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    bad = tiles = 0
    for path in paths:
        process.stdin.write(json.dumps(str(path)).encode() + b"\n")
        process.stdin.flush()
        _, high, wide = json.loads(process.stdout.readline())["grid"]
        count = high * wide // (side // 14) ** 2
        found = process.stdout.read(count * 3 * side * side * 4)
        image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        expected = processor(images=[[image]], return_tensors="np")
        known = expected["num_tiles"][0][0]
        pixels = np.ascontiguousarray(expected["pixel_values"][0, 0, :known])
        tiles += known
        if known != count or pixels.tobytes() != found:
            bad += 1
            print("differs:", path)
    process.stdin.close()
    process.wait()
    print(f"{name}: {len(paths)} pictures, {tiles} tiles of {side} pixels, {bad} mismatches")
    return bad


def compare_resizes(driver, folder, count, rng, np):
    from PIL import Image

    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC,
               "lanczos": Image.Resampling.LANCZOS}  # fmt: skip
    bad = 0
    for name, code in filters.items():
        jobs, expected = [], []
        for i in range(count):
            w, h, nw, nh = (int(x) for x in np.exp(rng.uniform(0, np.log(300), 4)))
            if i % 10 == 0:
                w, h = max(1, w // 30), h * 5
            image = Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8))
            path = folder / f"{name}{i}.png"
            image.save(path, compress_level=1)
            jobs.append(json.dumps([str(path), nw, nh]))
            expected.append(image.resize((nw, nh), code).tobytes())
        run = subprocess.run(
            [driver, "resize", name], input="\n".join(jobs).encode(), stdout=subprocess.PIPE,
            check=True,
        )  # fmt: skip
        stream = io.BytesIO(run.stdout)
        wrong = 0
        for job, pixels in zip(jobs, expected):
            stream.readline()
            if stream.read(len(pixels)) != pixels:
                wrong += 1
                if wrong <= 3:
                    print("differs:", job)
        print(f"resize {name}: {count} random shapes, {wrong} mismatches")
        bad += wrong
    return bad


def check_images(args):
    import numpy as np

    rng = np.random.default_rng(args.seed)
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        bad += compare_resizes(args.driver, folder, args.resizes, rng, np)
        drawn = drawn_pictures(folder, rng, np)
        bad += compare_images(args.driver, drawn, "drawn", 1003520)
        bad += compare_tiles(args.driver, drawn, "drawn", 28)
    if not args.data:
        print("MEDVQA_DATA is not set: the real pictures are left out")
        return bad
    data = pathlib.Path(args.data)
    for name, pattern in [
        ("VQA-RAD", "vqa-rad/images/*"),
        ("ChestX-ray14", "nih-chestxray14/images/*.png"),
        ("ChestX-ray14, 64 pixels", "nih-chestxray14/small/**/*.png"),
    ]:
        paths = sorted(data.glob(pattern))
        begin = time.monotonic()
        bad += compare_tiles(args.driver, paths, name, 560)
        print(f"{time.monotonic() - begin:.0f} s for the tiles", flush=True)
        for max_pixels in (12845056, 200704):
            bad += compare_images(args.driver, paths, f"{name} at {max_pixels}", max_pixels)
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["text", "sentencepiece", "images"])
    parser.add_argument("--driver", required=True)
    parser.add_argument("--count", type=int, default=100_000, help="strings")
    parser.add_argument("--resizes", type=int, default=1_000, help="random resizes a filter")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", default=os.environ.get("MEDVQA_DATA"))
    args = parser.parse_args()
    checks = {"text": check_text, "sentencepiece": check_sentencepiece, "images": check_images}
    bad = checks[args.what](args)
    print("mismatches in all:", bad)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
