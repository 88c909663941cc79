#!/usr/bin/env python3
"""gpu_check.sh against programs that only pretend: what it must find, and what it must let pass.

A folder of stand-ins for the build, nvidia-smi first in PATH. Ends in `N passed, N failed`."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent / "gpu_check.sh"

# Losses on the CPU are LOSS; on cuda HERE. DOCTOR is doctor's exit code.
MEDVQA = r"""#!/usr/bin/env python3
import json, os, pathlib, sys, time
verb, words = sys.argv[1], sys.argv[2:]
if verb == "doctor":
    print(json.dumps({"devices": [{"device": "cuda", "name": "Stand-in 9000"}]}, indent=2))
    sys.exit(int(os.environ.get("DOCTOR", 0)))
if verb == "--version":
    print("medvqa 0.0.0 (\"quoted\")")
if verb in ("init", "data"):
    pathlib.Path(words[words.index("--out") + 1]).mkdir(parents=True)
if verb == "train":
    settings = dict(w.split("=", 1) for w in words if "=" in w)
    output = pathlib.Path(settings["output"])
    output.mkdir(parents=True)
    last = [w for w in words if w.startswith("device=")][-1]
    loss = float(os.environ["HERE"] if last == "device=cuda" else os.environ["LOSS"])
    lines = [{"step": i + 1, "loss": loss + i, "seconds": 0.5}
             for i in range(int(settings["train.max_steps"]))]
    (output / "metrics.jsonl").write_text("".join(json.dumps(l) + "\n" for l in lines))
    print("memory MiB: weights 5.0, total 1000.5, host 0.0; recompute none", flush=True)
    seen = pathlib.Path(os.environ["SEEN"])
    seen.touch()
    time.sleep(0.3)
    seen.unlink()
    if "FREE" in os.environ:
        free = os.environ["FREE"]
        print(f"device memory MiB: 9000.0 free before the arenas, {free} after a step")
"""
BENCH = r"""#!/usr/bin/env python3
import json, os, sys
cases = [{"name": n, "of_ceiling": p} for n, p in (("copy", 1.0), ("attention", 0.1),
         ("nf4 dequantise", float(os.environ["NF4"])), ("linear 1 x 1", 0.9))]
open(sys.argv[sys.argv.index("--json") + 1], "w").write(json.dumps({"cases": cases}, indent=2))
"""
# PASSED of the tests that are asked for.
TESTS = r"""#!/bin/sh
[ "$MEDVQA_REQUIRE_BACKEND" = cuda ] || exit 5
echo "[  PASSED  ] ${PASSED:-3} tests."
exit ${TESTS:-0}
"""
# The tool's own options first, then the program and its options.
SANITIZER = r"""#!/bin/sh
while [ "$1" != --error-exitcode ]; do shift; done
shift 2
"$@" || exit
echo "$*" | grep -q GuardsAndScratch && echo "with guards"
echo "========= ERROR SUMMARY: ${ERRORS:-0} errors"
exit ${SANITIZER:-0}
"""
# ctest: SUITE of the tests whose names a pattern selects.
CTEST = r"""#!/bin/sh
echo "99% tests passed, 1 tests failed out of 100 ($* $MEDVQA_REQUIRE_BACKEND)"
echo "Total Test time"
exit ${SUITE:-0}
"""
# A python that only knows vs_reference.py: COMPARED is its exit code.
PYTHON = r"""#!/bin/sh
if [ "$1" = - ]; then shift; exec python3 - "$@"; fi
[ "$2 $3" = "--device cuda" ] || exit 5
[ "${COMPARED:-0}" -ne 77 ] || echo "vs_reference: skipped: no torch"
[ "${COMPARED:-0}" -eq 0 ] || exit $COMPARED
while [ "$1" != --json ]; do shift; done
echo '{"ratio": 1.5, "step_s": 0.42, "ref_step_s": 0.63, "peak_gb": 5.25, "ref_peak_gb": null,
  "of_ceiling": 0.47}' >"$2"
"""
# Device memory goes up while a training is there, which makes a file.
SMI = r"""#!/bin/sh
case $1 in
  -L) echo "GPU 0: Stand-in \"9000\""; exit ${SMI:-0} ;;
  --query-gpu=driver_version) echo 580.1; exit ;;
