// How well predicted classes agree with the true ones. Pure functions of the two lists.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace medvqa::scores {

// Of one class: precision = tp / (tp + fp), recall = tp / (tp + fn),
// F1 = 2 tp / (2 tp + fp + fn); 0 where a denominator is 0, as scikit-learn's zero_division=0.
struct ClassScore {
  double precision = 0, recall = 0, f1 = 0;
  std::int64_t samples = 0;  // that are of this class
};

struct Classification {
  std::int64_t samples = 0;
  double accuracy = 0;
  double macro_f1 = 0;  // mean F1 of all classes, those without samples too
  std::vector<ClassScore> classes;
  std::vector<std::vector<std::int64_t>> confusion;  // [true class][predicted class]
};

// Both lists hold indices of `classes` classes, a pair a sample.
Classification score_classes(std::span<const std::int32_t> truth,
                             std::span<const std::int32_t> predicted, std::size_t classes);

// The confusion matrix with a row a true class, and its F1, as lines of a table.
std::vector<std::string> confusion_table(const Classification& scores,
                                         std::span<const std::string> labels);

}  // namespace medvqa::scores
