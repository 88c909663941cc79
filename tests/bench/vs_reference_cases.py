#!/usr/bin/env python3
"""What vs_reference.py does where nothing is measured: its command line, its shapes, its figures,
and how it ends without a GPU. Ends in `N passed, N failed`.

    vs_reference_cases.py              any python3
    vs_reference_cases.py --models     with transformers: parameters of the published shapes
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import figures
import shapes
import vs_reference

HERE = Path(__file__).resolve().parent

RUN = {"seconds": [9.0, 2.0, 4.0, 3.0], "peak": 5.0, "first_step": 11.0}
PROFILE = RUN | {"operations": {"gemm": (0.3, 300.0), "attention": (0.1, 60.0),
                                "attention_backward": (0.2, 150.0)}}
OPTIONS = {"device": "cuda", "compute": "bf16", "steps": 4}
TABLE = """operation                      calls    seconds   share    GFLOP/s
gemm                            1234      0.300   50.0%     1000.0
attention                         12      0.100   16.7%      600.0
rms_norm                          34      0.050    8.3%
attention_backward                12      0.150   25.0%     1000.0
all                                       0.600
"""


def command_line_of_a_cpu():
    found = vs_reference.parse([])
    assert (found.device, found.shape, found.steps) == ("cpu", "143m", 4)
    assert found.compute == ["f32", "bf16"]
    assert found.medvqa == vs_reference.ROOT / "build/cpu/medvqa"


def command_line_of_a_gpu():
    found = vs_reference.parse(["--device", "cuda", "--shape", "llama32-11b", "--json", "x.json",
                                "--medvqa", "/opt/medvqa"])
    assert (found.compute, found.steps) == (None, 10)
    assert (found.medvqa, found.json) == (Path("/opt/medvqa"), Path("x.json"))
    assert vs_reference.parse(["--device", "cuda"]).medvqa.parent.name == "cuda"


def command_lines_that_are_refused():
    for words in (["--shape", "9b"], ["--device", "tpu"], ["--compute", "f64"],
                  ["--reference-optimizer", "paged"],
                  ["--device", "cuda", "--compute", "f16", "--reference-adapters", "compute"]):
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            there, sys.stderr = sys.stderr, nowhere
            try:
                vs_reference.parse(words)
            except SystemExit as end:
                assert end.code == 2, words
            else:
                raise AssertionError(f"{words} were taken")
            finally:
                sys.stderr = there


def help_is_printed():
    done = subprocess.run([sys.executable, HERE / "vs_reference.py", "--help"], check=True,
                          capture_output=True, text=True)
    assert "--checkpoint" in done.stdout and "77" in done.stdout


def a_checkpoint_is_taken_if_it_has_the_shape():
    with tempfile.TemporaryDirectory() as folder:
        nobody = Path(folder) / "no-program"
        (Path(folder) / "config.json").write_text(json.dumps(shapes.SHAPES["llama32-11b"]))
        vs_reference.make_checkpoint(nobody, Path(folder), "llama32-11b")
        for other in ("mllama-1-tile", "qwen2vl-7b"):
            try:
                vs_reference.make_checkpoint(nobody, Path(folder), other)
            except SystemExit as end:
                assert "expected" in str(end.code), end
            else:
                raise AssertionError(f"a Llama of 11 B was taken for {other}")


def every_shape_has_a_picture():
    assert shapes.SHAPES.keys() == shapes.SIDES.keys()
    assert shapes.PUBLISHED.keys() <= shapes.SHAPES.keys()
    for name, config in shapes.SHAPES.items():
        vision = config["vision_config"]
        step = vision.get("image_size") or 2 * vision["patch_size"]
        assert shapes.SIDES[name] % step == 0, name


def widths_of_llama_32():
    config = shapes.SHAPES["llama32-11b"]
    assert config["vision_config"]["vision_output_dim"] == 7680
    assert config["image_token_index"] == 128256


def a_profile_is_read():
    assert vs_reference.operations_of(TABLE) == {
        "gemm": (0.3, 300.0), "attention": (0.1, 60.0), "attention_backward": (0.15, 150.0)}


def a_plan_is_read():
    line = ("memory MiB: weights 5.0, adapters 1.0, step 2.0, block 3.0, scratch 4.0, total 1000.0,"
            " host 7.0; recompute none")
    assert vs_reference.planned_gb("first\n" + line) == 1000 * 2**20 / 1e9


def the_device_is_in_the_configuration():
    options = OPTIONS | {"samples": 2, "recompute": "all", "features": None}
    there = vs_reference.configuration(options)
    assert (there["device"], there["model"]["compute"]) == ("cuda", "bf16")
    assert there["train"]["recompute"] == "all" and "vision_features" not in there["model"]
    here = vs_reference.configuration(options | {"device": "cpu", "features": "block_output"})
    assert here["device"] == "cpu" and here["model"]["vision_features"] == "block_output"


def a_row():
    runs = {"ours": [RUN, RUN], "profiles": [PROFILE], "ceilings": [100.0, 90.0, 200.0],
            "theirs": [{"seconds": [9.0, 6.0], "peak": 7.0, "first_step": 20.0,
                        "peak_reserved": 8.0}]}
    row = figures.row_of("143m", OPTIONS, "all", runs)
    assert (row["step_s"], row["ref_step_s"], row["ratio"]) == (3.0, 6.0, 2.0)
    assert (row["peak_gb"], row["ref_peak_gb"], row["ref_reserved_gb"]) == (5.0, 7.0, 8.0)
    # Three steps have 300 + 210 GFLOP: 170 a step of 3 s, at a ceiling of 100 GFLOP/s.
    assert (row["linear_gflop"], row["attention_gflop"]) == (100.0, 70.0)
    assert abs(row["of_ceiling"] - 170 / 3 / 100) < 1e-12
    assert abs(row["linears_of_ceiling"] - 10) < 1e-12
    assert abs(row["attention_of_ceiling"] - 7) < 1e-12
    assert len(figures.cells_of(row)) == len(figures.HEAD)
    json.dumps(row)


def a_row_of_what_does_not_fit():
    runs = {"ours": [{"missing": "does not fit"}], "profiles": [{"missing": "does not fit"}],
            "ceilings": [100.0], "theirs": [{"missing": "does not fit"}]}
    row = figures.row_of("143m", OPTIONS, "none", runs)
    assert row["step_s"] is None and row["missing"] == row["ref_missing"] == "does not fit"
    assert len(figures.cells_of(row)) == len(figures.HEAD)
    assert figures.verdict([row]) is None


def turns_on_a_gpu():
    """The profile has a run of its own, once a policy; everything else takes turns."""
    calls = []
    saved = {name: getattr(vs_reference, name) for name in ("ask", "run_medvqa", "run_reference")}
    vs_reference.ask = lambda device, *words: calls.append("ceiling") or {"gflops": 100.0}
    vs_reference.run_reference = lambda folder, options: calls.append(
        "reference " + options["recompute"]) or RUN
    vs_reference.run_medvqa = lambda medvqa, folder, options, profile: calls.append(
        ("profile " if profile else "medvqa ") + options["recompute"]) or (
            PROFILE if profile else RUN)
    try:
        found = vs_reference.measure(Path("."), vs_reference.parse(
            ["--device", "cuda", "--turns", "2", "--recompute", "none", "all",
             "--reference-recompute", "all"]), OPTIONS)
    finally:
        for name, function in saved.items():
            setattr(vs_reference, name, function)
    turn = ["ceiling", "medvqa none", "ceiling", "medvqa all", "reference all"]
    assert calls == [*turn[:2], "profile none", *turn[2:4], "profile all", turn[4], *turn], calls
    rows = [figures.row_of("143m", OPTIONS, policy, runs) for policy, runs in found.items()]
    assert [row["ratio"] for row in rows] == [None, 1.0]
    assert all(row["of_ceiling"] for row in rows)


def a_verdict():
    def row(policy, step, peak, ref_step, ref_peak):
        return {"recompute": policy, "compute": "bf16", "step_s": step, "peak_gb": peak,
                "ref_step_s": ref_step, "ref_peak_gb": ref_peak}
    rows = [row("none", 1.0, 9.0, 4.0, 12.0), row("attention_saved", 2.0, 6.0, None, None),
            row("all", 3.0, 4.0, 5.0, 7.0)]
    best = figures.verdict(rows)
    assert (best["recompute"], best["ratio"], best["ref_peak_gb"]) == ("attention_saved", 2.5, 7.0)
    assert "2.50 x" in figures.in_words(best)
    rows[2]["ref_peak_gb"] = 3.0
    assert figures.verdict(rows) is None
    assert figures.verdict(rows[:2]) is None


def without_a_gpu_it_is_skipped():
    # A torch that was built without CUDA, whatever this machine has.
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "torch.py").write_text(
            "class version: cuda = None\n__version__ = '2.0.0+cpu'\n")
        done = subprocess.run([sys.executable, HERE / "vs_reference.py", "--device", "cuda"],
                              env=os.environ | {"PYTHONPATH": folder}, capture_output=True,
                              text=True, check=False)
    assert done.returncode == 77, done
    assert done.stdout == "vs_reference: skipped: torch 2.0.0+cpu is built without CUDA\n"


def published_parameters():
    import torch
    import transformers
    classes = {"qwen2_vl": (transformers.Qwen2VLConfig,
                            transformers.Qwen2VLForConditionalGeneration),
               "mllama": (transformers.MllamaConfig,
                          transformers.MllamaForConditionalGeneration)}
    for name, count in shapes.PUBLISHED.items():
        config, model = classes[shapes.SHAPES[name]["model_type"]]
        with torch.device("meta"):
            found = sum(p.numel() for p in model(config(**shapes.SHAPES[name])).parameters())
        assert found == count, f"{name}: {found} parameters, published {count}"


CASES = [command_line_of_a_cpu, command_line_of_a_gpu, command_lines_that_are_refused,
         help_is_printed, a_checkpoint_is_taken_if_it_has_the_shape, every_shape_has_a_picture,
         widths_of_llama_32, a_profile_is_read, a_plan_is_read, the_device_is_in_the_configuration,
         a_row, a_row_of_what_does_not_fit, turns_on_a_gpu, a_verdict, without_a_gpu_it_is_skipped]


def main() -> None:
    cases = CASES + ([published_parameters] if sys.argv[1:] == ["--models"] else [])
    failed = 0
    for case in cases:
        try:
            case()
        except AssertionError as error:
            failed += 1
            print(f"{case.__name__}: {error!r}")
    print(f"{len(cases) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
