"""Figures of vs_reference.py: medians, work against the ceiling, rows of its table, verdicts.

A run is {"seconds": of every step, "peak": GB, "first_step": seconds since the start} and, of
medvqa under --profile, "operations": {name: (seconds, GFLOP)}; or {"missing": why it did not run}.
"""

import statistics


def complete(runs: list) -> list:
    """Those that were not too large for the device."""
    return [r for r in runs if "missing" not in r]


def figures_of(runs: list) -> tuple[float, float] | None:
    """Median step after the first, and the largest peak."""
    runs = complete(runs)
    if not runs:
        return None
    return (statistics.median(s for r in runs for s in r["seconds"][1:] or r["seconds"]),
            max(r["peak"] for r in runs))


def work_of(profiles: list, count: int) -> dict:
    """GFLOP of products and attention a step, and their rates in GFLOP/s."""
    rows = [r["operations"] for r in complete(profiles)]

    def total(row: dict, place: int, names: tuple) -> float:
        return sum(row.get(name, (0, 0))[place] for name in names)

    def rate(*names: str) -> float | None:
        rates = [total(r, 1, names) / total(r, 0, names) for r in rows if total(r, 0, names) > 0]
        return statistics.median(rates) if rates else None

    def each(*names: str) -> float:
        return statistics.median(total(r, 1, names) / count for r in rows)
    attention = ("attention", "attention_backward")
    return {"linear_gflop": each("gemm", "linear_cross_entropy"),
            "attention_gflop": each(*attention),
            "linear_gflops": rate("gemm"), "attention_gflops": rate(*attention)}


def row_of(shape: str, options: dict, policy: str, runs: dict) -> dict:
    """The figures of a policy; null for what was not measured."""
    top = statistics.median(runs["ceilings"])
    row = dict.fromkeys(("step_s", "peak_gb", "first_s", "ref_step_s", "ref_peak_gb", "ref_first_s",
                         "ref_reserved_gb", "ratio", "linear_gflop", "attention_gflop",
                         "of_ceiling", "linears_of_ceiling", "attention_of_ceiling"))
    row = {"shape": shape, "device": options["device"], "compute": options["compute"],
           "recompute": policy, **row, "ceiling_gflops": top}
    for side, prefix in (("ours", ""), ("theirs", "ref_")):
        figures, good = figures_of(runs[side]), complete(runs[side])
        if figures:
            row[f"{prefix}step_s"], row[f"{prefix}peak_gb"] = figures
            row[f"{prefix}first_s"] = statistics.median(r["first_step"] for r in good)
        elif runs[side]:
            row[f"{prefix}missing"] = runs[side][0]["missing"]
    reserved = [r["peak_reserved"] for r in runs["theirs"] if "peak_reserved" in r]
    row["ref_reserved_gb"] = max(reserved, default=None)
    if row["step_s"] and row["ref_step_s"]:
        row["ratio"] = row["ref_step_s"] / row["step_s"]
    if complete(runs["profiles"]) and row["step_s"]:
        # The first step is no part of a profile, unless it is the only one.
        work = work_of(runs["profiles"], max(options["steps"] - 1, 1))
        row |= {name: work[name] for name in ("linear_gflop", "attention_gflop")}
        row["of_ceiling"] = (work["linear_gflop"] + work["attention_gflop"]) / row["step_s"] / top
        for name, rate in (("linears", "linear_gflops"), ("attention", "attention_gflops")):
            row[f"{name}_of_ceiling"] = work[rate] / top if work[rate] else None
    return row


HEAD = ["compute", "recompute", "step s", "peak GB", "first s", "ref step s", "ref peak GB",
        "ref first s", "ratio", "GFLOP linear + attention", "of ceiling", "linears", "attention",
        "ceiling GFLOP/s"]


def cells_of(row: dict) -> list[str]:
    """A row of the table."""
    def text(name: str, form: str) -> str:
        return "-" if row[name] is None else format(row[name], form)
    digits = ".2f" if row["device"] == "cpu" else ".4f"
    cells = [row["compute"], row["recompute"]]
    for prefix in ("", "ref_"):
        cells += [row.get(f"{prefix}missing") or text(f"{prefix}step_s", digits),
                  text(f"{prefix}peak_gb", ".2f"), text(f"{prefix}first_s", ".1f")]
    counted = row["linear_gflop"] is not None
    return [*cells, text("ratio", ".2f"),
            f"{row['linear_gflop']:.0f} + {row['attention_gflop']:.0f}" if counted else "-",
            text("of_ceiling", ".0%"), text("linears_of_ceiling", ".0%"),
            text("attention_of_ceiling", ".0%"), f"{row['ceiling_gflops']:.0f}"]


def verdict(rows: list[dict]) -> dict | None:
    """The row of our fastest policy that stays below the peak of the reference with recompute, with
    that reference's figures; None if there is none or that reference did not run."""
    bar = next((r for r in rows if r["recompute"] == "all" and r["ref_step_s"]), None)
    if bar is None:
        return None
    fitting = [r for r in rows if r["step_s"] and r["peak_gb"] <= bar["ref_peak_gb"]]
    if not fitting:
        return None
    best = min(fitting, key=lambda row: row["step_s"])
    theirs = {name: bar[name] for name in bar if name.startswith("ref_")}
    return best | theirs | {"ref_recompute": "all", "ratio": bar["ref_step_s"] / best["step_s"]}


def in_words(row: dict) -> str:
    """A verdict, for people."""
    return (f"{row['compute']}: recompute {row['recompute']} takes {row['step_s']:.3g} s in "
            f"{row['peak_gb']:.2f} GB, the reference with recompute {row['ref_step_s']:.3g} s in "
            f"{row['ref_peak_gb']:.2f} GB: {row['ratio']:.2f} x its steps per second")
