// The picture of a run's loss, drawn from its metrics.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace medvqa::train {

struct LossPoint {
  std::int64_t step = 0;
  double loss = 0;
};

struct LossCurves {
  std::vector<LossPoint> train, evaluation;
};

// Of the lines of metrics.jsonl; what is no line of a step or an evaluation is left out.
LossCurves read_loss_curves(const std::filesystem::path& metrics);

// An SVG in the colours of the reader's theme, light or dark.
std::string loss_plot(const LossCurves& curves, const std::string& title);

// Writes loss.svg in a run's folder from the metrics.jsonl there. Without any loss it does nothing.
void write_loss_plot(const std::filesystem::path& run);

}  // namespace medvqa::train
