// What lies beside weights: the model card, the licence's files, tokenizer and processor.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "medvqa/io/file.h"
#include "medvqa/io/licence.h"

namespace medvqa::io {

// What the model card says. Empty texts and tables read "not reported".
struct ModelCard {
  std::string title;
  std::string library = "peft";  // the Hub's library_name
  std::string base_model;        // name on the Hub; may be empty
  std::string description;       // what it is, a sentence or two
  Licence licence;
  std::string pipeline_tag = "image-text-to-text";
  std::vector<std::string> tags = {"lora", "medical", "visual-question-answering"};
  std::vector<std::pair<std::string, std::string>> recipe;  // setting, value
  std::string data;
  std::vector<std::pair<std::string, std::string>> scores;  // metric, value with interval
  std::string limits;
  // Recipe, data, scores and limits as an earlier card has them, in place of those above.
  std::string sections;
};

// README.md.
std::string model_card_text(const ModelCard& card);

// From the recipe to the limits, of a README.md that model_card_text wrote; empty if it is another.
std::string card_sections(const std::filesystem::path& readme);

// Research use only, and so on: for reports, pages and cards.
std::string_view medical_disclaimer();

// Copies tokenizer, processor, licence and notice files, and those of `more`, from the first of
// `folders` that has each; writes NOTICE where the licence asks for one and none was copied.
void copy_model_files(AtomicFolder& target, const std::vector<std::filesystem::path>& folders,
                      const Licence& licence, const std::vector<std::string>& more = {});

}  // namespace medvqa::io
