#include "medvqa/io/licence.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <nlohmann/json.hpp>

#include "medvqa/io/file.h"

namespace medvqa::io {
namespace fs = std::filesystem;
namespace {

// The newest first: "llama 3" begins every name of them.
constexpr std::array kVersions{"3.3", "3.2", "3.1", "3", "2"};
constexpr std::array kTexts{"LICENSE", "LICENSE.txt", "LICENSE.md"};

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

// The `license:` line at the head of the base model's card.
std::string licence_in_card(const fs::path& card) {
  if (!fs::is_regular_file(card)) return "";
  const std::string text = read_text_file(card);
  const auto end = text.find("\n---", 3);
  if (!text.starts_with("---") || end == std::string::npos) return "";
  const std::string head = text.substr(0, end);
  const std::string key = "\nlicense:";
  const auto found = head.find(key);
  if (found == std::string::npos) return "";
  std::string value =
      head.substr(found + key.size(), head.find('\n', found + 1) - found - key.size());
  std::erase_if(value, [](unsigned char c) {
    return std::isalnum(c) == 0 && c != '-' && c != '.' && c != '_';
  });
  return value;
}

// "LLAMA 3.2 COMMUNITY LICENSE AGREEMENT" near the head of a licence text.
std::string licence_in_text(const fs::path& folder) {
  constexpr std::size_t kHead = 400;
  for (const char* name : kTexts) {
    if (!fs::is_regular_file(folder / name)) continue;
    const std::string head = lower(read_text_file(folder / name).substr(0, kHead));
    for (const char* version : kVersions) {
      if (head.find(fmt::format("llama {} community license", version)) != std::string::npos) {
        return std::string("llama") + version;
      }
    }
  }
  return "";
}

// "meta-llama/Llama-3.1-8B-Instruct", "Meta-Llama-3-8B", "unsloth/llama-3-8b-bnb-4bit".
std::string licence_in_name(const std::string& base_name) {
  const std::string name = lower(base_name);
  for (const char* version : kVersions) {
    for (const char* dash : {"-", ""}) {
      const std::string written = fmt::format("llama{}{}", dash, version);
      const auto found = name.find(written);
      if (found == std::string::npos) continue;
      const auto next = found + written.size();
      // "llama-30b" is no version 3, and "llama-2.7b" no version 2.
      const bool longer =
          next < name.size() &&
          (std::isdigit(static_cast<unsigned char>(name[next])) != 0 || name[next] == '.');
      if (!longer) return std::string("llama") + version;
    }
  }
  return "";
}

std::string licence_in_family(const nlohmann::json& config, const std::string& base_name) {
  const std::string family = config.value("model_type", "");
  if (family == "mllama") return "llama3.2";
  if (family == "llama") return licence_in_name(base_name);
  const nlohmann::json text = config.value("text_config", nlohmann::json::object());
  const auto width = text.value("hidden_size", std::int64_t{0});
  return family == "qwen2_vl" && (width == 1536 || width == 3584) ? "apache-2.0" : "";
}

}  // namespace

Licence licence_of(const std::string& id) {
  Licence l;
  l.id = id;
  const auto known = std::find_if(kVersions.begin(), kVersions.end(), [&](const char* version) {
    return id == std::string("llama") + version;
  });
  if (known == kVersions.end()) return l;
  const std::string version = *known;
  const std::string product = (version == "3" ? "Meta Llama " : "Llama ") + version;
  l.name = product + " Community License";
  l.notice = fmt::format(
      "{} is licensed under the {}, Copyright (c) Meta Platforms, Inc. All Rights Reserved.\n",
      product, l.name);
  if (version != "2")
    l.built_with = version == "3" ? "Built with Meta Llama 3" : "Built with Llama";
  return l;
}

Licence find_licence(const fs::path& base_folder, const nlohmann::json& config,
                     const std::string& base_name) {
  std::string id;
  if (!base_folder.empty()) {
    id = licence_in_card(base_folder / "README.md");
    if (id.empty() || id == "other") {
      const std::string text = licence_in_text(base_folder);
      if (!text.empty()) id = text;
    }
  }
  if (id.empty() || id == "other") {
    const std::string family = licence_in_family(config, base_name);
    if (!family.empty()) id = family;
  }
  Licence l = licence_of(id);
  l.not_in_the_eu = l.id == "llama3.2" && config.value("model_type", "") == "mllama";
  return l;
}

}  // namespace medvqa::io
