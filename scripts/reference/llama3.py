"""What Llama 3's and Llama 3.2 Vision's random checkpoints have in common."""

import torch

SPECIAL_TOKENS = [
    "<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>", "<|step_id|>",
    "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>",
]
END_OF_TURN = "<|eot_id|>"


def tokenizer_settings(chat_template: str) -> dict:
    """tokenizer_config.json."""
    return {"bos_token": "<|begin_of_text|>", "eos_token": END_OF_TURN,
            "pad_token": "<|finetune_right_pad_id|>", "tokenizer_class": "PreTrainedTokenizerFast",
            "chat_template": chat_template}


def rope_parameters(theta: float, scaled: bool) -> dict:
    """Plain, or with Llama 3's scaling."""
    if not scaled:
        return {"rope_type": "default", "rope_theta": theta}
    # A short original context, so that the scaling changes most of the few frequencies.
    return {"rope_type": "llama3", "rope_theta": theta, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64}


def position_ids(model, sample) -> torch.Tensor:
    """0, 1, 2, ..., i64 [T]."""
    del model
    return torch.arange(len(sample.input_ids))


def expand(text: str, processor, tensors: dict) -> str:
    """The text as it is: a picture is one token."""
    del processor, tensors
    return text
