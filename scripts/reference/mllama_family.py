"""mllama (Llama 3.2 Vision): random checkpoints of any shape for a seed, as they stand on the Hub,
and what run_reference.py asks of a family.

The storage of the weights turns with the seed as for Qwen2-VL; everything else is drawn.
Gates are far from zero, so that every path shows in the logits.
"""

import dataclasses
import json
import random
from pathlib import Path

import torch
from tokenizers import AddedToken
from transformers import MllamaConfig, MllamaForConditionalGeneration
from transformers.models.mllama import modeling_mllama, processing_mllama
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

from reference import checkpoints, llama3
from reference import tokenizer as tokenizers_of_ours
from reference.llama3 import END_OF_TURN, expand, position_ids  # asked for by run_reference.py

__all__ = ["END_OF_TURN", "MODEL", "TARGETS", "Recipe", "draw", "expand", "image_arguments",
           "image_processor", "image_tensors", "keep_double", "position_ids", "prepared",
           "write_checkpoint"]

MODEL = MllamaForConditionalGeneration
TARGETS = (r"model\.language_model\.layers\.\d+\.((self|cross)_attn\.[qkvo]_proj"
           r"|mlp\.(gate|up|down)_proj)"
           r"|model\.vision_model\.(global_)?transformer\.layers\.\d+"
           r"\.(self_attn\.[qkvo]_proj|mlp\.fc[12])")
HEADS = [(3, 1), (4, 2), (6, 2), (2, 1), (5, 5)]
PREFIXES = [("language_model.model.", "model.language_model."),
            ("language_model.lm_head.", "lm_head."),
            ("vision_model.", "model.vision_model."),
            ("multi_modal_projector.", "model.multi_modal_projector.")]

CHAT_TEMPLATE = (
    "{{ '<|begin_of_text|>' }}{% set ns = namespace(images=false) %}{% for m in messages %}"
    "{% if m['content'] is not string %}{% for c in m['content'] %}{% if c['type'] == 'image' %}"
    "{% set ns.images = true %}{% endif %}{% endfor %}{% endif %}{% endfor %}"
    "{% if not ns.images %}{{ '<|start_header_id|>system<|end_header_id|>\\n\\n"
    "Cutting Knowledge Date: December 2023\\nToday Date: 26 Jul 2024\\n\\n<|eot_id|>' }}"
    "{% endif %}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' }}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}{{ '<|image|>' }}{% elif 'text' in c %}{{ c['text'] }}"
    "{% endif %}{% endfor %}{% endif %}{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)


@dataclasses.dataclass
class Recipe:
    """Everything that determines a checkpoint and its adapter. Sizes in elements."""

    seed: int
    storage: str               # nf4_nested | nf4_plain | nf4_on_load (16-bit files)
    dtype: str                 # of the 16-bit tensors and of the quant_state
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    layers: int
    cross_layers: list[int]
    vision_heads: int
    vision_head_dim: int
    vision_intermediate: int
    vision_layers: int
    global_layers: int
    feature_layers: list[int]
    features: str              # block_input | block_output
    tile_side: int             # patches along one side of a tile
    patch_size: int
    merges: int
    spare_tokens: int          # reserved tokens before <|image|>
    skip_modules: list[str]
    hub_config: bool           # config.json with rope_scaling and torch_dtype
    llama3_rope: bool
    new_prefixes: bool
    sharded: bool
    merges_as_text: bool
    r: int
    alpha: int
    rslora: bool
    family = "mllama"

    @property
    def hidden(self) -> int:
        return self.heads * self.head_dim


def draw(seed: int) -> Recipe:
    """The recipe of a seed."""
    rng = random.Random(seed)
    heads, kv_heads = rng.choice(HEADS)
    layers, vision_layers = rng.choice([3, 4]), rng.choice([2, 3])
    skipped = ["lm_head", "multi_modal_projector"]
    storage = checkpoints.storage(seed)
    if storage != "nf4_on_load":
        skipped = rng.choice([
            ["lm_head"], ["lm_head", "multi_modal_projector"],
            ["lm_head", "multi_modal_projector", "o_proj", "fc1"],
            ["lm_head", "vision_model", "multi_modal_projector"],
        ])
    r = rng.choice([8, 16])
    return Recipe(
        seed=seed, storage=storage, dtype=rng.choice(["bfloat16", "bfloat16", "float16"]),
        heads=heads, kv_heads=kv_heads,
        head_dim=rng.choice([d for d in (16, 24, 32, 64) if d * heads <= 256]),
        intermediate=4096 // r + 4 * rng.randrange(0, 12), layers=layers,
        cross_layers=sorted(rng.sample(range(layers), rng.choice([1, 2]))),
        vision_heads=rng.choice([1, 2, 3]), vision_head_dim=rng.choice([16, 20, 24, 32]),
        vision_intermediate=4 * rng.randrange(20, 50), vision_layers=vision_layers,
        global_layers=rng.choice([1, 2]),
        feature_layers=sorted(rng.sample(range(vision_layers), rng.choice([1, 2]))),
        features=["block_output", "block_input"][seed // 2 % 2],
        tile_side=rng.choice([2, 3, 4, 5]), patch_size=rng.choice([8, 14]),
        merges=rng.randrange(40, 160), spare_tokens=rng.choice([0, 1, 10]), skip_modules=skipped,
        hub_config=rng.random() < 0.5, llama3_rope=rng.random() < 0.7,
        new_prefixes=rng.random() < 0.5, sharded=rng.random() < 0.5,
        merges_as_text=rng.random() < 0.5, r=r,
        **checkpoints.draw_scale(rng))


def build_tokenizer(recipe: Recipe):
    """Byte-level BPE in Llama-3's form; <|image|> has the highest id."""
    tokenizer = tokenizers_of_ours.build_llama3(recipe.merges)
    spare = [f"<|reserved_special_token_{i}|>" for i in range(recipe.spare_tokens)]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)
                                  for token in [*llama3.SPECIAL_TOKENS, *spare, "<|image|>"]])
    return tokenizer


