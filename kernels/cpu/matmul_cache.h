// oneDNN's primitives by the shape, type and strides they were made for, and by whether they run on
// one thread (inside a parallel loop) or all: oneDNN settles that when it makes one.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>
#include <vector>

#include "medvqa/ops/params.h"

namespace medvqa::cpu {

// c_MN = alpha * op(a) op(b) [+ bias] [+ c], a and b f32 or bf16, c either.
class MatmulCache {
 public:
  MatmulCache();
  void run(const ops::Gemm& p, bool add_to_c);

 private:
  // Batches differ in length without end; a primitive takes 0.6 ms to make and 100 kB to keep.
  static constexpr std::size_t kMostEntries = 512;
  using Key = std::array<std::int64_t, 13>;
  struct Entry {
    dnnl::matmul primitive;
    // By argument; where they lie is set at each call.
    std::unordered_map<int, dnnl::memory> operands;
    std::size_t scratchpad_bytes = 0;
    int bias_argument = DNNL_ARG_BIAS;
  };
  Entry make(const ops::Gemm& p, bool add_to_c) const;

  dnnl::engine engine_;
  dnnl::stream stream_;
  std::map<Key, Entry> entries_;
  // The primitives' own temporaries: allocated by each call they cost a page fault for every 4 KiB.
  std::vector<std::byte> scratchpad_;
};

}  // namespace medvqa::cpu
