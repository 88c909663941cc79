#include "medvqa/io/tensor_names.h"

#include <span>

namespace medvqa::io {
namespace {

struct Prefix {
  std::string_view hub;
  std::string_view canonical;
};

// The first match wins, so the longer of two overlapping prefixes stands first.
constexpr Prefix kQwen2Vl[] = {{"visual.", "model.visual."}, {"model.", "model.language_model."}};
constexpr Prefix kMllama[] = {{"language_model.model.", "model.language_model."},
                              {"language_model.lm_head.", "lm_head."},
                              {"vision_model.", "model.vision_model."},
                              {"multi_modal_projector.", "model.multi_modal_projector."}};

std::span<const Prefix> prefixes_of(NameStyle style) {
  if (style == NameStyle::qwen2_vl) return kQwen2Vl;
  if (style == NameStyle::mllama) return kMllama;
  return {};
}

std::string replaced(std::string_view name, std::string_view from, std::string_view to) {
  return std::string(to) + std::string(name.substr(from.size()));
}

}  // namespace

NameStyle name_style_of(std::string_view model_type) {
  if (model_type.starts_with("qwen2_vl") || model_type.starts_with("qwen2_5_vl")) {
    return NameStyle::qwen2_vl;
  }
  return model_type.starts_with("mllama") ? NameStyle::mllama : NameStyle::plain;
}

std::string canonical_name(NameStyle style, std::string_view stored) {
  for (const Prefix& prefix : prefixes_of(style)) {
    if (stored.starts_with(prefix.canonical)) return std::string(stored);
  }
  for (const Prefix& prefix : prefixes_of(style)) {
    if (stored.starts_with(prefix.hub)) return replaced(stored, prefix.hub, prefix.canonical);
  }
  return std::string(stored);
}

std::string hub_name(NameStyle style, std::string_view canonical) {
  for (const Prefix& prefix : prefixes_of(style)) {
    if (canonical.starts_with(prefix.canonical)) {
      return replaced(canonical, prefix.canonical, prefix.hub);
    }
  }
  return std::string(canonical);
}

}  // namespace medvqa::io
