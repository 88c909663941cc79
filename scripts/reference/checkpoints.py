"""What the families' random checkpoints have in common: how weights are drawn, quantised, spelled
and written. A recipe brings `seed`, `storage`, `dtype`, `skip_modules`, `sharded`."""

import json
import math
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import BitsAndBytesConfig

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def storage(seed: int) -> str:
    """Four consecutive seeds cover nested NF4, plain NF4, NF4 quantised on load, nested again."""
    return ["nf4_nested", "nf4_plain", "nf4_on_load", "nf4_nested"][seed % 4]


def drawn(name: str, noise: torch.Tensor, embedding_scale: float = 1.0) -> torch.Tensor:
    """A parameter from standard noise: linears N(0, 1/fan_in), norms near 1, biases not zero."""
    if name.endswith("bias"):
        return 0.1 * noise
    if noise.dim() == 1:
        return 1 + 0.1 * noise
    if "embed_tokens" in name:
        return noise * embedding_scale
    return noise / math.sqrt(noise[0].numel())


def fill(model: torch.nn.Module, seed: int, value=drawn) -> None:
    """Draws every parameter from a generator of its own, in named_parameters order;
    `value(name, noise)` scales the noise."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data.copy_(value(name, noise))


def fill_of_recipe(model: torch.nn.Module, recipe) -> None:
    """The same for a recipe with `tied` and `hidden`: embeddings that are the head as well are
    small, as logits of tens make losses of 0 and 50, where rounding is all that differs."""
    scale = 2 / math.sqrt(recipe.hidden) if recipe.tied else 1.0
    fill(model, recipe.seed, lambda name, noise: drawn(name, noise, scale))


def quantization(recipe) -> BitsAndBytesConfig:
    """The bitsandbytes settings under which transformers quantises the 16-bit weights."""
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32,
        bnb_4bit_use_double_quant=recipe.storage == "nf4_nested",
        llm_int8_skip_modules=recipe.skip_modules)


def save(model: torch.nn.Module, recipe, folder: Path) -> None:
    """Writes the weights in the recipe's storage and config.json."""
    dtype = DTYPES[recipe.dtype]
    model = model.to(dtype)
    model.config.dtype = dtype
    shard = "200KB" if recipe.sharded else "5GB"
    if recipe.storage == "nf4_on_load":
        model.save_pretrained(folder, max_shard_size=shard)
    else:
        with tempfile.TemporaryDirectory() as plain:
            model.save_pretrained(plain)
            quantised = type(model).from_pretrained(
                plain, dtype=dtype, quantization_config=quantization(recipe))
            quantised.save_pretrained(folder, max_shard_size=shard)
    (folder / "generation_config.json").unlink(missing_ok=True)


def respell(folder: Path, spelled) -> None:
    """Renames every tensor of a written checkpoint: `spelled(name)` is the new name."""
    for file in sorted(folder.glob("*.safetensors")):
        tensors = {spelled(name): tensor for name, tensor in load_file(file).items()}
        save_file(tensors, file, metadata={"format": "pt"})
    index = folder / "model.safetensors.index.json"
    if index.exists():
        content = json.loads(index.read_text())
        content["weight_map"] = {spelled(n): f for n, f in content["weight_map"].items()}
        index.write_text(json.dumps(content, indent=2) + "\n")


def llama_config_of_the_hub(path: Path, text_key: str | None = None) -> None:
    """config.json as the Hub's Llama files have it: rope_scaling beside rope_theta,
    torch_dtype, no head_dim. `text_key`: where the text model's settings are, if not at the top."""
    content = json.loads(path.read_text())
    text = content[text_key] if text_key else content
    rope = text.pop("rope_parameters")
    text["rope_theta"] = rope.pop("rope_theta")
    text["rope_scaling"] = rope if rope["rope_type"] != "default" else None
    text.pop("head_dim", None)
    content["torch_dtype"] = content.pop("dtype")
    path.write_text(json.dumps(content, indent=2) + "\n")


def keep_rms_norms_double(model: torch.nn.Module, kind: type) -> None:
    """Removes the casts to f32 inside the norms of a class, for the f64 oracle."""
    def rms_norm(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True)
                                              + self.variance_epsilon))

    for module in model.modules():
        if isinstance(module, kind):
            module.forward = rms_norm.__get__(module)


def draw_scale(rng, rslora_share: float = 0.3) -> dict:
    """alpha and rslora of an adapter. Under rsLoRA a scale of 32 / sqrt(8) would multiply rounding:
    both sides' own f32 errors against f64 then come near the bars."""
    alpha, rslora = rng.choice([8, 16, 32]), rng.random() < rslora_share
    return {"alpha": 8 if rslora else alpha, "rslora": rslora}
