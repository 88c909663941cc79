// What a configuration says about data, before anything is read.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

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
  // Rows of texts with a class: they need no question and no answer, and the image they name is a
  // column like any other, by which rows are held out; its file is not looked for.
  bool text_only = false;
};

// Text classification: which column holds a record's class, and which classes there are, in order.
struct Classes {
  std::string column;
  std::vector<std::string> labels;  // as the column has them
  std::vector<std::string> texts;   // of each label, a text that is one token
};

// How a record becomes a conversation.
struct PromptOptions {
  std::string prompt = "{question}";  // {column} takes any column of the record
  std::optional<std::string> system;  // nothing: the model's default
  bool image_first = true;
  LossOn loss_on = LossOn::answer;
};

}  // namespace medvqa::data
