// What a configuration says about data, before anything is read.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "medvqa/text/label_mask.h"

namespace medvqa::data {

// One entry of data.train or data.validation.
struct Source {
  std::string format;  // "vqa-rad", "json", "jsonl", "csv"
  std::filesystem::path path;
  std::string split;     // empty: every record
  char delimiter = ',';  // of a CSV file
  // A bad row does not end the reading but goes to Records::bad.
  bool keep_going = false;
};

// How a record becomes a conversation.
struct PromptOptions {
  std::string prompt = "{question}";  // {column} takes any column of the record
  std::optional<std::string> system;  // nothing: the model's default
  bool image_first = true;
  LossOn loss_on = LossOn::answer;
};

}  // namespace medvqa::data
