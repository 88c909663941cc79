#include "medvqa/scores/classification.h"

#include <fmt/format.h>

#include <algorithm>

#include "medvqa/core/error.h"

namespace medvqa::scores {
namespace {

double ratio(std::int64_t part, std::int64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

ClassScore score_of(const std::vector<std::vector<std::int64_t>>& confusion, std::size_t c) {
  ClassScore s;
  std::int64_t predicted = 0;
  for (std::size_t other = 0; other < confusion.size(); ++other) {
    s.samples += confusion[c][other];
    predicted += confusion[other][c];
  }
  const std::int64_t right = confusion[c][c];
  s.precision = ratio(right, predicted);
  s.recall = ratio(right, s.samples);
  s.f1 = ratio(2 * right, predicted + s.samples);
  return s;
}

}  // namespace

Classification score_classes(std::span<const std::int32_t> truth,
                             std::span<const std::int32_t> predicted, std::size_t classes) {
  MEDVQA_CHECK(truth.size() == predicted.size() && classes > 0, "a prediction a sample");
  Classification s;
  s.samples = static_cast<std::int64_t>(truth.size());
  s.confusion.assign(classes, std::vector<std::int64_t>(classes));
  std::int64_t right = 0;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    ++s.confusion.at(static_cast<std::size_t>(truth[i])).at(static_cast<std::size_t>(predicted[i]));
    if (truth[i] == predicted[i]) ++right;
  }
  s.accuracy = ratio(right, s.samples);
  double sum = 0;
  for (std::size_t c = 0; c < classes; ++c) {
    s.classes.push_back(score_of(s.confusion, c));
    sum += s.classes.back().f1;
  }
  s.macro_f1 = sum / static_cast<double>(classes);
  return s;
}

std::vector<std::string> confusion_table(const Classification& scores,
                                         std::span<const std::string> labels) {
  MEDVQA_CHECK(labels.size() == scores.classes.size(), "a label a class");
  constexpr std::size_t kNarrowest = 9;  // "predicted"
  std::size_t width = kNarrowest;
  for (const std::string& label : labels) width = std::max(width, label.size());
  const auto cell = [&](const std::string& text) { return fmt::format(" {:>{}}", text, width); };
  std::string head = cell("predicted");
  for (const std::string& label : labels) head += cell(label);
  std::vector<std::string> lines{head + cell("F1")};
  for (std::size_t c = 0; c < labels.size(); ++c) {
    std::string line = cell(labels[c]);
    for (const std::int64_t count : scores.confusion[c]) line += cell(std::to_string(count));
    lines.push_back(line + cell(fmt::format("{:.3f}", scores.classes[c].f1)));
  }
  return lines;
}

}  // namespace medvqa::scores
