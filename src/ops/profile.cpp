#include "medvqa/ops/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace medvqa::ops {

double operations(const Gemm& p) {
  const std::int64_t inner = p.a.dim(p.transpose_a == Transpose::yes ? 0 : 1);
  return 2 * static_cast<double>(p.c.elements()) * static_cast<double>(inner);
}

double operations(const Nf4Product& p) {
  return 2 * static_cast<double>(p.y_MO.elements()) * static_cast<double>(p.weight.in);
}

double operations(const Attention& p) {
  const double all = 4 * static_cast<double>(p.q_THD.elements()) * static_cast<double>(p.max_k);
  return p.causal ? all / 2 : all;
}

double operations(const AttentionBackward& p) {
  return 2.5 * operations(p.forward);
}

double operations(const LinearCrossEntropy& p) {
  const double product =
      2 * static_cast<double>(p.x_RC.elements()) * static_cast<double>(p.weight_VC.dim(0));
  return product * (1 + (p.dx_RC ? 1 : 0) + (p.dweight_VC ? 1 : 0));
}

void Profile::add(const char* name, double seconds, double count) {
  Entry& e = entries_[name];
  ++e.calls;
  e.seconds += seconds;
  e.operations += count;
}

double Profile::seconds() const {
  double sum = 0;
  for (const auto& e : entries_) sum += e.second.seconds;
  return sum;
}

std::string Profile::table() const {
  std::vector<std::pair<std::string, Entry>> rows(entries_.begin(), entries_.end());
  std::sort(rows.begin(), rows.end(),
            [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  const double all = std::max(seconds(), 1e-12);
  std::string text = fmt::format("{:<26} {:>9} {:>10} {:>7} {:>10}\n", "operation", "calls",
                                 "seconds", "share", "GFLOP/s");
  for (const auto& row : rows) {
    const Entry& e = row.second;
    const std::string rate =
        e.operations > 0 ? fmt::format("{:.1f}", e.operations / e.seconds / 1e9) : "";
    text += fmt::format("{:<26} {:>9} {:>10.3f} {:>6.1f}% {:>10}\n", row.first, e.calls, e.seconds,
                        100 * e.seconds / all, rate);
  }
  return text + fmt::format("{:<26} {:>9} {:>10.3f}\n", "all", "", all);
}

}  // namespace medvqa::ops
