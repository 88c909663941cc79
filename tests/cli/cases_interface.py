"""Help, version, configuration lookup and printing, probes."""

import json
import shutil

from program import FIXTURE, ROOT, Medvqa, contents, fails, holds, succeeds
from safetensors.numpy import load_file


def case_help_of_every_verb(medvqa: Medvqa) -> None:
    """--help goes to stdout, alone, and names every option."""
    expected = {("--help",): ["train", "plan", "init"], ("-h",): ["train"], ("help",): ["train"],
                ("plan", "--help"): ["--config", "--json", "--set"],
                ("init", "--help"): ["--preset", "--model-config", "--out", "--seed", "--tokenizer",
                                     "--quantization"],
                ("train", "--help"): ["--config", "--set", "--resume", "--overwrite",
                                      "--allow-changes", "--probe",
                                      "--probe-inputs", "--print-config", "--log-level",
                                      "--quiet", "--no-color"]}
    for arguments, words in expected.items():
        result = succeeds(medvqa.run(*arguments))
        holds(result.err == "", f"{arguments}: stderr {result.err}")
        for word in words:
            holds(word in result.out, f"{arguments}: {word} is not in the help")


def case_version(medvqa: Medvqa) -> None:
    """One line on stdout, the same for both names."""
    version = succeeds(medvqa.run("--version")).out
    holds(version.startswith("medvqa ") and version.count("\n") == 1, version)
    link = medvqa.executable.with_name("medvqa-train")
    holds(succeeds(medvqa.run("--version", program=link)).out == version, "the link differs")
    holds(succeeds(medvqa.run("train", "--version")).out == version, "train --version differs")


def case_doctor_measures_the_cpu(medvqa: Medvqa) -> None:
    """Devices with their ceilings, as text and as JSON; the types that auto may mean."""
    text = succeeds(medvqa.run("doctor", "--no-measure", "--device", "cpu")).out
    holds("oneDNN" in text and "GiB free" in text and "TFLOP/s" not in text, text)
    report = json.loads(succeeds(medvqa.run("doctor", "--json", "--device", "cpu")).out)
    (cpu,) = report["devices"]
    holds(cpu["compute"] in ("f32", "bf16") and cpu["threads"] >= 1, str(cpu))
    # No machine that runs this copies less, or multiplies less, a second.
    holds(cpu["copy_bytes_per_second"] > 1e8, str(cpu))
    holds(set(cpu["gemm_flops_per_second"]) == {"f32", cpu["compute"]}, str(cpu))
    holds(all(rate > 1e9 for rate in cpu["gemm_flops_per_second"].values()), str(cpu))
    fails(medvqa.run("doctor", "--device", "tpu"), 3, "tpu")
    fails(medvqa.run("doctor", "--device", "cuda:99"), 9, "cuda:99" if "cuda: " not in
          medvqa.run("--version").out else "99")


def case_the_link_trains(medvqa: Medvqa) -> None:
    """medvqa-train means medvqa train, also through another link."""
    link = medvqa.executable.with_name("medvqa-train")
    config = medvqa.config()
    a = succeeds(medvqa.run("train", "--config", config, "--print-config"))
    for program in (link, medvqa.scratch / "my-medvqa-train"):
        if not program.exists():
            program.symlink_to(medvqa.executable)
        b = succeeds(medvqa.run("--config", config, "--print-config", program=program))
        holds(a.out == b.out, f"{program.name} prints another configuration")


def case_print_config_feeds_back(medvqa: Medvqa) -> None:
    """Valid JSON with every value in force, which gives itself back from anywhere."""
    config = medvqa.config(train__seed=5)
    printed = succeeds(medvqa.run("train", "--config", config, "--print-config", "--set",
                                  "train.epochs=7", environment={"MEDVQA__TRAIN__KEEP": "9"})).out
    values = json.loads(printed)
    train = values["train"]
    holds((train["seed"], train["epochs"], train["keep"]) == (5, 7, 9), f"train is {train}")
    holds(values["classification"]["classes"] == {"0": " No", "1": " Yes"}, "a default is missing")
    elsewhere = medvqa.scratch / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "again.json").write_text(printed, encoding="utf-8")
    again = succeeds(medvqa.run("train", "--config", elsewhere / "again.json", "--print-config"))
    holds(again.out == printed, "the printed configuration does not give itself back")
    holds(not medvqa.output().exists(), "--print-config made the output folder")


def case_shipped_configurations_by_name(medvqa: Medvqa) -> None:
    """A bare name works anywhere; one in the current folder wins."""
    name = "qwen2vl_tiny_vqarad.json"
    result = succeeds(medvqa.run("train", "--config", name, "--print-config", cwd=medvqa.scratch))
    holds(json.loads(result.out)["model"]["path"] == str(ROOT / "models/tiny-qwen2-vl"), result.out)
    shutil.copy(medvqa.config(train__seed=77), medvqa.scratch / name)
    result = succeeds(medvqa.run("train", "--config", name, "--print-config", cwd=medvqa.scratch))
    holds(json.loads(result.out)["train"]["seed"] == 77, "the current folder does not win")
    fails(medvqa.run("train", "--config", "no_such.json", cwd=medvqa.scratch), 3, "no_such.json")


def case_quiet_and_plain_log(medvqa: Medvqa) -> None:
    """The log goes to stderr without colours where that is no terminal; --quiet silences it."""
    config = medvqa.config(train__max_steps=1)
    loud = succeeds(medvqa.run("train", "--config", config))
    holds("step 1/1" in loud.err and "\x1b" not in loud.err, loud.err)
    holds(loud.out.strip() == str(medvqa.output() / "adapter"), f"stdout is {loud.out}")
    quiet = succeeds(medvqa.run("train", "--config", config, "--overwrite", "--quiet"))
    holds(quiet.err == "", f"--quiet says {quiet.err}")


def case_probe_writes_one_file(medvqa: Medvqa) -> None:
    """--probe and --probe-inputs write that file, nothing else, not even the output folder."""
    config = medvqa.config()
    before = contents(medvqa.scratch)
    file = medvqa.scratch / "probe.safetensors"
    succeeds(medvqa.run("train", "--config", config, "--probe", file, "--quiet"))
    found = contents(medvqa.scratch)
    holds(found.pop(file.name, "") != "", "no probe file")
    holds(found == before, f"more than the file: {set(found) ^ set(before)}")
    expected = load_file(FIXTURE / "expected.safetensors")
    tensors = load_file(file)
    holds(set(tensors) == set(expected), f"tensors {set(tensors) ^ set(expected)}")
    succeeds(medvqa.run("train", "--config", config, "--probe-inputs", file, "--quiet"))
    found = contents(medvqa.scratch)
    found.pop(file.name)
    holds(found == before, "--probe-inputs writes more than the file")
    holds(not any(name.startswith("grad.") for name in load_file(file)), "gradients in inputs")


def case_probe_needs_no_weights_for_inputs(medvqa: Medvqa) -> None:
    """--probe-inputs works with configuration, tokenizer and processor alone."""
    model = medvqa.scratch / "model"
    shutil.copytree(FIXTURE / "checkpoint", model)
    (model / "model.safetensors").unlink()
    config = medvqa.config(model__path=str(model))
    file = medvqa.scratch / "inputs.safetensors"
    succeeds(medvqa.run("train", "--config", config, "--probe-inputs", file, "--quiet"))
    holds("pixel_values" in load_file(file), "no pixels")
    fails(medvqa.run("train", "--config", config, "--probe", file, "--quiet"), 5, str(model))