def configuration(recipe: Recipe, tokenizer) -> MllamaConfig:
    """The transformers configuration of a recipe; token ids are the tokenizer's."""
    token = tokenizer.token_to_id
    text = {
        "vocab_size": token("<|image|>"), "hidden_size": recipe.hidden,
        "intermediate_size": recipe.intermediate, "num_hidden_layers": recipe.layers,
        "num_attention_heads": recipe.heads, "num_key_value_heads": recipe.kv_heads,
        "hidden_act": "silu", "rms_norm_eps": 1e-5, "max_position_embeddings": 4096,
        "cross_attention_layers": recipe.cross_layers,
        "rope_parameters": llama3.rope_parameters(500000.0, recipe.llama3_rope),
        "bos_token_id": token("<|begin_of_text|>"), "eos_token_id": token("<|eot_id|>"),
        "pad_token_id": token("<|finetune_right_pad_id|>"),
    }
    channels = recipe.vision_heads * recipe.vision_head_dim
    vision = {
        "hidden_size": channels, "attention_heads": recipe.vision_heads,
        "intermediate_size": recipe.vision_intermediate,
        "num_hidden_layers": recipe.vision_layers, "num_global_layers": recipe.global_layers,
        "image_size": recipe.tile_side * recipe.patch_size, "patch_size": recipe.patch_size,
        "vision_output_dim": channels * (1 + len(recipe.feature_layers)),
        "intermediate_layers_indices": recipe.feature_layers,
    }
    return MllamaConfig(text_config=text, vision_config=vision,
                        image_token_index=token("<|image|>"))


def _drawn(name: str, noise: torch.Tensor) -> torch.Tensor:
    """As for every family, with open gates and positions that show."""
    if "gate" in name.rsplit(".", 1)[-1]:
        return 0.7 + 0.2 * noise
    if "embedding" in name and "patch_embedding" not in name:
        return 0.5 * noise
    return checkpoints.drawn(name, noise)


