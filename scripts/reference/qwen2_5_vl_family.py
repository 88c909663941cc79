"""Qwen2.5-VL: what differs from Qwen2-VL is the vision tower, its configuration and its adapters.

Windows of two to four merged patches on a side and pictures of up to thirty: grids that are whole
windows, and grids that are not. Full attention in no, some and all blocks.
"""

import dataclasses
import random
from pathlib import Path

from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl

from reference import qwen2_vl_family
from reference.qwen2_vl_family import (  # the family's own, asked for by run_reference.py
    END_OF_TURN, expand, image_arguments, image_processor, image_tensors, position_ids, prepared)

__all__ = ["END_OF_TURN", "MODEL", "TARGETS", "Recipe", "draw", "expand", "image_arguments",
           "image_processor", "image_tensors", "keep_double", "position_ids", "prepared",
           "write_checkpoint"]

MODEL = Qwen2_5_VLForConditionalGeneration
TARGETS = (r"model\.language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
           r"|model\.visual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(gate|up|down)_proj)")


@dataclasses.dataclass
class Recipe(qwen2_vl_family.Recipe):
    """A Qwen2-VL's recipe, without its mlp_ratio."""

    vision_intermediate: int = 0
    window_size: int = 0           # pixels
    full_blocks: list[int] = dataclasses.field(default_factory=list)
    family = "qwen2_5_vl"


def draw(seed: int) -> Recipe:
    """The recipe of a seed."""
    base = qwen2_vl_family.draw(seed)
    rng = random.Random(seed + 11)
    base.skip_modules = ["up_proj" if name == "fc1" else name for name in base.skip_modules]
    # Tensors of 4096 elements and more have an 8-bit optimizer state.
    return Recipe(
        **dataclasses.asdict(base), vision_intermediate=4096 // base.r + 4 * rng.randrange(0, 12),
        window_size=rng.choice([56, 84, 112]),
        full_blocks=rng.choice([[], [0], [1], [1, 7], list(range(base.vision_depth))]))


def configuration(recipe: Recipe, tokenizer) -> Qwen2_5_VLConfig:
    """The transformers configuration of a recipe."""
    vision = {
        "depth": recipe.vision_depth, "hidden_size": recipe.vision_heads * recipe.vision_head_dim,
        "num_heads": recipe.vision_heads, "intermediate_size": recipe.vision_intermediate,
        "out_hidden_size": recipe.hidden, "window_size": recipe.window_size,
        "fullatt_block_indexes": recipe.full_blocks, "patch_size": 14, "spatial_merge_size": 2,
        "temporal_patch_size": 2, "tokens_per_second": 2, "hidden_act": "silu",
    }
    return Qwen2_5_VLConfig(vision_config=vision,
                            **qwen2_vl_family.language(recipe, tokenizer))


def write_checkpoint(recipe: Recipe, folder: Path) -> None:
    """Writes weights, config.json, tokenizer and preprocessor files of a recipe into `folder`."""
    qwen2_vl_family.write_model(recipe, folder, MODEL, configuration)


def keep_double(model) -> None:
    """Removes transformers' casts to f32 inside norms and the vision rotation, for the oracle."""
    qwen2_vl_family.keep_double_of(
        model, modeling_qwen2_5_vl, modeling_qwen2_5_vl.Qwen2_5_VLRMSNorm,
        modeling_qwen2_5_vl.Qwen2_5_VLVisionAttention)
