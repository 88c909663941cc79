#include "medvqa/models/upload.h"

#include <algorithm>

namespace medvqa::models {

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

autograd::Segments segments(autograd::SegmentTape& tape, std::span<const std::int32_t> cu_seqlens) {
  autograd::Segments s;
  s.cu_seqlens_N = upload(tape, cu_seqlens, {static_cast<std::int64_t>(cu_seqlens.size())});
  for (std::size_t i = 0; i + 1 < cu_seqlens.size(); ++i) {
    s.longest = std::max<std::int64_t>(s.longest, cu_seqlens[i + 1] - cu_seqlens[i]);
  }
  return s;
}

}  // namespace medvqa::models
