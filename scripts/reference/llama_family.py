"""LLaMA 2 and 3: random checkpoints of any shape for a seed, as they stand on the Hub, and what
run_reference.py asks of a family. The tokenizer is Llama 3's or a SentencePiece model.

The storage of the weights turns with the seed as for Qwen2-VL, so do tied heads and the scaling of
the positions; everything else is drawn.
"""

import dataclasses
import random
from pathlib import Path

from tokenizers import AddedToken
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama

from reference import checkpoints, llama3, sentencepiece_tokenizer
from reference import tokenizer as tokenizers_of_ours
from reference.llama3 import END_OF_TURN, expand, position_ids  # asked for by run_reference.py

__all__ = ["END_OF_TURN", "MODEL", "TARGETS", "TEXT_ONLY", "Recipe", "draw", "expand",
           "image_arguments", "image_processor", "keep_double", "position_ids", "prepared",
           "write_checkpoint"]

MODEL = LlamaForCausalLM
TEXT_ONLY = True
TARGETS = r"model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
HEADS = [(3, 1), (5, 5), (6, 2), (4, 2), (7, 1), (2, 1)]

TEMPLATES = {"llama2": sentencepiece_tokenizer.LLAMA2_TEMPLATE,
             "zephyr": sentencepiece_tokenizer.ZEPHYR_TEMPLATE}

# What 3.0's and 3.1's instruction models write for messages of plain text and no tools.
_TURNS = (
    "{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + m['content'] | trim"
    " + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date: December 2023\\n"
    "Today Date: 26 Jul 2024\\n\\n' + system + '<|eot_id|>' }}"
)


@dataclasses.dataclass
class Recipe:
    """Everything that determines a checkpoint and its adapter. Sizes in elements."""

    seed: int
    storage: str               # nf4_nested | nf4_plain | nf4_on_load (16-bit files)
    tied: bool
    llama3_rope: bool
    dated: bool                # 3.1's chat template, else 3.0's
    dtype: str                 # of the 16-bit tensors and of the quant_state
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    layers: int
    merges: int
    spare_rows: int            # vocabulary rows beyond the tokenizer's
    skip_modules: list[str]    # linears that stay 16-bit
    hub_config: bool           # config.json with rope_scaling and torch_dtype
    sharded: bool
    merges_as_text: bool
    rope_theta: float
    r: int
    alpha: int
    rslora: bool
    sentencepiece: str         # the chat template of a SentencePiece tokenizer, or "": Llama 3's
    legacy: bool               # of a SentencePiece tokenizer: a space before every stretch
    family = "llama"

    @property
    def hidden(self) -> int:
        return self.heads * self.head_dim


def draw(seed: int) -> Recipe:
    """The recipe of a seed."""
    rng = random.Random(seed)
    heads, kv_heads = rng.choice(HEADS)
    storage = checkpoints.storage(seed)
    skipped = ["lm_head"]
    if storage != "nf4_on_load":
        skipped = rng.choice([["lm_head"], ["lm_head", "o_proj"],
                              ["lm_head", "model.layers.1.mlp.down_proj"]])
    r = rng.choice([8, 16])
    return Recipe(
        seed=seed, storage=storage, tied=seed // 2 % 2 == 0, llama3_rope=seed % 2 == 0,
        dated=rng.random() < 0.5, dtype=rng.choice(["bfloat16", "bfloat16", "float16"]),
        heads=heads, kv_heads=kv_heads,
        head_dim=rng.choice([d for d in (16, 24, 32, 64) if d * heads <= 256]),
        intermediate=4096 // r + 4 * rng.randrange(0, 12), layers=rng.choice([2, 3]),
        merges=rng.randrange(40, 160), spare_rows=rng.choice([0, 1, 10]), skip_modules=skipped,
        hub_config=rng.random() < 0.5, sharded=rng.random() < 0.5,
        merges_as_text=rng.random() < 0.5, rope_theta=rng.choice([10000.0, 500000.0]), r=r,
        **checkpoints.draw_scale(rng),
        sentencepiece=rng.choice(["", "llama2", "zephyr"]), legacy=rng.random() < 0.5)


def configuration(recipe: Recipe, vocabulary: int, begin: int, end: int) -> LlamaConfig:
    """The transformers configuration of a recipe for a tokenizer's size and two of its ids."""
    rope = llama3.rope_parameters(recipe.rope_theta, recipe.llama3_rope)
    return LlamaConfig(
        vocab_size=vocabulary + recipe.spare_rows, hidden_size=recipe.hidden,
        intermediate_size=recipe.intermediate, num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads, num_key_value_heads=recipe.kv_heads,
        rms_norm_eps=1e-5, max_position_embeddings=4096, rope_parameters=rope,
        bos_token_id=begin, eos_token_id=end, tie_word_embeddings=recipe.tied)


def write_checkpoint(recipe: Recipe, folder: Path) -> None:
    """Writes weights, config.json and tokenizer files of a recipe into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer = write_sentencepiece if recipe.sentencepiece else write_llama3
    model = LlamaForCausalLM(configuration(recipe, *write_tokenizer(recipe, folder)))
    checkpoints.fill_of_recipe(model, recipe)
    checkpoints.save(model, recipe, folder)
    if recipe.hub_config:
        checkpoints.llama_config_of_the_hub(folder / "config.json")


def write_sentencepiece(recipe: Recipe, folder: Path) -> tuple[int, int, int]:
    """Writes the tokenizer; its size and the ids of begin and end."""
    sentencepiece_tokenizer.write(
        folder, sentencepiece_tokenizer.build(recipe.merges),
        {"legacy": recipe.legacy, "chat_template": TEMPLATES[recipe.sentencepiece]},
        as_json=recipe.merges_as_text)
    tokenizer = sentencepiece_tokenizer.load(folder)
    return len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id


def write_llama3(recipe: Recipe, folder: Path) -> tuple[int, int, int]:
    """Writes the tokenizer; its size and the ids of begin and end."""
    tokenizer = tokenizers_of_ours.build_llama3(recipe.merges)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)
                                  for token in llama3.SPECIAL_TOKENS])
    template = "{{ '<|begin_of_text|>' }}" + (_SYSTEM if recipe.dated else "") + _TURNS
    tokenizers_of_ours.save(tokenizer, folder, recipe.merges_as_text,
                            llama3.tokenizer_settings(template))
    ids = (tokenizer.token_to_id(token) for token in ("<|begin_of_text|>", "<|eot_id|>"))
    return tokenizer.get_vocab_size(), *ids


def image_processor(checkpoint: Path) -> None:
    """There are no images."""
    del checkpoint


def image_arguments(model, sample, compute) -> dict:
    """Arguments of the model's forward beside ids and attention mask: none."""
    del model, sample, compute
    return {}


def prepared(model, recipe):
    """The model as it is compared."""
    del recipe
    return model


def keep_double(model) -> None:
    """Removes transformers' casts to f32 inside norms, for the oracle."""
    checkpoints.keep_rms_norms_double(model, modeling_llama.LlamaRMSNorm)
