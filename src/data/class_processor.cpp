#include "src/data/class_processor.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "medvqa/core/error.h"
#include "medvqa/io/json.h"
#include "medvqa/text/label_mask.h"
#include "medvqa/text/tokenizer.h"
#include "src/data/chat_processor.h"
#include "src/data/prompt_template.h"

namespace medvqa::data {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string shown(const std::string& text) {
  return io::describe_json(json(text));
}

std::vector<std::int32_t> tokens_of(const Tokenizer& tokenizer, const Classes& classes) {
  std::vector<std::int32_t> tokens;
  std::map<std::int32_t, std::size_t> known;
  for (std::size_t i = 0; i < classes.labels.size(); ++i) {
    const std::vector<std::int32_t> ids = tokenizer.encode(classes.texts[i]).ids;
    const std::string where = fmt::format("classification.classes: {} of the class {}",
                                          shown(classes.texts[i]), shown(classes.labels[i]));
    if (ids.size() != 1) {
      throw UserError(ExitCode::config,
                      fmt::format("{} is {} tokens of this model, expected exactly one; choose "
                                  "another text, such as a short word, with or without a blank "
                                  "before it",
                                  where, ids.size()));
    }
    const auto added = known.emplace(ids.front(), i);
    if (!added.second) {
      throw UserError(ExitCode::config,
                      fmt::format("{} is token {}, as {} of the class {} is; expected a token of "
                                  "its own for every class",
                                  where, ids.front(), shown(classes.texts[added.first->second]),
                                  shown(classes.labels[added.first->second])));
    }
    tokens.push_back(ids.front());
  }
  return tokens;
}

class ClassProcessor final : public Processor {
 public:
  ClassProcessor(Tokenizer tokenizer, SpecialTokens around, const ProcessorOptions& options)
      : tokenizer_(std::move(tokenizer)),
        around_(std::move(around)),
        prompt_(options.prompt.prompt),
        classes_(*options.classes) {
    tokens_of(tokenizer_, classes_);
  }

  Example prepare(const Record& record) const override { return prepare(record, label_of(record)); }
  // With the label of another class.
  Example prepare(const Record& record, const std::string& label) const override;
  void load_patches(const Example&, std::vector<float>&) const override {}
  std::int64_t patch_columns() const override { return 0; }
  std::pair<std::string, std::string> content(const Record& record) const override {
    return {prompt_.fill(record.columns), label_of(record)};
  }
  std::string describe(const Example& example) const override {
    return fmt::format("{}[[class {}]]", tokenizer_.decode(example.ids, /*skip_special=*/false),
                       shown(classes_.labels.at(static_cast<std::size_t>(*example.class_index))));
  }

 private:
  const std::string& label_of(const Record& record) const;
  std::int32_t index_of(const std::string& label) const;

  Tokenizer tokenizer_;
  SpecialTokens around_;
  PromptTemplate prompt_;
  Classes classes_;
};

const std::string& ClassProcessor::label_of(const Record& record) const {
  const auto found = record.columns.find(classes_.column);
  if (found != record.columns.end()) return found->second;
  std::vector<std::string> names;
  for (const auto& column : record.columns) names.push_back(column.first);
  throw UserError(ExitCode::data,
                  fmt::format("{}: found no column \"{}\" with the class, only {}; complete the "
                              "row, or mend data.label",
                              record.place, classes_.column, fmt::join(names, ", ")));
}

std::int32_t ClassProcessor::index_of(const std::string& label) const {
  const auto& labels = classes_.labels;
  const auto found = std::find(labels.begin(), labels.end(), label);
  if (found != labels.end()) return static_cast<std::int32_t>(found - labels.begin());
  throw UserError(ExitCode::data, fmt::format("found the class {}, expected one of {}; mend the "
                                              "row or add the class to classification.classes",
                                              shown(label), fmt::join(labels, ", ")));
}

Example ClassProcessor::prepare(const Record& record, const std::string& label) const {
  try {
    Example example;
    example.id = record.id;
    example.grid = {1, 0, 0};
    example.class_index = index_of(label);
    example.ids = around_.before;
    const std::vector<std::int32_t> text = tokenizer_.encode(prompt_.fill(record.columns)).ids;
    example.ids.insert(example.ids.end(), text.begin(), text.end());
    example.ids.insert(example.ids.end(), around_.after.begin(), around_.after.end());
    example.labels.assign(example.ids.size(), kNoLabel);
    if (!example.ids.empty()) return example;
    throw UserError(ExitCode::data,
                    "found no token in the prompt, expected at least one; mend the row or "
                    "data.prompt");
  } catch (const UserError& error) {
    throw UserError(error.code(), fmt::format("record {}: {}", record.id, error.what()));
  }
}

}  // namespace

std::unique_ptr<Processor> make_class_processor(const fs::path& model_folder, const json& config,
                                                const ProcessorOptions& options) {
  const io::JsonObject root(config, (model_folder / "config.json").string(), ExitCode::model);
  Tokenizer tokenizer = Tokenizer::load_folder(model_folder);
  const std::int64_t vocabulary = root.object("text_config").integer("vocab_size", 1);
  check_vocabulary(tokenizer, root, vocabulary, vocabulary);
  SpecialTokens around = tokenizer.special_tokens();
  return std::make_unique<ClassProcessor>(std::move(tokenizer), std::move(around), options);
}

std::vector<std::int32_t> class_tokens(const fs::path& model_folder, const Classes& classes) {
  return tokens_of(Tokenizer::load_folder(model_folder), classes);
}

}  // namespace medvqa::data
