// Cases of 4-bit weights: making one 16-bit, multiplying few rows by it, and a whole linear layer.
// N x K: a weight [out, in] of uniformly random codes.
#pragma once

#include <vector>

#include "tests/bench/bench.h"

namespace medvqa::bench {

// Bytes of the packed weight, its maxima and the matrix made of it.
Result dequantize(Bench& b, std::int64_t out, std::int64_t in);

// nf4_product() of `rows` rows: bytes of weight, x and y. Calls go round weights of `cold_bytes`
// together, so that no cache of a device holds the next one. `by` says whether the device has a
// kernel for so few rows or makes the weight 16-bit first.
Result few_rows(Bench& b, std::int64_t rows, std::int64_t out, std::int64_t in,
                std::int64_t cold_bytes);

// What nn::Linear does with a 4-bit weight and an adapter of rank 16 for `tokens` rows, forward,
// and forward with backward (dx, dA, dB): the operations of the base's products alone, one and two.
std::vector<Result> linear_layer(Bench& b, std::int64_t tokens, std::int64_t out, std::int64_t in);

}  // namespace medvqa::bench
