// The table of token embeddings, frozen: in device memory, or in the host's, from where only the
// rows of a batch's tokens go to the device.
#pragma once

#include <cstdint>
#include <span>

#include "medvqa/autograd/segment_tape.h"
#include "medvqa/nn/builder.h"

namespace medvqa::nn {

class Embedding {
 public:
  // `request` is [V, C]. Where it lies is the builder's choice, unless `read_by_head`: a head that
  // is the table itself needs it on the device.
  Embedding(Builder& builder, const TensorRequest& request, bool read_by_head = false);

  // y_TC[t] = table[ids[t]] in the residual stream's type. UserError(ExitCode::data) for an id
  // beyond the table.
  autograd::StepVar operator()(autograd::SegmentTape& tape,
                               std::span<const std::int32_t> ids) const;
  // [V, C] in the compute type; empty if it lies on the host.
  const Tensor& table() const { return device_VC_; }

 private:
  void gather_on_host(autograd::SegmentTape& tape, std::span<const std::int32_t> ids,
                      const Tensor& y_TC) const;

  DType compute_;
  std::int64_t vocabulary_, channels_;
  Tensor device_VC_;
  // As stored: a mapped file, whose rows are converted when they are read.
  HostTensor host_VC_;
};

}  // namespace medvqa::nn
