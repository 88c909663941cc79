"""Models that vs_reference.py trains, as config.json has them in the Hub's spelling."""

QWEN2_VL_BYTES = {"bos_token_id": 256, "eos_token_id": 258, "vision_start_token_id": 265,
                  "vision_end_token_id": 266, "vision_token_id": 267, "image_token_id": 268,
                  "video_token_id": 269}
QWEN2_VL_IDS = {"bos_token_id": 151643, "eos_token_id": 151645, "vision_start_token_id": 151652,
                "vision_end_token_id": 151653, "vision_token_id": 151654,
                "image_token_id": 151655, "video_token_id": 151656}


def qwen2_vl(text: dict, vision: dict, ids: dict) -> dict:
    """A Qwen2-VL."""
    return {"architectures": ["Qwen2VLForConditionalGeneration"], "model_type": "qwen2_vl",
            "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1e6,
            "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
            "max_position_embeddings": 32768, "tie_word_embeddings": True,
            "torch_dtype": "bfloat16", **text, **ids,
            "vision_config": {"mlp_ratio": 4, "hidden_size": text["hidden_size"], "in_chans": 3,
                              "patch_size": 14, "spatial_merge_size": 2,
                              "temporal_patch_size": 2, **vision}}


def mllama(text: dict, vision: dict, ids: dict) -> dict:
    """A Llama 3.2 Vision."""
    text = {"model_type": "mllama_text_model", "hidden_act": "silu", "rms_norm_eps": 1e-5,
            "rope_theta": 500000.0, "max_position_embeddings": 131072,
            "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                             "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
            "tie_word_embeddings": False, **text, **ids}
    features = 1 + len(vision["intermediate_layers_indices"])
    vision = {"model_type": "mllama_vision_model", "num_channels": 3, "hidden_act": "gelu",
              "norm_eps": 1e-5, "patch_size": 14, "max_num_tiles": 4,
              "vision_output_dim": vision["hidden_size"] * features,
              "supported_aspect_ratios": [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1],
                                          [4, 1]], **vision}
    return {"architectures": ["MllamaForConditionalGeneration"], "model_type": "mllama",
            "image_token_index": text["vocab_size"], "torch_dtype": "bfloat16",
            "text_config": text, "vision_config": vision}


# 153 M parameters; tiles of 448 pixels (1,025 tokens).
SMALL_MLLAMA = mllama(
    {"hidden_size": 768, "intermediate_size": 2304, "num_hidden_layers": 8,
     "num_attention_heads": 6, "num_key_value_heads": 2, "vocab_size": 16384,
     "cross_attention_layers": [2, 5]},
    {"hidden_size": 640, "intermediate_size": 2560, "attention_heads": 8, "num_hidden_layers": 8,
     "num_global_layers": 2, "image_size": 448, "intermediate_layers_indices": [1, 2, 4, 5, 7]},
    {"bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 258})

QWEN2_VL_2B = qwen2_vl(
    {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
     "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151936},
    {"depth": 32, "embed_dim": 1280, "num_heads": 16}, QWEN2_VL_IDS)

SHAPES = {
    "143m": qwen2_vl(
        {"hidden_size": 768, "intermediate_size": 2304, "num_hidden_layers": 10,
         "num_attention_heads": 6, "num_key_value_heads": 2, "vocab_size": 16384},
        {"depth": 8, "embed_dim": 640, "num_heads": 8}, QWEN2_VL_BYTES),
    "2b": QWEN2_VL_2B,
    "mllama-1-tile": SMALL_MLLAMA,
    "mllama-4-tiles": SMALL_MLLAMA,
    "qwen2vl-2b": QWEN2_VL_2B,
    "qwen2vl-7b": qwen2_vl(
        {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
         "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064,
         "tie_word_embeddings": False},
        {"depth": 32, "embed_dim": 1280, "num_heads": 16}, QWEN2_VL_IDS),
    "llama32-11b": mllama(
        {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 40,
         "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
         "cross_attention_layers": [3, 8, 13, 18, 23, 28, 33, 38]},
        {"hidden_size": 1280, "intermediate_size": 5120, "attention_heads": 16,
         "num_hidden_layers": 32, "num_global_layers": 8, "image_size": 560,
         "intermediate_layers_indices": [3, 7, 15, 23, 30]},
        {"bos_token_id": 128000, "eos_token_id": 128001, "pad_token_id": 128004}),
}

# Parameters of the models as published.
PUBLISHED = {"qwen2vl-2b": 2_208_985_600, "qwen2vl-7b": 8_291_375_616,
             "llama32-11b": 10_670_220_835}

# Sides of the square pictures: 1,296 patches (324 tokens) of a Qwen2-VL, which is what the recipes'
# limit of 262,144 pixels leaves; one tile; two by two.
SIDES = {"143m": 504, "2b": 504, "mllama-1-tile": 448, "mllama-4-tiles": 896, "qwen2vl-2b": 504,
         "qwen2vl-7b": 504, "llama32-11b": 1120}