esac
if [ -f "$SEEN" ]; then echo "$MEMORY"; else echo 50; fi
"""
GOOD = {"HERE": "2.0", "LOSS": "2.0001", "NF4": "0.86", "MEMORY": "1860",
        "FREE": "7849.5"}


def run(folder: Path, *arguments: str, **environment: str) -> tuple[int, dict[str, dict], str]:
    """Exit code, cases by name with the whole report as "", and all text."""
    out = folder / "out"
    subprocess.run(["rm", "-rf", str(out), str(folder / "seen")], check=True)
    done = subprocess.run(
        [str(SCRIPT), "--build", str(folder), "--out", str(out), *arguments], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=os.environ | GOOD | environment | {"SEEN": str(folder / "seen"),
                                               "PATH": f"{folder}/path:{os.environ['PATH']}",
                                               "MEDVQA_REFERENCE_PYTHON": f"{folder}/python"})
    file = out / "gpu_check.json"
    report = json.loads(file.read_text()) if file.is_file() else {"cases": []}
    return done.returncode, {c["name"]: c for c in report["cases"]} | {"": report}, done.stdout


def stand_ins(folder: Path) -> None:
    for name, text in {"medvqa": MEDVQA, "tests/kernels_bench_cuda": BENCH, "path/nvidia-smi": SMI,
                       "path/compute-sanitizer": SANITIZER, "path/ctest": CTEST, "python": PYTHON,
                       "tests/test_kernels_cuda": TESTS,
                       "tests/test_devices_cuda": TESTS}.items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)


def cases(folder: Path) -> list[tuple[str, bool]]:
    def result(name: str, *arguments: str, **environment: str) -> tuple[int, str, str]:
        code, found, _ = run(folder, *arguments, **environment)
        return code, found[name]["result"], found[name]["note"]

    no_gpu, _, said = run(folder, SMI="1")
    unknown, _, _ = run(folder, "--only", "doctor,nothing")
    doctor = result("doctor", "--only", "doctor")
    broken = result("doctor", "--only", "doctor", DOCTOR="9")
    suite = result("tests test_kernels_cuda", "--only", "tests")
    red = result("tests test_kernels_cuda", "--only", "tests", TESTS="1")
    none = result("tests test_kernels_cuda", "--only", "tests", PASSED="0")
    _, clean, _ = run(folder, "--only", "sanitizer")
    guarded = [t for t in ("memcheck", "racecheck")
               if "with guards" in (folder / f"out/sanitizer_{t}.log").read_text()]
    dirty = result("sanitizer memcheck", "--only", "sanitizer", SANITIZER="3", ERRORS="2")
    unwatched = result("sanitizer racecheck", "--only", "sanitizer", PASSED="0")
    compared = result("reference qwen2vl-2b", "--only", "reference")
    missing = result("reference llama32-11b", "--only", "reference", COMPARED="77")
    broke = result("reference qwen2vl-7b", "--only", "reference", COMPARED="2")
    bench = result("bench", "--only", "bench")
    slow = result("bench", "--only", "bench", NF4="0.84")
    code, found, _ = run(folder, "--only", "configs,plan")
    step, plan = found["step smoke"], found["plan smoke"]
    above = result("plan smoke", "--only", "configs,plan", FREE="7650.0")
    refused = result("plan smoke", "--only", "configs,plan", FREE="none")
    agree = result("agreement smoke", "--only", "agreement")
    differ = result("agreement smoke", "--only", "agreement", LOSS="2.01")
    nothing = result("agreement smoke", "--only", "agreement", LOSS="nan")
    (folder / "CTestTestfile.cmake").touch()
    _, whole, _ = run(folder, "--only", "tests")
    part = result("tests cuda", "--only", "tests", SUITE="8")
    report = whole[""]
    return [
        ("no GPU: 9 and one line", no_gpu == 9 and said.count("\n") == 1),
        ("an unknown step: 2", unknown == 2),
        ("doctor names the device", doctor == (0, "ok", "Stand-in 9000")),
        ("doctor's failure is one", broken[:2] == (1, "FAILED")),
        ("tests know what they must have", suite[:2] == (0, "ok")),
        ("a red suite is a failure", red[:2] == (1, "FAILED")),
        ("a suite that ran nothing is one", none[:2] == (1, "FAILED")),
        ("a build tree's whole suite", [c["name"] for c in report["cases"]] ==
         ["tests host", "tests cuda", "tests cuda, no cuDNN"] and
         whole["tests cuda"]["note"].endswith(" cuda)") and
         not whole["tests host"]["note"].endswith(" cuda)")),
        ("a red part of it", part[:2] == (1, "FAILED")),
        ("the report names device, driver and commit", report["driver"] == "580.1" and
         report["gpu"] == 'GPU 0: Stand-in "9000"' and bool(report["commit"])),
        ("four tools find nothing", len(clean) == 5 and all(
            c["result"] == "ok" and c["note"] == "3 tests passed" for n, c in clean.items() if n)),
        ("memcheck also runs between guards", guarded == ["memcheck"]),
        ("what a tool found", dirty[:2] == (1, "FAILED") and "2 errors" in dirty[2]),
        ("a tool that watched nothing", unwatched[:2] == (1, "FAILED")),
        ("steps beside the reference", compared == (0, "ok", "1.50 x its steps per second; 0.42 s "
         "against 0.63 s, 5.25 GB against - GB, 47% of the ceiling")),
        ("no reference here", missing[:2] == (0, "skipped") and missing[2].endswith("no torch")),
        ("a reference that breaks", broke[:2] == (1, "FAILED")),
        ("85 % are enough", bench[:2] == (0, "ok")),
        ("84 % are not, and are named",
         slow[:2] == (1, "FAILED") and "nf4 dequantise 84" in slow[2]),
        ("all configurations take a step", code == 0 and len(found) >= 2 * 14),
        ("a step says its loss", step["result"] == "ok" and '"loss": 2.0' in step["note"]),
        ("within the plan, by the device's counting", plan["result"] == "ok" and plan["note"] ==
         "plan 1000 MiB, taken 1150 MiB (nvidia-smi with context: 1810)"),
        ("above the plan", above[:2] == (1, "FAILED") and "taken 1350 MiB" in above[2]),
        ("a run that does not say is no proof",
         refused[:2] == (1, "FAILED") and "does not say" in refused[2]),
        ("losses that agree", agree[:2] == (0, "ok") and agree[2].startswith("10 steps")),
        ("losses that differ", differ[:2] == (1, "FAILED")),
        ("a loss that is no number", nothing[:2] == (1, "FAILED")),
    ]


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        stand_ins(Path(name))
        results = cases(Path(name))
    for text, good in results:
        if not good:
            print(f"not so: {text}")
    failed = sum(not good for _, good in results)
    print(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
