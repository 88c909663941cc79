// Small host tables a forward needs on the device, placed in the step arena.
#pragma once

#include <span>
#include <vector>

#include "medvqa/autograd/functions.h"
#include "medvqa/autograd/segment_tape.h"
#include "medvqa/models/input.h"

namespace medvqa::models {

template <class T>
Tensor upload(autograd::SegmentTape& tape, std::span<const T> values, Shape shape) {
  const Tensor t = tape.step_arena().allocate(shape, dtype_of<T>());
  tape.backend().upload(values.data(), values.size_bytes(), t);
  return t;
}

// 0, 1, 2, ... within each sample, for decoders with one axis of positions.
std::vector<std::int32_t> sequential_positions(const PackedInput& input);

// cos and sin of positions * inv_freq for axis-major positions [A][T]; pair f of a head follows
// axis[f]. inv_freq, axis: [D / 2].
autograd::RotaryAngles rotary_angles(autograd::SegmentTape& tape,
                                     std::span<const std::vector<std::int32_t>> positions,
                                     std::span<const float> inv_freq,
                                     std::span<const std::int32_t> axis);

// The input's patches [P, columns] in the compute type.
autograd::StepVar upload_patches(autograd::SegmentTape& tape, const PackedInput& input,
                                 std::int64_t columns, DType compute);

// Factors of rows [T] for an operation in that compute type: f32, or f64 with f64.
Tensor upload_factors(autograd::SegmentTape& tape, std::span<const float> factors, DType compute);

// i32 [N + 1] and the longest segment.
autograd::Segments segments(autograd::SegmentTape& tape, std::span<const std::int32_t> cu_seqlens);

}  // namespace medvqa::models
