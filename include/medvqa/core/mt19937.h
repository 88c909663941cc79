// MT19937 as PyTorch's CPU generator uses it: the order of data and the first LoRA values are met
// bit for bit. Matsumoto & Nishimura 1998.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace medvqa {

class TorchGenerator {
 public:
  explicit TorchGenerator(std::uint64_t seed) : engine_(static_cast<std::uint32_t>(seed)) {}

  std::uint32_t next() { return static_cast<std::uint32_t>(engine_()); }
  // torch.randperm(n): for i in 0..n-2 swap r[i] with r[i + next % (n - i)].
  std::vector<std::int64_t> permutation(std::int64_t n);
  // Tensor.uniform_(from, to) in f32: 24 random bits a value.
  void uniform(std::span<float> values, float from, float to);
  // Discards the draws of a tensor of n f32 values.
  void skip(std::uint64_t n) { engine_.discard(n); }

 private:
  std::mt19937 engine_;
};

}  // namespace medvqa
