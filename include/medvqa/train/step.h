// One micro-batch through the model, and one optimizer step over several of them.
#pragma once

#include <span>
#include <vector>

#include "medvqa/train/adapted_model.h"
#include "medvqa/train/micro_batch.h"

namespace medvqa::train {

struct PassOptions {
  bool training = true;
  autograd::Recompute recompute = autograd::Recompute::all;
  bool keep_weights = false;  // dequantised weights stay from a segment's replay to its backward
  ops::Place points = ops::Place::device;  // of what a replay begins with
  double loss_scale = 1;                   // 1 / label tokens of the whole optimizer step
  double gradient_scale = 1;               // a power of two in every gradient, see loss_scale.h
  bool want_logits = false;
  bool dropout = false;
  std::uint64_t random_key = 0;
  // See SegmentTape::Options; the pass then leaves all gradients alone.
  autograd::SegmentTape::Observer observe = {};
};

// Per label row, in the order of MicroBatch::logit_rows.
struct PassResult {
  std::vector<float> nll;             // [R] negative log likelihood of the label
  std::vector<std::int32_t> correct;  // [R] 1 where the label has the largest logit
  std::vector<float> logits;          // [R, V], only if wanted
  double nll_sum() const;
};

// Forward, and in training the backward that adds to every adapter's gradient.
PassResult run_pass(ops::Backend& backend, Arenas& arenas, const AdaptedModel& model,
                    const MicroBatch& batch, const PassOptions& options);

struct UpdateOptions {
  double learning_rate = 0;
  double weight_decay = 0;
  double max_grad_norm = 0;   // 0: no clipping
  double gradient_scale = 1;  // PassOptions::gradient_scale, divided out first
  std::int64_t step = 1;      // 1-based
};

struct StepResult {
  double loss = 0;       // over the label tokens of the whole step
  double grad_norm = 0;  // without the gradients' scale
  std::int64_t label_tokens = 0;
  std::int64_t tokens = 0;
  std::int64_t samples = 0;
};

// The random key of the micro-batch at `index` of a step whose PassOptions have `step_key`.
std::uint64_t micro_batch_key(std::uint64_t step_key, std::size_t index);

// Gradients of all micro-batches; nothing is updated.
StepResult accumulate_gradients(ops::Backend& backend, Arenas& arenas, AdaptedModel& model,
                                std::span<const MicroBatch> batches, PassOptions options);

// Clips and applies AdamW. The caller has looked at loss and norm before.
void update(ops::Backend& backend, const AdaptedModel& model, double grad_norm,
            const UpdateOptions& options);

}  // namespace medvqa::train
