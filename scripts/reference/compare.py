"""Comparison of probe tensors and training records, and the table of differences.

Measures: exact = number of differing elements; relative = max|a - b| / max|b|;
norm = |a - b| / |b|, both over the whole tensor, in f64. b is the expected side.
"""

import numpy as np

BARS = {
    "pixel_values": 1e-6,   # relative; grey levels are compared exactly beside it
    "logits": 5e-6,         # relative
    "loss": 5e-6,           # relative
    "gradient": 2e-5,       # norm, each adapter tensor by itself
    "step_loss": 1e-4,      # relative, ten optimizer steps
    "step_grad_norm": 1e-3,  # relative
    "adapter": 1e-3,        # norm, after ten optimizer steps
    # norm of what ten steps changed in a trained head: f32 moments in the place of 8-bit ones, or
    # the other way round, come to 1e-2 and more, rounding to 1.3e-3 at most (40 seeds)
    "head_change": 4e-3,
}
EXACT = ["input_ids", "cu_seqlens", "labels", "position_ids", "logit_rows"]
EXACT_OF_IMAGES = ["image_grid_thw", "aspect_ratio_ids", "num_tiles"]  # as far as expected
PROBE_DTYPES = {"input_ids": "int64", "cu_seqlens": "int32", "labels": "int64",
                "position_ids": "int64", "pixel_values": "float32", "image_grid_thw": "int64",
                "aspect_ratio_ids": "int64", "num_tiles": "int64",
                "logit_rows": "int64", "logits": "float32", "loss": "float32"}
IMAGE_MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
IMAGE_STD = np.array([0.26862954, 0.26130258, 0.27577711])


class Table:
    """Rows of quantity, difference, bar and verdict; every row with a bar is a test case."""

    def __init__(self, title: str):
        self.title, self.rows = title, []

    def at_most(self, name: str, difference: float, bar: float) -> None:
        """A case that passes when the difference is a number and not above the bar."""
        self.rows.append((name, f"{difference:.2e}", f"{bar:.0e}", bool(difference <= bar)))

    def holds(self, name: str, found: object, good: bool) -> None:
        """A case with a plain verdict; `found` is printed."""
        self.rows.append((name, str(found), "", bool(good)))

    def note(self, name: str, value: object) -> None:
        """A line without a verdict."""
        self.rows.append((name, f"{value:.2e}" if isinstance(value, float) else str(value), "",
                          None))

    @property
    def passed(self) -> int:
        return sum(row[3] is True for row in self.rows)

    @property
    def failed(self) -> int:
        return sum(row[3] is False for row in self.rows)

    def print(self) -> None:
        width = max([len(row[0]) for row in self.rows], default=0)
        print(f"\n{self.title}")
        verdicts = {True: "ok", False: "FAILED", None: ""}
        for name, difference, bar, good in self.rows:
            print(f"  {name:<{width}}  {difference:>10}  {bar:>7}  {verdicts[good]}".rstrip())


def relative(actual: np.ndarray, expected: np.ndarray) -> float:
    """max|a - b| / max|b|; inf when the shapes differ or a is not finite."""
    if actual.shape != expected.shape or not np.all(np.isfinite(actual)):
        return float("inf")
    if actual.size == 0:
        return 0.0
    a, b = actual.astype(np.float64), expected.astype(np.float64)
    largest = float(np.max(np.abs(b)))
    difference = float(np.max(np.abs(a - b)))
    return difference / largest if largest > 0 else (0.0 if difference == 0 else float("inf"))


def norm(actual: np.ndarray, expected: np.ndarray) -> float:
    """|a - b| / |b|; inf when the shapes differ or a is not finite."""
    if actual.shape != expected.shape or not np.all(np.isfinite(actual)):
        return float("inf")
    a, b = actual.astype(np.float64), expected.astype(np.float64)
    length = float(np.linalg.norm(b))
    difference = float(np.linalg.norm(a - b))
    return difference / length if length > 0 else (0.0 if difference == 0 else float("inf"))


def grey_levels(pixel_values: np.ndarray) -> np.ndarray:
    """The 8-bit values behind normalised patches [P, 1176] or tiles [tiles, 3, H, W]: within a row
    the channels come one after another."""
    patches = pixel_values.astype(np.float64).reshape(len(pixel_values), 3, -1)
    levels = (patches * IMAGE_STD[:, None] + IMAGE_MEAN[:, None]) * 255
    return np.round(levels).astype(np.int64)


