#include "medvqa/models/upload.h"

#include <algorithm>

namespace medvqa::models {

std::vector<std::int32_t> sequential_positions(const PackedInput& input) {
  std::vector<std::int32_t> all;
  all.reserve(input.ids.size());
  for (std::size_t n = 0; n + 1 < input.cu_seqlens.size(); ++n) {
    for (std::int32_t t = input.cu_seqlens[n]; t < input.cu_seqlens[n + 1]; ++t) {
      all.push_back(t - input.cu_seqlens[n]);
    }
  }
  return all;
}

autograd::RotaryAngles rotary_angles(autograd::SegmentTape& tape,
                                     std::span<const std::vector<std::int32_t>> positions,
                                     std::span<const float> inv_freq,
                                     std::span<const std::int32_t> axis) {
  const auto axes = static_cast<std::int64_t>(positions.size());
  const auto tokens = static_cast<std::int64_t>(positions.front().size());
  const auto pairs = static_cast<std::int64_t>(inv_freq.size());
  std::vector<std::int32_t> flat;
  for (const auto& row : positions) flat.insert(flat.end(), row.begin(), row.end());
  Arena& arena = tape.step_arena();
  const autograd::RotaryAngles angles{arena.allocate({tokens, pairs}, DType::f32),
                                      arena.allocate({tokens, pairs}, DType::f32)};
  tape.backend().rotary_table(
      {.positions_AT = upload(tape, std::span<const std::int32_t>(flat), {axes, tokens}),
       .inv_freq_F = upload(tape, inv_freq, {pairs}),
       .axis_F = upload(tape, axis, {pairs}),
       .cos_TF = angles.cos_TF,
       .sin_TF = angles.sin_TF});
  return angles;
}

autograd::StepVar upload_patches(autograd::SegmentTape& tape, const PackedInput& input,
                                 std::int64_t columns, DType compute) {
  const Shape shape{input.patch_rows, columns};
  autograd::StepVar patches = tape.input(shape, compute);
  Arena::Scope scope(tape.block_arena());
  const bool converts = compute != DType::f32;
  const Tensor pixels = converts ? tape.block_arena().allocate(shape, DType::f32) : patches.value;
  tape.backend().upload(input.patches.data(), pixels.bytes(), pixels);
  if (converts) tape.backend().convert(pixels, patches.value);
  return patches;
}

Tensor upload_factors(autograd::SegmentTape& tape, std::span<const float> factors, DType compute) {
  const Tensor f = upload(tape, factors, {static_cast<std::int64_t>(factors.size())});
  if (compute != DType::f64) return f;
  const Tensor wide = tape.step_arena().allocate(f.shape, compute);
  tape.backend().convert(f, wide);
  return wide;
}

autograd::Segments segments(autograd::SegmentTape& tape, std::span<const std::int32_t> cu_seqlens) {
  autograd::Segments s;
  s.cu_seqlens_N = upload(tape, cu_seqlens, {static_cast<std::int64_t>(cu_seqlens.size())});
  for (std::size_t i = 0; i + 1 < cu_seqlens.size(); ++i) {
    s.longest = std::max<std::int64_t>(s.longest, cu_seqlens[i + 1] - cu_seqlens[i]);
  }
  return s;
}

}  // namespace medvqa::models
