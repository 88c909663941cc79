#!/usr/bin/env python3
"""What a CUDA build does on a machine whose NVIDIA driver is older than the toolkit.

The driver is a stand-in, compiled here and found before any other: it says its version and knows
nothing else. Skipped, counted, for a build without CUDA.
Last line: `N passed, N failed, N skipped`.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

from program import ROOT, Medvqa, Skip, fails, holds, run_cases, succeeds

# The CUDA runtime asks the driver for its functions by name.
DRIVER = r"""
#include <string.h>
int cuInit(unsigned flags) { return flags == 0 ? 0 : 1; }
int cuDriverGetVersion(int* version) { *version = 12040; return 0; }
static int no_device(void) { return 100; }
int cuGetProcAddress_v2(const char* name, void** function, int version, unsigned long long flags,
                        int* status) {
  (void)version, (void)flags;
  *function = (void*)no_device;
  if (strcmp(name, "cuInit") == 0) *function = (void*)cuInit;
  if (strcmp(name, "cuDriverGetVersion") == 0) *function = (void*)cuDriverGetVersion;
  if (strcmp(name, "cuGetProcAddress") == 0) *function = (void*)cuGetProcAddress_v2;
  if (status) *status = 0;
  return 0;
}
"""
REASON = ("the NVIDIA driver is for CUDA 12.4", "this program needs CUDA ", "update the driver")


def old_driver(medvqa: Medvqa) -> dict:
    """The environment in which the program finds that driver."""
    if "cuda: " not in succeeds(medvqa.run("--version")).out:
        raise Skip("built without CUDA")
    folder = medvqa.scratch / "driver"
    folder.mkdir()
    compiler = shlex.split(os.environ.get("CC", "cc"))
    subprocess.run([*compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", folder / "libcuda.so.1"],
                   input=DRIVER, text=True, check=True)
    paths = [str(folder), os.environ.get("LD_LIBRARY_PATH", "")]
    return {"LD_LIBRARY_PATH": ":".join(filter(None, paths))}


def case_training_is_refused_but_on_the_cpu(medvqa: Medvqa) -> None:
    """One sentence, exit code 9; auto does not turn to the CPU by itself."""
    environment = old_driver(medvqa)
    for device in ("auto", "cuda", "cuda:0"):
        config = medvqa.config(device=device)
        fails(medvqa.run("train", "--config", config, environment=environment), 9, *REASON,
              "device=cpu")
        holds(not medvqa.output().exists(), f"{device}: a run folder was made")
    config = medvqa.config(device="cpu")
    succeeds(medvqa.run("train", "--config", config, environment=environment))


def case_version_names_the_driver(medvqa: Medvqa) -> None:
    """What the program was built with, and the driver that is there."""
    version = succeeds(medvqa.run("--version", environment=old_driver(medvqa))).out
    holds("driver for CUDA 12.4" in version, version)


def case_doctor_lists_the_cpu_and_the_reason(medvqa: Medvqa) -> None:
    """The driver hides no other device; asked for alone, it is an error."""
    environment = old_driver(medvqa)
    text = succeeds(medvqa.run("doctor", "--no-measure", environment=environment)).out
    holds("GiB free" in text, text)
    (line,) = [line for line in text.splitlines() if "not usable" in line]
    holds(line.startswith("cuda ") and all(part in line for part in REASON), line)
    report = json.loads(succeeds(medvqa.run("doctor", "--no-measure", "--json",
                                            environment=environment)).out)
    holds([d["device"] for d in report["devices"]] == ["cpu", "cuda"], str(report["devices"]))
    holds(REASON[0] in report["devices"][1]["problem"], str(report["devices"]))
    fails(medvqa.run("doctor", "--device", "cuda", environment=environment), 9, *REASON)
    succeeds(medvqa.run("doctor", "--no-measure", "--device", "cpu", environment=environment))


def main() -> int:
    """All cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--medvqa", type=Path, default=ROOT / "build/cuda-ci/medvqa")
    cases = [f for name, f in globals().items() if name.startswith("case_")]
    return run_cases(cases, parser.parse_args().medvqa, "")


if __name__ == "__main__":
    sys.exit(main())
