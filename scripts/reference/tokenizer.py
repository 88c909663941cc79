"""A small byte-level BPE tokenizer with Qwen2-VL's special tokens and chat template."""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, processors, trainers

SPECIAL_TOKENS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>",
    "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
]

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CHAT_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "{% set image_count.value = image_count.value + 1 %}"
    "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in content %}"
    "{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

CORPUS = """
Is there evidence of a pneumothorax in the left lung? No. What modality was used to take this
image? CT with contrast. Are the costophrenic angles blunted? Yes, on the right side. Where is the
lesion located? In the right upper lobe of the lung. Is the heart enlarged? The cardiac silhouette
is within normal limits. What plane is this image in? Axial. Is the trachea midline? How many
masses are seen? There is a large mass in the basal ganglia. Does the patient have pleural
effusion? The diaphragm is elevated. What does the white arrow point to? The aorta and the liver.
"""


def build(merges: int) -> Tokenizer:
    """A tokenizer of 256 bytes, about `merges` merges, then Qwen2's special tokens in order."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    _train(tokenizer, SPLIT, merges)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer


def build_llama3(merges: int) -> Tokenizer:
    """The same in Llama-3's form: no normaliser, digits by three, whole words looked up first."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    _train(tokenizer, SPLIT.replace(r"|\p{N}|", r"|\p{N}{1,3}|"), merges)
    return tokenizer


def _train(tokenizer: Tokenizer, split: str, merges: int) -> None:
    """Pre-tokeniser, decoder, and merges learned from the corpus."""
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(split), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=256 + merges, initial_alphabet=alphabet,
                                  show_progress=False)
    tokenizer.train_from_iterator(CORPUS.strip().splitlines(), trainer)


def save(tokenizer: Tokenizer, folder: Path, merges_as_text: bool,
         settings: dict | None = None) -> None:
    """Writes tokenizer.json and tokenizer_config.json; merges as "a b" or as ["a", "b"].

    `settings` is tokenizer_config.json; Qwen2-VL's without it.
    """
    content = json.loads(tokenizer.to_str())
    merges = content["model"]["merges"]
    pairs = [m.split(" ") if isinstance(m, str) else list(m) for m in merges]
    content["model"]["merges"] = [" ".join(p) for p in pairs] if merges_as_text else pairs
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
    settings = settings or {
        "add_prefix_space": False, "bos_token": None, "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>", "unk_token": None, "errors": "replace",
        "additional_special_tokens": SPECIAL_TOKENS[1:], "model_max_length": 32768,
        "padding_side": "left", "tokenizer_class": "Qwen2Tokenizer",
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    template = json.dumps({"chat_template": settings["chat_template"]}, indent=2)
    (folder / "chat_template.json").write_text(template + "\n")
