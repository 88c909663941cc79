"""Small SentencePiece BPE models with byte fallback, and the folders LlamaTokenizer reads."""

import io
import json
from pathlib import Path

import sentencepiece
from transformers import AutoTokenizer

from reference.tokenizer import CORPUS

# What Llama 2's and TinyLlama's chat models write, in Jinja's words.
LLAMA2_TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set rest = messages %}"
    "{% set system_message = false %}{% endif %}{% for message in rest %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('the roles must take turns') }}{% elif message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% else %}"
    "{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
ZEPHYR_TEMPLATE = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'system' %}\n"
    "{{ '<|system|>\\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\\n' + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)


def train(lines: list[str], pieces: int, **options) -> bytes:
    """tokenizer.model in Llama 2's form, with at most so many pieces."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model,
        **({"vocab_size": pieces, "model_type": "bpe", "byte_fallback": True,
            "normalization_rule_name": "identity", "remove_extra_whitespaces": False,
            "allow_whitespace_only_pieces": True, "split_digits": True, "num_threads": 1,
            "character_coverage": 0.995, "unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1,
            "hard_vocab_limit": False, "minloglevel": 2} | options))
    return model.getvalue()


def write(folder: Path, model: bytes, settings: dict, as_json: bool = False) -> None:
    """tokenizer.model and tokenizer_config.json; `as_json`: tokenizer.json too, as saved."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model)
    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>",
                "unk_token": "<unk>"} | settings
    text = json.dumps(settings, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(text)
    if as_json:
        load(folder).backend_tokenizer.save(str(folder / "tokenizer.json"))


def load(folder: Path):
    """The tokenizer as transformers makes it of a folder."""
    return AutoTokenizer.from_pretrained(folder)


def build(pieces: int) -> bytes:
    """The model of the reference's corpus."""
    return train(CORPUS.strip().splitlines(), 256 + 64 + pieces)