def compare_inputs(table: Table, actual: dict, expected: dict, prefix: str = "") -> None:
    """The first seven probe tensors: everything exact, pixels exact before normalisation."""
    of_images = [name for name in EXACT_OF_IMAGES if name in expected]
    for name in EXACT + of_images:
        if name not in actual:
            table.holds(prefix + name, "absent", False)
        elif actual[name].shape != expected[name].shape:
            shapes = f"{list(actual[name].shape)} for {list(expected[name].shape)}"
            table.holds(prefix + name, shapes, False)
        elif str(actual[name].dtype) != PROBE_DTYPES[name]:
            table.holds(prefix + name, actual[name].dtype, False)
        else:
            count = int(np.sum(actual[name] != expected[name]))
            table.holds(prefix + name, f"{count} differ", count == 0)
    if not of_images:
        table.holds(prefix + "no images", "as expected", "pixel_values" not in actual)
        return
    a, b = actual.get("pixel_values"), expected["pixel_values"]
    if a is None or a.shape != b.shape:
        table.holds(prefix + "pixel_values", "absent" if a is None else list(a.shape), False)
        return
    count = int(np.sum(grey_levels(a) != grey_levels(b)))
    table.holds(prefix + "pixels before normalisation", f"{count} differ", count == 0)
    table.at_most(prefix + "pixel_values", relative(a, b), BARS["pixel_values"])


def compare_results(table: Table, actual: dict, expected: dict, prefix: str = "",
                    bars: dict | None = None) -> None:
    """Logits, loss and the gradient of every adapter tensor; the worst gradient is shown."""
    bars = bars or BARS
    for name in ("logits", "loss"):
        found = actual.get(name)
        difference = float("inf") if found is None else relative(found, expected[name])
        table.at_most(prefix + name, difference, bars[name])
    keys = {k for k in expected if k.startswith("grad.")}
    found = {k for k in actual if k.startswith("grad.")}
    table.holds(prefix + "gradient names", f"{len(keys ^ found)} differ", keys == found)
    if keys & found:
        worst = max((norm(actual[k], expected[k]), k) for k in keys & found)
        bad = sum(norm(actual[k], expected[k]) > bars["gradient"] for k in keys & found)
        table.at_most(f"{prefix}worst of {len(keys)} gradients", worst[0], bars["gradient"])
        if bad:
            table.note(f"{prefix}  {bad} above the bar, worst", worst[1])


def compare_bits(table: Table, name: str, actual: dict, expected: dict) -> None:
    """Loss, logits and gradients bit for bit."""
    keys = [k for k in expected if k.startswith("grad.") or k in ("loss", "logits")]
    different = [k for k in keys if k not in actual or actual[k].shape != expected[k].shape
                 or actual[k].tobytes() != expected[k].tobytes()]
    table.holds(name, f"{len(different)} of {len(keys)} tensors differ", not different)


def compare_training(table: Table, actual: list[dict], expected: list[dict]) -> None:
    """Step records of metrics.jsonl against the reference's."""
    if len(actual) != len(expected):
        table.holds("optimizer steps", f"{len(actual)} for {len(expected)}", False)
        return
    def worst(key: str) -> float:
        return max(relative(np.array([a[key]], dtype=np.float64), np.array([b[key]]))
                   for a, b in zip(actual, expected))
    count = sum(a["label_tokens"] != b["label_tokens"] for a, b in zip(actual, expected))
    table.holds("label tokens of each step", f"{count} differ", count == 0)
    table.at_most("learning rate of each step", worst("learning_rate"), 1e-9)
    table.at_most(f"loss of {len(expected)} steps", worst("loss"), BARS["step_loss"])
    table.at_most("gradient norm of each step", worst("grad_norm"), BARS["step_grad_norm"])


def compare_adapter(table: Table, actual: dict, expected: dict) -> None:
    """The trained adapter: same names, f32, and close."""
    table.holds("adapter names", f"{len(set(actual) ^ set(expected))} differ",
                set(actual) == set(expected))
    shared = set(actual) & set(expected)
    if shared:
        worst = max(norm(actual[k], expected[k]) for k in shared)
        table.at_most("trained adapter, worst tensor", worst, BARS["adapter"])
