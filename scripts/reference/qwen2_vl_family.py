"""Qwen2-VL: random checkpoints of any shape for a seed, written as they stand on the Hub, and
what run_reference.py asks of a family. Most of it is Qwen2.5-VL's as well.

Four consecutive seeds cover nested NF4, plain NF4, NF4 quantised on load and nested NF4 again,
with tied and untied heads; everything else is drawn. Linears are N(0, 1/fan_in), norms near 1,
biases and gates not zero.
"""

import dataclasses
import json
import random
from pathlib import Path

import torch
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl import modeling_qwen2_vl
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from reference import checkpoints
from reference import tokenizer as tokenizers_of_ours

MODEL = Qwen2VLForConditionalGeneration
PROCESSORS = {"qwen2_vl": "Qwen2VLProcessor", "qwen2_5_vl": "Qwen2_5_VLProcessor"}
END_OF_TURN = "<|im_end|>"
TARGETS = (r"model\.language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
           r"|model\.visual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.fc[12])")

HEADS = [(3, 1), (5, 5), (6, 2), (4, 2), (7, 1), (2, 1)]
MROPE_SECTIONS = {16: [2, 3, 3], 24: [4, 4, 4], 32: [4, 6, 6], 40: [4, 8, 8], 64: [8, 12, 12]}


@dataclasses.dataclass
class Recipe:
    """Everything that determines a checkpoint and its adapter. Sizes in elements."""

    seed: int
    storage: str               # nf4_nested | nf4_plain | nf4_on_load (16-bit files)
    tied: bool
    dtype: str                 # of the 16-bit tensors and of the quant_state
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    layers: int
    vision_heads: int
    vision_head_dim: int
    vision_depth: int
    vision_mlp_ratio: int
    merges: int
    spare_rows: int            # vocabulary rows beyond the tokenizer's
    skip_modules: list[str]    # linears that stay 16-bit
    flat_config: bool          # config.json as on the Hub, else as transformers 5 writes it
    new_prefixes: bool         # model.language_model... and model.visual... in the files
    sharded: bool
    merges_as_text: bool
    min_pixels: int
    max_pixels: int
    rope_theta: float
    r: int
    alpha: int
    rslora: bool
    family = "qwen2_vl"

    @property
    def hidden(self) -> int:
        return self.heads * self.head_dim


def draw(seed: int) -> Recipe:
    """The recipe of a seed."""
    rng = random.Random(seed)
    heads, kv_heads = rng.choice(HEADS)
    head_dim = rng.choice([d for d in MROPE_SECTIONS if d * heads <= 256])
    layers, vision_depth = rng.choice([2, 3]), rng.choice([2, 3])
    skipped = ["lm_head", "model.visual.merger"]
    storage = checkpoints.storage(seed)
    if storage != "nf4_on_load":
        skipped = rng.choice([
            ["lm_head"], ["lm_head", "model.visual.merger"],
            ["lm_head", "model.visual.merger", "o_proj", "fc1"],
            ["lm_head", "model.visual", "model.language_model.layers.1.mlp.down_proj"],
        ])
    r = rng.choice([8, 16])
    return Recipe(
        seed=seed, storage=storage, tied=seed // 2 % 2 == 0,
        dtype=rng.choice(["bfloat16", "bfloat16", "float16"]),
        heads=heads, kv_heads=kv_heads, head_dim=head_dim,
        intermediate=4096 // r + 4 * rng.randrange(0, 12), layers=layers,
        vision_heads=rng.choice([1, 2, 3, 5]), vision_head_dim=rng.choice([16, 20, 24, 32]),
        vision_depth=vision_depth, vision_mlp_ratio=rng.choice([2, 3, 4]),
        merges=rng.randrange(40, 160), spare_rows=rng.choice([0, 1, 10]), skip_modules=skipped,
        flat_config=rng.random() < 0.5, new_prefixes=rng.random() < 0.5,
        sharded=rng.random() < 0.5, merges_as_text=rng.random() < 0.5,
        min_pixels=56 * 56, max_pixels=rng.choice([12, 20, 30]) * 28 * 28,
        rope_theta=rng.choice([10000.0, 1000000.0]), r=r,
        **checkpoints.draw_scale(rng))


