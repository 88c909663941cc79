#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "src/text/tokenizer_file.h"

namespace medvqa::text_detail {
namespace {

using Json = nlohmann::json;

// The ids that special_tokens gives a token of the template.
std::optional<std::vector<std::int32_t>> ids_of(const Json& processor, const Json& token) {
  if (!token.is_object() || !token.contains("id") || !token["id"].is_string()) return std::nullopt;
  const Json known = processor.value("special_tokens", Json::object());
  if (!known.is_object()) return std::nullopt;
  const Json entry = known.value(token["id"].get<std::string>(), Json());
  if (!entry.is_object() || !entry.contains("ids") || !entry["ids"].is_array()) return std::nullopt;
  std::vector<std::int32_t> ids;
  for (const Json& id : entry["ids"]) {
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() > 0x7fffffff) return std::nullopt;
    ids.push_back(id.get<std::int32_t>());
  }
  return ids;
}

// "single" is a list of special tokens with the text, sequence A, once among them.
bool read_template(const Json& processor, PostProcessor& out) {
  const Json single = processor.value("single", Json());
  if (!single.is_array()) return false;
  bool text_seen = false;
  for (const Json& piece : single) {
    if (!piece.is_object()) return false;
    if (piece.contains("Sequence")) {
      if (text_seen) return false;
      text_seen = true;
      continue;
    }
    const auto ids = ids_of(processor, piece.value("SpecialToken", Json()));
    if (!ids) return false;
    auto& place = text_seen ? out.after : out.before;
    place.insert(place.end(), ids->begin(), ids->end());
  }
  return text_seen;
}

bool read(const Json& value, PostProcessor& out) {
  const Json type = value.is_object() ? value.value("type", Json()) : Json();
  if (type == "ByteLevel") return true;
  if (type == "TemplateProcessing") {
    // The outer one stands around what the inner one has put there.
    PostProcessor outer;
    if (!read_template(value, outer)) return false;
    out.before.insert(out.before.begin(), outer.before.begin(), outer.before.end());
    out.after.insert(out.after.end(), outer.after.begin(), outer.after.end());
    return true;
  }
  if (type != "Sequence") return false;
  const Json list = value.value("processors", Json());
  if (!list.is_array()) return false;
  for (const Json& processor : list) {
    if (!read(processor, out)) return false;
  }
  return true;
}

}  // namespace

PostProcessor read_post_processor(const Json& value, const std::string& name) {
  PostProcessor out;
  if (value.is_null() || read(value, out)) return out;
  out.refused = fmt::format(
      "{}: post_processor: found one that cannot be followed, expected TemplateProcessing with "
      "the text once, ByteLevel or a Sequence of them; use the tokenizer.json published with the "
      "model",
      name);
  return out;
}

}  // namespace medvqa::text_detail
