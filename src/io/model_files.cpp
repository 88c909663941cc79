#include "medvqa/io/model_files.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace medvqa::io {
namespace fs = std::filesystem;
namespace {

constexpr const char* kNotReported = "not reported";
constexpr const char* kFirstSection = "## Recipe\n";
constexpr const char* kLicenceSection = "\n## Licence\n";

constexpr const char* kCopied[] = {"tokenizer.json",
                                   "tokenizer.model",
                                   "tokenizer_config.json",
                                   "special_tokens_map.json",
                                   "added_tokens.json",
                                   "vocab.json",
                                   "merges.txt",
                                   "chat_template.json",
                                   "chat_template.jinja",
                                   "preprocessor_config.json",
                                   "video_preprocessor_config.json",
                                   "processor_config.json",
                                   "LICENSE",
                                   "LICENSE.txt",
                                   "LICENSE.md",
                                   "NOTICE",
                                   "NOTICE.txt",
                                   "USE_POLICY.md"};

std::string or_not(const std::string& text) {
  return text.empty() ? kNotReported : text;
}

// A YAML string: JSON's quoting is valid YAML.
std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string table(const std::vector<std::pair<std::string, std::string>>& rows, const char* left,
                  const char* right) {
  if (rows.empty()) return std::string(kNotReported) + "\n";
  std::string text = fmt::format("| {} | {} |\n|---|---|\n", left, right);
  for (const auto& row : rows) text += fmt::format("| {} | {} |\n", row.first, or_not(row.second));
  return text;
}

std::string front_matter(const ModelCard& card) {
  std::string text = fmt::format("---\nlibrary_name: {}\n", card.library);
  if (!card.base_model.empty()) text += fmt::format("base_model: {}\n", quoted(card.base_model));
  if (!card.pipeline_tag.empty()) text += fmt::format("pipeline_tag: {}\n", card.pipeline_tag);
  if (!card.licence.id.empty()) text += fmt::format("license: {}\n", card.licence.id);
  text += "tags:\n";
  for (const std::string& tag : card.tags) text += fmt::format("- {}\n", quoted(tag));
  return text + "---\n\n";
}

std::string sections_of(const ModelCard& card) {
  if (!card.sections.empty()) return card.sections;
  std::string text = kFirstSection;
  text += "\n" + table(card.recipe, "setting", "value");
  text += "\n## Data\n\n" + or_not(card.data) + "\n";
  text += "\n## Scores\n\n" + table(card.scores, "metric", "value");
  return text + "\n## Limits\n\n" + or_not(card.limits) + "\n";
}

}  // namespace

std::string_view medical_disclaimer() {
  return "For research and education only. Not validated for clinical use. Every output needs "
         "review by a qualified physician.";
}

std::string model_card_text(const ModelCard& card) {
  std::string text = front_matter(card);
  text += fmt::format("# {}\n\n", card.title.empty() ? "LoRA adapter" : card.title);
  text += fmt::format("> **{}**\n\n", medical_disclaimer());
  if (!card.description.empty()) text += card.description + "\n\n";
  if (!card.licence.built_with.empty()) text += card.licence.built_with + ".\n\n";
  text += sections_of(card) + kLicenceSection + "\n" + or_not(card.licence.id) + "\n";
  if (card.licence.llama()) text += "\n" + card.licence.notice;
  return text;
}

std::string card_sections(const fs::path& readme) {
  if (!fs::is_regular_file(readme)) return "";
  const std::string text = read_text_file(readme);
  const auto begin = text.find(std::string("\n") + kFirstSection);
  const auto end = text.find(kLicenceSection, begin == std::string::npos ? 0 : begin);
  const bool ours = text.find(medical_disclaimer()) < begin && end != std::string::npos;
  return ours && begin != std::string::npos ? text.substr(begin + 1, end - begin - 1) : "";
}

void copy_model_files(AtomicFolder& target, const std::vector<fs::path>& folders,
                      const Licence& licence, const std::vector<std::string>& more) {
  std::vector<std::string> names(std::begin(kCopied), std::end(kCopied));
  names.insert(names.end(), more.begin(), more.end());
  for (const std::string& name : names) {
    for (const fs::path& folder : folders) {
      if (folder.empty() || !fs::is_regular_file(folder / name)) continue;
      target.copy_in(folder / name);
      break;
    }
  }
  const fs::path& made = target.aside();
  const bool has_notice = fs::exists(made / "NOTICE") || fs::exists(made / "NOTICE.txt");
  if (licence.llama() && !has_notice) target.write("NOTICE", licence.notice);
}

}  // namespace medvqa::io
