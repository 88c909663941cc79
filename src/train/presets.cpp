#include <fmt/format.h>

#include "medvqa/core/error.h"
#include "medvqa/train/random_checkpoint.h"

namespace medvqa::train {

namespace {

using nlohmann::json;

struct Shape {
  int channels, feed_forward, layers, heads, kv_heads, vocabulary;
  int vision_channels, vision_depth, vision_heads;
};

// All but model_type and vision_config.
json qwen2_language(const Shape& s, const json& token_ids, bool tied) {
  const int pairs = s.channels / s.heads / 2;
  const int spatial = pairs * 3 / 8;
  json c{{"hidden_size", s.channels},
         {"intermediate_size", s.feed_forward},
         {"num_hidden_layers", s.layers},
         {"num_attention_heads", s.heads},
         {"num_key_value_heads", s.kv_heads},
         {"vocab_size", s.vocabulary},
         {"hidden_act", "silu"},
         {"rms_norm_eps", 1e-6},
         {"rope_theta", 1000000.0},
         {"rope_scaling",
          {{"type", "mrope"}, {"mrope_section", {pairs - 2 * spatial, spatial, spatial}}}},
         {"max_position_embeddings", 32768},
         {"tie_word_embeddings", tied},
         {"use_sliding_window", false},
         {"torch_dtype", "bfloat16"}};
  c.update(token_ids);
  return c;
}

json qwen2_vl(const Shape& s, const json& token_ids, bool tied) {
  json c = qwen2_language(s, token_ids, tied);
  c["architectures"] = {"Qwen2VLForConditionalGeneration"};
  c["model_type"] = "qwen2_vl";
  c["vision_config"] = {{"depth", s.vision_depth},
                        {"embed_dim", s.vision_channels},
                        {"num_heads", s.vision_heads},
                        {"mlp_ratio", 4},
                        {"hidden_size", s.channels},
                        {"in_chans", 3},
                        {"patch_size", 14},
                        {"spatial_merge_size", 2},
                        {"temporal_patch_size", 2},
                        {"hidden_act", "quick_gelu"}};
  return c;
}

struct WindowShape {
  int vision_feed_forward, window_size;
  std::vector<int> full_blocks;
};

json qwen2_5_vl(const Shape& s, const WindowShape& w, const json& token_ids, bool tied) {
  json c = qwen2_language(s, token_ids, tied);
  c["architectures"] = {"Qwen2_5_VLForConditionalGeneration"};
  c["model_type"] = "qwen2_5_vl";
  c["max_position_embeddings"] = 128000;
  c["vision_config"] = {{"depth", s.vision_depth},
                        {"hidden_size", s.vision_channels},
                        {"num_heads", s.vision_heads},
                        {"intermediate_size", w.vision_feed_forward},
                        {"out_hidden_size", s.channels},
                        {"window_size", w.window_size},
                        {"fullatt_block_indexes", w.full_blocks},
                        {"tokens_per_second", 2},
                        {"in_chans", 3},
                        {"patch_size", 14},
                        {"spatial_merge_size", 2},
                        {"temporal_patch_size", 2},
                        {"hidden_act", "silu"}};
  return c;
}

// Ids of a vocabulary of 256 bytes followed by the special tokens.
json byte_vocabulary_ids() {
  return {{"bos_token_id", 256},        {"eos_token_id", 258},    {"vision_start_token_id", 265},
          {"vision_end_token_id", 266}, {"vision_token_id", 267}, {"image_token_id", 268},
          {"video_token_id", 269}};
}

json published_ids() {
  return {{"bos_token_id", 151643},          {"eos_token_id", 151645},
          {"vision_start_token_id", 151652}, {"vision_end_token_id", 151653},
          {"vision_token_id", 151654},       {"image_token_id", 151655},
          {"video_token_id", 151656}};
}

struct LlamaShape {
  int channels, feed_forward, layers, heads, kv_heads, vocabulary;
};

// Of LLaMA 3 itself: 3.1's scaling of the positions is not in it.
json llama(const LlamaShape& s, const json& token_ids) {
  json c{{"architectures", {"LlamaForCausalLM"}},
         {"model_type", "llama"},
         {"hidden_size", s.channels},
         {"intermediate_size", s.feed_forward},
         {"num_hidden_layers", s.layers},
         {"num_attention_heads", s.heads},
         {"num_key_value_heads", s.kv_heads},
         {"vocab_size", s.vocabulary},
         {"hidden_act", "silu"},
         {"rms_norm_eps", 1e-5},
         {"rope_theta", 500000.0},
         {"rope_scaling", nullptr},
         {"max_position_embeddings", 8192},
         {"attention_bias", false},
         {"attention_dropout", 0.0},
         {"tie_word_embeddings", false},
         {"torch_dtype", "bfloat16"}};
  c.update(token_ids);
  return c;
}

struct MllamaShape {
  int channels, feed_forward, heads, kv_heads, vocabulary, layers;
  std::vector<int> cross_layers;
  int vision_channels, vision_feed_forward, vision_heads, vision_layers, global_layers, image_size;
  std::vector<int> feature_layers;
};

json mllama(const MllamaShape& s, const json& text_ids) {
  json text{{"model_type", "mllama_text_model"},
            {"hidden_size", s.channels},
            {"intermediate_size", s.feed_forward},
            {"num_hidden_layers", s.layers},
            {"num_attention_heads", s.heads},
            {"num_key_value_heads", s.kv_heads},
            {"vocab_size", s.vocabulary},
            {"hidden_act", "silu"},
            {"rms_norm_eps", 1e-5},
            {"rope_theta", 500000.0},
            {"rope_scaling",
             {{"rope_type", "llama3"},
              {"factor", 8.0},
              {"low_freq_factor", 1.0},
              {"high_freq_factor", 4.0},
              {"original_max_position_embeddings", 8192}}},
            {"max_position_embeddings", 131072},
            {"cross_attention_layers", s.cross_layers},
            {"dropout", 0},
            {"tie_word_embeddings", false}};
  text.update(text_ids);
  const int features = 1 + static_cast<int>(s.feature_layers.size());
  return {{"architectures", {"MllamaForConditionalGeneration"}},
          {"model_type", "mllama"},
          {"image_token_index", s.vocabulary},
          {"torch_dtype", "bfloat16"},
          {"text_config", text},
          {"vision_config",
           {{"model_type", "mllama_vision_model"},
            {"hidden_size", s.vision_channels},
            {"intermediate_size", s.vision_feed_forward},
            {"attention_heads", s.vision_heads},
            {"num_hidden_layers", s.vision_layers},
            {"num_global_layers", s.global_layers},
            {"num_channels", 3},
            {"hidden_act", "gelu"},
            {"norm_eps", 1e-5},
            {"patch_size", 14},
            {"image_size", s.image_size},
            {"max_num_tiles", 4},
            {"vision_output_dim", s.vision_channels * features},
            {"intermediate_layers_indices", s.feature_layers},
            {"supported_aspect_ratios",
             {{1, 1}, {1, 2}, {1, 3}, {1, 4}, {2, 1}, {2, 2}, {3, 1}, {4, 1}}}}}};
}

// Llama 3.2 Vision as published for instructions: every fifth layer attends to the pictures.
json llama32_vision(int channels, int feed_forward, int heads, int layers) {
  std::vector<int> cross_layers;
  for (int i = 3; i < layers; i += 5) cross_layers.push_back(i);
  return mllama({channels,
                 feed_forward,
                 heads,
                 8,
                 128256,
                 layers,
                 cross_layers,
                 1280,
                 5120,
                 16,
                 32,
                 8,
                 560,
                 {3, 7, 15, 23, 30}},
                {{"bos_token_id", 128000}, {"eos_token_id", 128001}, {"pad_token_id", 128004}});
}

}  // namespace

std::vector<std::string> preset_names() {
  return {"tiny-qwen2-vl",      "smoke-qwen2-vl",     "qwen2-vl-2b",   "qwen2-vl-7b",
          "tiny-qwen2-5-vl",    "qwen2-5-vl-3b",      "qwen2-5-vl-7b", "tiny-mllama",
          "llama32-11b-vision", "llama32-90b-vision", "tiny-llama",    "llama3-8b"};
}

json preset_config(const std::string& name) {
  if (name == "tiny-qwen2-vl") {
    return qwen2_vl({128, 384, 4, 4, 2, 320, 128, 3, 4}, byte_vocabulary_ids(), true);
  }
  // Two blocks each: a random base this shallow passes on what the picture shows.
  if (name == "smoke-qwen2-vl") {
    return qwen2_vl({128, 384, 2, 4, 2, 320, 128, 2, 4}, byte_vocabulary_ids(), true);
  }
  if (name == "qwen2-vl-2b") {
    return qwen2_vl({1536, 8960, 28, 12, 2, 151936, 1280, 32, 16}, published_ids(), true);
  }
  if (name == "qwen2-vl-7b") {
    return qwen2_vl({3584, 18944, 28, 28, 4, 152064, 1280, 32, 16}, published_ids(), false);
  }
  // A window attends to 2 x 2 merged patches: pictures of 84 pixels have whole ones and parts.
  if (name == "tiny-qwen2-5-vl") {
    return qwen2_5_vl({128, 384, 2, 4, 2, 320, 128, 2, 4}, {342, 56, {1}}, byte_vocabulary_ids(),
                      true);
  }
  const WindowShape windows{3420, 112, {7, 15, 23, 31}};
  if (name == "qwen2-5-vl-3b") {
    return qwen2_5_vl({2048, 11008, 36, 16, 2, 151936, 1280, 32, 16}, windows, published_ids(),
                      true);
  }
  if (name == "qwen2-5-vl-7b") {
    return qwen2_5_vl({3584, 18944, 28, 28, 4, 152064, 1280, 32, 16}, windows, published_ids(),
                      false);
  }
  // 17 tokens a tile: padding of seven, as the published sizes need.
  if (name == "tiny-mllama") {
    return mllama({128, 384, 4, 2, 272, 5, {1, 3}, 64, 256, 4, 3, 2, 56, {0, 2}},
                  {{"bos_token_id", 256}, {"eos_token_id", 257}, {"pad_token_id", 258}});
  }
  if (name == "llama32-11b-vision") {
    return llama32_vision(4096, 14336, 32, 40);
  }
  if (name == "llama32-90b-vision") return llama32_vision(8192, 28672, 64, 100);
  if (name == "tiny-llama") {
    return llama({128, 384, 4, 4, 2, 272}, {{"bos_token_id", 256}, {"eos_token_id", 257}});
  }
  if (name == "llama3-8b") {
    return llama({4096, 14336, 32, 32, 8, 128256},
                 {{"bos_token_id", 128000}, {"eos_token_id", 128001}});
  }
  throw UserError(ExitCode::usage, fmt::format("--preset {}: expected one of {}", name,
                                               fmt::join(preset_names(), ", ")));
}

}  // namespace medvqa::train
