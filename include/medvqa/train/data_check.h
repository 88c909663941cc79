// What is in a configuration's data and what is wrong with it, before a run finds out.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "medvqa/data/record.h"
#include "medvqa/train/config.h"

namespace medvqa::train {

struct SourceCounts {
  std::string set;  // "train" or "validation"
  data::Source source;
  std::int64_t rows = 0, bad = 0;
  data::Dropped dropped;
};

struct SetCounts {
  std::string name;  // "train" or "validation", after images were held out
  std::int64_t samples = 0, images = 0, without_image = 0, too_long = 0, repeated = 0;
  std::vector<std::int64_t> tokens, labels;           // a number a sample, sorted
  std::map<std::int64_t, std::int64_t> image_tokens;  // tokens of an image -> samples
};

// What two sets have in common. Images are the same if their files' bytes are.
struct Leak {
  std::string first, second;
  std::int64_t images = 0;
  std::int64_t triples = 0;  // image, question and answer, but for case
  std::vector<std::string> examples;
};

struct DataCheck {
  std::vector<SourceCounts> sources;
  std::vector<SetCounts> sets;
  std::vector<Leak> leaks;
  std::vector<std::string> bad;  // all of them
  std::vector<std::string> too_long;
  std::int64_t max_length = 0;
  bool decoded = false;  // whether the images' pixels were read, too
};

// Reads everything `config` names as data, and the tokenizer of its model. `decode`: every image
// whole, not only its header. Errors of rows are collected; others leave as UserError.
DataCheck check_data(const Config& config, bool decode);

constexpr std::size_t kShownRows = 20;
nlohmann::json to_json(const DataCheck& check);
std::string to_text(const DataCheck& check);

}  // namespace medvqa::train
