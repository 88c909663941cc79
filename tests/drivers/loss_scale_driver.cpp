// medvqa_loss_scale_driver GROWTH_INTERVAL: for every character of its input, 1 for a finite step
// and 0 for one that is not, a line with the scale and the growth tracker after it.
#include <fmt/format.h>

#include <iostream>
#include <string>

#include "medvqa/train/loss_scale.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  medvqa::train::LossScale scale({.growth_interval = std::stoll(argv[1])});
  for (char step = 0; std::cin >> step;) {
    scale.update(step == '1');
    std::cout << fmt::format("{} {}\n", scale.value(), scale.state().finite_steps);
  }
  return 0;
}
