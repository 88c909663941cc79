"""medvqa init and medvqa plan."""

import json
from pathlib import Path

from program import FIXTURE, Medvqa, contents, fails, holds, succeeds
from safetensors.numpy import load_file
from tokenizers import Tokenizer

TEXTS = ("Is there a fracture?", "Où est le cœur?\n\n  5–7 mm", "肺癌 \U0001fac1\t\r\n x  ", "")


def check_tokenizer(folder: Path) -> None:
    """The file loads in Hugging Face tokenizers, and every text comes back."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        back = tokenizer.decode(ids, skip_special_tokens=False)
        holds(back == text, f"{text!r} comes back as {back!r}")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for token, key in (("<|image_pad|>", "image_token_id"), ("<|im_end|>", "eos_token_id"),
                       ("<|vision_start|>", "vision_start_token_id")):
        holds(tokenizer.token_to_id(token) == config[key], f"{token} is not {key}")
        holds(tokenizer.encode(token).ids == [config[key]], f"{token} is no token of its own")
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    holds(largest < config["vocab_size"], f"id {largest} is outside the vocabulary")


def case_init_writes_a_model_that_trains(medvqa: Medvqa) -> None:
    """The small preset, dense and 4-bit: loads in Python, trains, repeats by seed."""
    for kind in ("none", "nf4"):
        folder = medvqa.scratch / kind
        result = succeeds(medvqa.run("init", "--preset", "tiny-qwen2-vl", "--quantization", kind,
                                     "--out", folder, "--seed", "3"))
        holds(result.out.strip() == str(folder), f"stdout is {result.out}")
        check_tokenizer(folder)
        for name in ("tokenizer_config.json", "preprocessor_config.json"):
            json.loads((folder / name).read_text(encoding="utf-8"))
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        holds(("quantization_config" in config) == (kind == "nf4"), f"{kind}: {config}")
        again, other = medvqa.scratch / f"{kind}-again", medvqa.scratch / f"{kind}-other"
        for out, seed in ((again, "3"), (other, "4")):
            succeeds(medvqa.run("init", "--preset", "tiny-qwen2-vl", "--quantization", kind,
                                "--out", out, "--seed", seed))
        holds(contents(again) == contents(folder), "the same seed gave other bytes")
        holds(contents(other) != contents(folder), "another seed gave the same bytes")
        run = medvqa.config(kind, model__path=str(folder), lora__init_from=None)
        succeeds(medvqa.run("train", "--config", run))
    q = [n for n in load_numpy_names(medvqa.scratch / "nf4") if "quant_state" in n]
    holds(len(q) == 3 * 4 + 4 * 7, f"{len(q)} linears are 4-bit")


def load_numpy_names(folder: Path) -> list[str]:
    """Tensor names of a checkpoint; bf16 has no numpy type, so the header is read."""
    data = (folder / "model.safetensors").read_bytes()
    header = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])
    return [name for name in header if name != "__metadata__"]


def case_init_from_a_config(medvqa: Medvqa) -> None:
    """--model-config, with a tokenizer of its own or one that is copied."""
    config = FIXTURE / "checkpoint/config.json"
    succeeds(medvqa.run("init", "--model-config", config, "--out", medvqa.scratch / "m"))
    check_tokenizer(medvqa.scratch / "m")
    succeeds(medvqa.run("init", "--model-config", config, "--out", medvqa.scratch / "n",
                        "--tokenizer", FIXTURE / "checkpoint"))
    ours = (medvqa.scratch / "n/tokenizer.json").read_bytes()
    holds(ours == (FIXTURE / "checkpoint/tokenizer.json").read_bytes(), "not copied")
    names = set(load_numpy_names(medvqa.scratch / "m"))
    fixture = {n for n in load_numpy_names(FIXTURE / "checkpoint")
               if n.count(".weight.") == 0}
    holds(names == fixture, f"tensors {sorted(names ^ fixture)[:4]}")


def case_init_refuses(medvqa: Medvqa) -> None:
    """A used folder, a missing or strange config.json, both sources at once."""
    out = medvqa.scratch / "m"
    out.mkdir()
    (out / "precious").write_text("mine", encoding="utf-8")
    fails(medvqa.run("init", "--preset", "tiny-qwen2-vl", "--out", out), 2, str(out), "not empty")
    holds(contents(out).keys() == {".", "precious"}, "the used folder was touched")
    missing = medvqa.scratch / "config.json"
    fails(medvqa.run("init", "--model-config", missing, "--out", medvqa.scratch / "n"), 5,
          str(missing))
    missing.write_text('{"model_type": "llama_9"}', encoding="utf-8")
    fails(medvqa.run("init", "--model-config", missing, "--out", medvqa.scratch / "n"), 5,
          "llama_9")
    fails(medvqa.run("init", "--model-config", missing, "--preset", "tiny-qwen2-vl", "--out",
                     medvqa.scratch / "n"), 2, "--preset")
    holds(not [p for p in medvqa.scratch.iterdir() if p.name not in ("m", "config.json")],
          "something was left behind")


def published(channels: int, feed_forward: int, heads: int, kv_heads: int, vocabulary: int,
              tied: bool) -> dict:
    """config.json of Qwen2-VL-2B or -7B as the Hub has it."""
    return {
        "model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGeneration"],
        "hidden_size": channels, "intermediate_size": feed_forward, "num_hidden_layers": 28,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": vocabulary,
        "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "max_position_embeddings": 32768, "sliding_window": 32768, "use_sliding_window": False,
        "max_window_layers": 28, "attention_dropout": 0.0, "tie_word_embeddings": tied,
        "bos_token_id": 151643, "eos_token_id": 151645, "vision_start_token_id": 151652,
        "vision_end_token_id": 151653, "vision_token_id": 151654, "image_token_id": 151655,
        "video_token_id": 151656, "torch_dtype": "bfloat16",
        "vision_config": {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16,
                          "in_chans": 3, "hidden_size": channels, "patch_size": 14,
                          "spatial_merge_size": 2, "spatial_patch_size": 14,
                          "temporal_patch_size": 2}}


def published_with_windows(layers: int, *language) -> dict:
    """config.json of Qwen2.5-VL-3B or -7B as the Hub has it."""
    config = published(*language) | {
        "model_type": "qwen2_5_vl", "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "num_hidden_layers": layers, "max_position_embeddings": 128000, "max_window_layers": layers}
    config["vision_config"] = {
        "depth": 32, "hidden_act": "silu", "hidden_size": 1280, "intermediate_size": 3420,
        "num_heads": 16, "in_chans": 3, "out_hidden_size": config["hidden_size"],
        "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14, "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2,
        "temporal_patch_size": 2}
    return config


def case_plan_counts_the_published_models(medvqa: Medvqa) -> None:
    """config.json alone gives the counts of the published models at r = 16."""
    # A block's channels in and out of qkv, proj and the feed-forward, at r = 16.
    attention = 32 * 16 * ((1280 + 3840) + (1280 + 1280))
    plain, gated = (attention + 32 * 16 * n for n in (2 * (1280 + 5120), 3 * (1280 + 3420)))
    models = {
        "2b": (published(1536, 8960, 12, 2, 151936, True), 28_950_528, 2_208_985_600, plain),
        "7b": (published(3584, 18944, 28, 4, 152064, False), 50_855_936, 8_291_375_616, plain),
        "2.5-3b": (published_with_windows(36, 2048, 11008, 16, 2, 151936, True), 41_084_928,
                   3_754_622_976, gated),
        "2.5-7b": (published_with_windows(28, 3584, 18944, 28, 4, 152064, False), 51_521_536,
                   8_292_166_656, gated)}
    for name, (model, trainable, parameters, tower) in models.items():
        folder = medvqa.scratch / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(model), encoding="utf-8")
        config = medvqa.config(f"plan-{name}", model__path=str(folder), lora__init_from=None,
                               device="cpu")
        plan = json.loads(succeeds(medvqa.run("plan", "--config", config, "--json")).out)
        holds(plan["trainable_parameters"] == trainable, f"{name}: {plan}")
        holds(plan["parameters"] == parameters, f"{name}: {plan}")
        text = succeeds(medvqa.run("plan", "--config", config)).out
        holds(str(trainable) in text.replace(",", ""), text)
        fails(medvqa.run("train", "--config", config), 5, str(folder))
        holds({p.name for p in folder.iterdir()} == {"config.json"}, "plan wrote something")
        vision = json.loads(succeeds(medvqa.run("plan", "--config", config, "--json", "--set",
                                                "lora.language=false")).out)
        holds(vision["trainable_parameters"] == tower, f"{name} vision: {vision}")


def case_llama_trains_on_text(medvqa: Medvqa) -> None:
    """The small llama learns from text alone, PEFT's names; pictures and the wrong task do not."""
    folder = medvqa.scratch / "llama"
    succeeds(medvqa.run("init", "--preset", "tiny-llama", "--quantization", "nf4", "--out", folder))
    holds(not (folder / "preprocessor_config.json").exists(), "a llama has no pictures")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    holds(tokenizer.token_to_id("<|image|>") is None, "a llama has no <|image|>")
    for text in TEXTS:
        back = tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids,
                                skip_special_tokens=False)
        holds(back == text, f"{text!r} comes back as {back!r}")
    rows = [{"question": f"What is {i}?", "answer": str(i)} for i in range(6)]
    data = medvqa.scratch / "text.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    settings = {"model__path": str(folder), "lora__init_from": None,
                "data__train": [{"format": "jsonl", "path": str(data)}]}
    config = medvqa.config("text", task="text", **settings)
    succeeds(medvqa.run("train", "--config", config))
    names = load_file(medvqa.output("text") / "adapter/adapter_model.safetensors")
    first = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    holds(len(names) == 2 * 4 * 7 and names[first].shape == (16, 128), f"{sorted(names)[:3]}")
    fails(medvqa.run("train", "--config", medvqa.config("vqa", task="vqa", **settings)), 3, "vqa",
          "set task to text")
    settings["data__train"] = [{"format": "jsonl", "path": str(FIXTURE / "dataset.jsonl")}]
    fails(medvqa.run("train", "--config", medvqa.config("seen", task="text", **settings)), 4,
          "no eyes")


