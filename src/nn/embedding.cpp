// T tokens, C channels, V vocabulary.
#include "medvqa/nn/embedding.h"

#include <fmt/format.h>

#include <algorithm>

namespace medvqa::nn {

Embedding::Embedding(Builder& builder, const TensorRequest& request, bool read_by_head)
    : compute_(builder.compute()),
      vocabulary_(request.shape.at(0)),
      channels_(request.shape.at(1)) {
  if (builder.embedding() == ops::Place::host && !read_by_head) {
    host_VC_ = builder.read_on_host(request);
  } else {
    device_VC_ = builder.dense(request, {vocabulary_, channels_});
  }
}

autograd::StepVar Embedding::operator()(autograd::SegmentTape& tape,
                                        std::span<const std::int32_t> ids) const {
  const auto tokens = static_cast<std::int64_t>(ids.size());
  autograd::StepVar y = tape.input({tokens, channels_}, residual_type(compute_));
  Arena::Scope scope(tape.block_arena());
  const bool same = y.value.dtype == compute_;
  const Tensor stored = same ? y.value : tape.block_arena().allocate(y.value.shape, compute_);
  if (device_VC_) {
    const Tensor rows = tape.block_arena().allocate({tokens}, DType::i32);
    tape.backend().upload(ids.data(), ids.size_bytes(), rows);
    tape.backend().gather_rows(device_VC_, rows, stored);
  } else {
    gather_on_host(tape, ids, stored);
  }
  if (!same) tape.backend().convert(stored, y.value);
  return y;
}

void Embedding::gather_on_host(autograd::SegmentTape& tape, std::span<const std::int32_t> ids,
                               const Tensor& y_TC) const {
  Arena::Scope scope(tape.host_arena());
  const Tensor staging = tape.host_arena().allocate(y_TC.shape, compute_);
  if (staging.data != nullptr && !host_VC_.bytes.empty()) {
    const std::size_t stored = static_cast<std::size_t>(channels_) * size_of(host_VC_.dtype);
    const std::size_t wanted = static_cast<std::size_t>(channels_) * size_of(compute_);
    auto* to = static_cast<std::byte*>(staging.data);
    for (const std::int32_t id : ids) {
      if (id < 0 || id >= vocabulary_) {
        throw UserError(ExitCode::data, fmt::format("token id {} is beyond the model's vocabulary "
                                                    "of {}; take tokenizer and model from the same "
                                                    "checkpoint",
                                                    id, vocabulary_));
      }
      const auto row = host_VC_.bytes.subspan(static_cast<std::size_t>(id) * stored, stored);
      convert_elements(row, host_VC_.dtype, {to, wanted}, compute_);
      to += wanted;
    }
  }
  tape.backend().upload(staging.data, staging.bytes(), y_TC);
}

}  // namespace medvqa::nn
