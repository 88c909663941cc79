// The findings of data_check.cpp for people and for programs.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "medvqa/train/data_check.h"

namespace medvqa::train {

namespace {

using nlohmann::json;

std::int64_t quantile(const std::vector<std::int64_t>& sorted, double share) {
  const auto at = static_cast<std::size_t>(share * static_cast<double>(sorted.size() - 1));
  return sorted[at];
}

json spread(const std::vector<std::int64_t>& sorted) {
  if (sorted.empty()) return nullptr;
  return {{"min", sorted.front()},
          {"median", quantile(sorted, 0.5)},
          {"p95", quantile(sorted, 0.95)},
          {"max", sorted.back()}};
}

std::string spread_text(const std::vector<std::int64_t>& sorted) {
  if (sorted.empty()) return "none";
  return fmt::format("{} / {} / {} / {}", sorted.front(), quantile(sorted, 0.5),
                     quantile(sorted, 0.95), sorted.back());
}

json first_of(const std::vector<std::string>& list) {
  const auto shown = static_cast<std::ptrdiff_t>(std::min(list.size(), kShownRows));
  return std::vector<std::string>(list.begin(), list.begin() + shown);
}

std::string split_text(const data::Source& source) {
  return source.split.empty() ? "every split" : "split " + source.split;
}

// Image tokens in at most ten ranges of equal width.
std::string histogram(const std::map<std::int64_t, std::int64_t>& counts) {
  if (counts.empty()) return "";
  constexpr std::int64_t kRanges = 10, kBar = 40;
  const std::int64_t low = counts.begin()->first, high = counts.rbegin()->first;
  const std::int64_t width = (high - low) / kRanges + 1;
  std::map<std::int64_t, std::int64_t> ranges;
  for (const auto& [tokens, samples] : counts) ranges[(tokens - low) / width] += samples;
  std::int64_t most = 0;
  for (const auto& range : ranges) most = std::max(most, range.second);
  std::string out = "  tokens of the image: samples\n";
  for (const auto& range : ranges) {
    const std::int64_t from = low + range.first * width;
    const std::string name =
        width == 1 ? fmt::format("{}", from) : fmt::format("{}-{}", from, from + width - 1);
    const auto bar = static_cast<std::size_t>((range.second * kBar + most - 1) / most);
    out += fmt::format("  {:>12} {:>8} {}\n", name, range.second, std::string(bar, '#'));
  }
  return out;
}

std::string set_text(const SetCounts& s, std::int64_t max_length) {
  std::string out = fmt::format("{}: {} samples, {} images, {} without an image\n", s.name,
                                s.samples, s.images, s.without_image);
  if (s.samples == 0) return out;
  out += fmt::format(
      "  tokens, min / median / 95 % / max: {}; data.max_length {}; too long: {}\n"
      "  tokens counted in the loss: {}\n",
      spread_text(s.tokens), max_length, s.too_long, spread_text(s.labels));
  if (s.repeated > 0) {
    out += fmt::format("  {} repeat the image, question and answer of another\n", s.repeated);
  }
  return out + histogram(s.image_tokens);
}

std::string list_text(const std::string& title, const std::vector<std::string>& list) {
  if (list.empty()) return "";
  std::string out = fmt::format("{}: {}\n", title, list.size());
  for (std::size_t i = 0; i < std::min(list.size(), kShownRows); ++i) {
    out += "  " + list[i] + "\n";
  }
  if (list.size() > kShownRows) out += fmt::format("  ... {} more\n", list.size() - kShownRows);
  return out;
}

}  // namespace

json to_json(const DataCheck& check) {
  json sources = json::array(), sets = json::object(), leaks = json::array();
  for (const SourceCounts& s : check.sources) {
    sources.push_back({{"set", s.set},
                       {"format", s.source.format},
                       {"path", s.source.path.string()},
                       {"split", s.source.split},
                       {"rows", s.rows},
                       {"bad", s.bad},
                       {"dropped", s.dropped}});
  }
  for (const SetCounts& s : check.sets) {
    json histogram = json::array();
    for (const auto& entry : s.image_tokens) {
      histogram.push_back({{"tokens", entry.first}, {"samples", entry.second}});
    }
    sets[s.name] = {{"samples", s.samples},       {"images", s.images},
                    {"too_long", s.too_long},     {"without_image", s.without_image},
                    {"tokens", spread(s.tokens)}, {"repeated", s.repeated},
                    {"image_tokens", histogram},  {"label_tokens", spread(s.labels)}};
  }
  for (const Leak& l : check.leaks) {
    leaks.push_back({{"between", {l.first, l.second}},
                     {"images", l.images},
                     {"triples", l.triples},
                     {"examples", l.examples}});
  }
  return {{"sources", sources},
          {"sets", sets},
          {"leaks", leaks},
          {"max_length", check.max_length},
          {"images_decoded", check.decoded},
          {"bad", {{"count", check.bad.size()}, {"rows", first_of(check.bad)}}},
          {"too_long", {{"count", check.too_long.size()}, {"rows", first_of(check.too_long)}}}};
}

std::string to_text(const DataCheck& check) {
  std::string out;
  for (const SourceCounts& s : check.sources) {
    out += fmt::format("{} source {} ({}, {}): {} rows, {} bad\n", s.set, s.source.path.string(),
                       s.source.format, split_text(s.source), s.rows, s.bad);
    for (const auto& reason : s.dropped) {
      out += fmt::format("  left out: {} rows, {}\n", reason.second, reason.first);
    }
  }
  for (const SetCounts& s : check.sets) out += set_text(s, check.max_length);
  for (const Leak& l : check.leaks) {
    out += fmt::format(
        "leak: {} and {} share {} images; {} rows of {} are in {} word for word: "
        "{}, ...\n",
        l.first, l.second, l.images, l.triples, l.second, l.first, fmt::join(l.examples, ", "));
  }
  if (check.leaks.empty()) out += "no leaks between the sets\n";
  out += list_text("longer than data.max_length", check.too_long);
  return out + list_text("bad rows", check.bad);
}

}  // namespace medvqa::train