def write_checkpoint(recipe: Recipe, folder: Path) -> None:
    """Writes weights, config.json, tokenizer and preprocessor files of a recipe into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(recipe)
    model = MllamaForConditionalGeneration(configuration(recipe, tokenizer))
    checkpoints.fill(model, recipe.seed, _drawn)
    checkpoints.save(model, recipe, folder)
    checkpoints.respell(folder, _new_name if recipe.new_prefixes else _hub_name)
    if recipe.hub_config:
        checkpoints.llama_config_of_the_hub(folder / "config.json", "text_config")
    tokenizers_of_ours.save(tokenizer, folder, recipe.merges_as_text,
                            llama3.tokenizer_settings(CHAT_TEMPLATE))
    _write_preprocessor(recipe, folder)


def _hub_name(name: str) -> str:
    """A tensor's name as in the Hub's files."""
    for hub, new in PREFIXES:
        if name.startswith(new):
            return hub + name.removeprefix(new)
    return name


def _new_name(name: str) -> str:
    """A tensor's name as transformers 5 spells the module."""
    for hub, new in PREFIXES:
        if name.startswith(hub):
            return new + name.removeprefix(hub)
    return name


def _write_preprocessor(recipe: Recipe, folder: Path) -> None:
    side = recipe.tile_side * recipe.patch_size
    content = {
        "do_convert_rgb": True, "do_normalize": True, "do_pad": True, "do_rescale": True,
        "do_resize": True, "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "MllamaImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711], "max_image_tiles": 4, "resample": 2,
        "rescale_factor": 1 / 255, "size": {"height": side, "width": side},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(content, indent=2) + "\n")


def image_processor(checkpoint: Path) -> MllamaImageProcessorPil:
    """The image processor of a checkpoint folder."""
    return MllamaImageProcessorPil.from_pretrained(checkpoint)


def image_tensors(processor, pictures: list) -> dict:
    """The probe's tensors of one sample's pictures: of the tiles only those in use."""
    found = processor(images=[pictures], return_tensors="pt")
    counts = found["num_tiles"][0]
    tiles = [found["pixel_values"][0, i, :count] for i, count in enumerate(counts)]
    return {"pixel_values": torch.cat(tiles).float(),             # [tiles, 3, H, W]
            "aspect_ratio_ids": found["aspect_ratio_ids"][0].long(),
            "num_tiles": torch.tensor(counts)}


def image_arguments(model, sample, compute) -> dict:
    """Arguments of the model's forward beside ids and attention mask, padded to four tiles."""
    if not sample.images:
        return {}
    counts = sample.images["num_tiles"].tolist()
    most = model.config.vision_config.max_num_tiles
    pixels = sample.images["pixel_values"]
    padded = torch.zeros(1, len(counts), most, *pixels.shape[1:])
    mask = torch.zeros(1, len(counts), most, dtype=torch.long)
    for i, tiles in enumerate(pixels.split(counts)):
        padded[0, i, :counts[i]] = tiles
        mask[0, i, :counts[i]] = 1
    ids = sample.input_ids.tolist()
    ranges = processing_mllama.get_cross_attention_token_mask(ids, model.config.image_token_index)
    cross = processing_mllama.convert_sparse_cross_attention_mask_to_dense(
        [ranges], num_tiles=[counts], max_num_tiles=most, length=len(ids))
    return {"pixel_values": padded.to(compute), "aspect_ratio_mask": mask,
            "aspect_ratio_ids": sample.images["aspect_ratio_ids"][None],
            "cross_attention_mask": torch.from_numpy(cross)}


def prepared(model, recipe):
    """The model as it is compared: with "block_input" its local vision transformer hands on what
    goes into each layer, as the published weights were trained, not what comes out."""
    if recipe.features == "block_input":
        encoder = model.model.vision_model.transformer
        original = encoder.forward

        def forward(hidden_states, attention_mask=None):
            result = original(hidden_states, attention_mask=attention_mask)
            result.hidden_states = (hidden_states, *result.hidden_states[:-1])
            return result

        encoder.forward = forward
    return model


def keep_double(model) -> None:
    """Removes transformers' casts to f32 inside norms, for the oracle."""
    checkpoints.keep_rms_norms_double(model, modeling_mllama.MllamaTextRMSNorm)
