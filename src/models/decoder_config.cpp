#include "medvqa/models/decoder_config.h"

namespace medvqa::models {

namespace {

void read_rope(const ConfigReader& r, DecoderConfig& c) {
  if (!r.has("rope_parameters")) return;
  const ConfigReader rope = r.section("rope_parameters");
  c.rope_theta = rope.number("rope_theta", 1, 1e12, c.rope_theta);
  const std::string type = rope.text("rope_type", "default");
  if (type == "default") return;
  if (type != "llama3") rope.refuse("rope_type", "\"" + type + "\"", "\"default\" or \"llama3\"");
  Llama3Scaling s;
  s.factor = rope.number("factor", 1e-3, 1e6);
  s.low = rope.number("low_freq_factor", 1e-3, 1e6);
  s.high = rope.number("high_freq_factor", 1e-3, 1e6);
  s.original_positions = rope.number("original_max_position_embeddings", 1, 1e9);
  if (s.high <= s.low) {
    rope.refuse("high_freq_factor", std::to_string(s.high), "a number above low_freq_factor");
  }
  c.scaling = s;
}

}  // namespace

void read_decoder_shape(const ConfigReader& r, DecoderConfig& c) {
  c.vocabulary = r.integer("vocab_size");
  c.channels = r.integer("hidden_size");
  c.feed_forward = r.integer("intermediate_size");
  c.layers = r.integer("num_hidden_layers");
  c.heads = r.integer("num_attention_heads");
  c.kv_heads = r.integer("num_key_value_heads", c.heads);
  c.eps = r.number("rms_norm_eps", 1e-12, 1, c.eps);
  if (c.channels % c.heads != 0 || c.head_size() % 2 != 0) {
    r.refuse("num_attention_heads", std::to_string(c.heads),
             "a divisor of hidden_size with an even head size");
  }
  if (c.heads % c.kv_heads != 0) {
    r.refuse("num_key_value_heads", std::to_string(c.kv_heads), "a divisor of the heads");
  }
  if (r.text("hidden_act", "silu") != "silu") {
    r.refuse("hidden_act", r.text("hidden_act", ""), "silu");
  }
  if (r.integer("head_dim", c.head_size()) != c.head_size()) {
    r.refuse("head_dim", std::to_string(r.integer("head_dim")),
             "hidden_size / num_attention_heads = " + std::to_string(c.head_size()));
  }
  r.number("attention_dropout", 0, 0, 0.0);
}

void read_decoder(const ConfigReader& r, DecoderConfig& c) {
  read_decoder_shape(r, c);
  read_rope(r, c);
}

std::vector<float> rotary_frequencies(const DecoderConfig& c) {
  std::vector<float> frequencies = inverse_frequencies(c.rope_theta, c.head_size());
  return c.scaling ? llama3_frequencies(std::move(frequencies), *c.scaling) : frequencies;
}

}  // namespace medvqa::models