def case_plan_counts_llama3(medvqa: Medvqa) -> None:
    """LLaMA 3 8B at r = 16, from its config.json alone."""
    model = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "hidden_act": "silu",
        "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "rope_scaling": None,
        "attention_bias": False, "max_position_embeddings": 8192, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16"}
    folder = medvqa.scratch / "8b"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(model), encoding="utf-8")
    config = medvqa.config("8b", task="text", model__path=str(folder), lora__init_from=None)
    plan = json.loads(succeeds(medvqa.run("plan", "--config", config, "--json", "--device",
                                          "a100-40", "--set", "model.quantization=nf4")).out)
    holds((plan["parameters"], plan["trainable_parameters"]) == (8_030_261_248, 41_943_040),
          f"{plan}")
    holds(plan["fits"], f"{plan['memory']}")
    config = medvqa.config("two-classes", task="classification", model__path=str(folder),
                           lora__init_from=None, lora__rslora=True)
    plan = json.loads(succeeds(medvqa.run("plan", "--config", config, "--json")).out)
    holds(plan["trainable_parameters"] == 41_951_232, f"{plan}")
    # Of the head two rows are left, and they are trained.
    holds(plan["parameters"] == 8_030_261_248 - 128256 * 4096, f"{plan}")
    holds(plan["modules"]["head"] == {"parameters": 0, "trainable": 2 * 4096}, f"{plan}")


def case_adapters_reach_python(medvqa: Medvqa) -> None:
    """Names and shapes of the written adapter are the fixture's, which PEFT wrote."""
    succeeds(medvqa.run("train", "--config", medvqa.config()))
    ours = load_file(medvqa.output() / "adapter/adapter_model.safetensors")
    peft = load_file(FIXTURE / "adapter/adapter_model.safetensors")
    shapes = [{k: v.shape for k, v in tensors.items()} for tensors in (ours, peft)]
    holds(shapes[0] == shapes[1], "names or shapes differ from PEFT's")
    settings = json.loads((medvqa.output() / "adapter/adapter_config.json").read_text("utf-8"))
    holds((settings["peft_type"], settings["r"]) == ("LORA", 16), f"{settings}")