def language(recipe: Recipe, tokenizer) -> dict:
    """What a configuration says beside vision_config; token ids are the tokenizer's."""
    token = tokenizer.token_to_id
    text = {
        "vocab_size": tokenizer.get_vocab_size() + recipe.spare_rows,
        "hidden_size": recipe.hidden, "intermediate_size": recipe.intermediate,
        "num_hidden_layers": recipe.layers, "num_attention_heads": recipe.heads,
        "num_key_value_heads": recipe.kv_heads, "hidden_act": "silu", "rms_norm_eps": 1e-6,
        "max_position_embeddings": 4096, "attention_dropout": 0.0, "use_sliding_window": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": recipe.rope_theta,
                            "mrope_section": MROPE_SECTIONS[recipe.head_dim]},
        "bos_token_id": token("<|endoftext|>"), "eos_token_id": token("<|im_end|>"),
        "tie_word_embeddings": recipe.tied,
    }
    return {"text_config": text, "tie_word_embeddings": recipe.tied,
            "image_token_id": token("<|image_pad|>"), "video_token_id": token("<|video_pad|>"),
            "vision_start_token_id": token("<|vision_start|>"),
            "vision_end_token_id": token("<|vision_end|>")}


def configuration(recipe: Recipe, tokenizer) -> Qwen2VLConfig:
    """The transformers configuration of a recipe."""
    vision = {
        "depth": recipe.vision_depth, "embed_dim": recipe.vision_heads * recipe.vision_head_dim,
        "num_heads": recipe.vision_heads, "mlp_ratio": recipe.vision_mlp_ratio,
        "hidden_size": recipe.hidden, "patch_size": 14, "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    return Qwen2VLConfig(vision_config=vision, **language(recipe, tokenizer))


def write_checkpoint(recipe: Recipe, folder: Path) -> None:
    """Writes weights, config.json, tokenizer and preprocessor files of a recipe into `folder`."""
    write_model(recipe, folder, MODEL, configuration)


def write_model(recipe: Recipe, folder: Path, kind: type, configuration_of) -> None:
    """The same for a model class and its `configuration_of(recipe, tokenizer)`."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizers_of_ours.build(recipe.merges)
    model = kind(configuration_of(recipe, tokenizer))
    checkpoints.fill_of_recipe(model, recipe)
    checkpoints.save(model, recipe, folder)
    checkpoints.respell(folder, _new_name if recipe.new_prefixes else _hub_name)
    if recipe.flat_config:
        _flatten_config(folder / "config.json")
    tokenizers_of_ours.save(tokenizer, folder, recipe.merges_as_text)
    _write_preprocessor(recipe, folder)


def _hub_name(name: str) -> str:
    """A tensor's name as in the Hub's files: visual. and model."""
    if name.startswith("model.visual."):
        return name.removeprefix("model.")
    return name.replace("model.language_model.", "model.", 1)


def _new_name(name: str) -> str:
    """A tensor's name as transformers 5 spells the module."""
    bare = _hub_name(name)
    if bare.startswith("visual."):
        return "model." + bare
    return bare.replace("model.", "model.language_model.", 1)


def _flatten_config(path: Path) -> None:
    """config.json as the Hub's files have it: text keys at the top level, rope_scaling."""
    content = json.loads(path.read_text())
    text = content.pop("text_config")
    rope = text.pop("rope_parameters")
    for key in ("model_type", "dtype", "layer_types", "tie_word_embeddings"):
        text.pop(key, None)
    content.update(text)
    content["rope_theta"] = rope["rope_theta"]
    content["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    content["torch_dtype"] = content.pop("dtype")
    vision = content["vision_config"]
    for key in ("rope_parameters", "dtype", "initializer_range"):
        vision.pop(key, None)
    vision["in_chans"] = vision.pop("in_channels", 3)
    path.write_text(json.dumps(content, indent=2) + "\n")


def _write_preprocessor(recipe: Recipe, folder: Path) -> None:
    """preprocessor_config.json: pixel limits as on the Hub, or as transformers 5 writes them."""
    content = {
        "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "image_processor_type": "Qwen2VLImageProcessor", "merge_size": 2, "patch_size": 14,
        "processor_class": PROCESSORS[recipe.family], "resample": 3, "rescale_factor": 1 / 255,
        "temporal_patch_size": 2,
    }
    if recipe.flat_config:
        content |= {"min_pixels": recipe.min_pixels, "max_pixels": recipe.max_pixels}
    else:
        content["size"] = {"shortest_edge": recipe.min_pixels, "longest_edge": recipe.max_pixels}
    (folder / "preprocessor_config.json").write_text(json.dumps(content, indent=2) + "\n")


def image_processor(checkpoint: Path) -> Qwen2VLImageProcessorPil:
    """The image processor of a checkpoint folder."""
    return Qwen2VLImageProcessorPil.from_pretrained(checkpoint)


def image_tensors(processor, pictures: list) -> dict:
    """The probe's tensors of one sample's pictures."""
    found = processor(images=pictures, return_tensors="pt")
    return {"pixel_values": found["pixel_values"].float(),       # [P, 1176]
            "image_grid_thw": found["image_grid_thw"].long()}    # [n, 3]


def expand(text: str, processor, tensors: dict) -> str:
    """One placeholder for every merged patch."""
    for grid in tensors.get("image_grid_thw", []):
        count = int(grid.prod()) // processor.merge_size**2
        text = text.replace("<|image_pad|>", "<|image_pad|\0" * count, 1)
    return text.replace("\0", ">")


def image_arguments(model, sample, compute) -> dict:
    """Arguments of the model's forward beside ids and attention mask."""
    if not sample.images:
        return {}
    return {"pixel_values": sample.images["pixel_values"].to(compute),
            "image_grid_thw": sample.images["image_grid_thw"],
            "mm_token_type_ids": (sample.input_ids[None] == model.config.image_token_id).int()}


def position_ids(model, sample) -> torch.Tensor:
    """M-RoPE rows, i64 [3, T]."""
    ids = sample.input_ids[None]
    kinds = (ids == model.config.image_token_id).int()
    positions, _ = model.model.get_rope_index(
        ids, mm_token_type_ids=kinds, image_grid_thw=sample.images.get("image_grid_thw"),
        attention_mask=torch.ones_like(ids))
    return positions[:, 0]


def prepared(model, recipe):
    """The model as it is compared."""
    del recipe
    return model


def keep_double(model) -> None:
    """Removes transformers' casts to f32 inside norms and the vision rotation, for the oracle."""
    keep_double_of(model, modeling_qwen2_vl, modeling_qwen2_vl.Qwen2VLRMSNorm,
                   modeling_qwen2_vl.VisionAttention)


def keep_double_of(model, modeling, norm: type, attention: type) -> None:
    """The same for the classes of a modeling module."""
    def rotate(q, k, cos, sin):
        cos, sin = cos.unsqueeze(-2).double(), sin.unsqueeze(-2).double()
        half = modeling.rotate_half
        return q * cos + half(q) * sin, k * cos + half(k) * sin

    checkpoints.keep_rms_norms_double(model, norm)
    for module in model.modules():
        if isinstance(module, attention):
            module.forward = _with_rotation(module.forward, modeling, rotate)


def _with_rotation(forward, modeling, rotate):
    """`forward` with the modeling module's vision rotation exchanged while it runs."""
    def wrapped(*arguments, **settings):
        original = modeling.apply_rotary_pos_emb_vision
        modeling.apply_rotary_pos_emb_vision = rotate
        try:
            return forward(*arguments, **settings)
        finally:
            modeling.apply_rotary_pos_emb_vision = original
    return wrapped
