#include "medvqa/train/step.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "medvqa/core/philox.h"
#include "medvqa/models/upload.h"

namespace medvqa::train {

using autograd::SegmentTape;
using autograd::StepVar;
using autograd::Tape;
using autograd::Var;

namespace {

// The device side of PassResult, in the step arena.
struct LossTensors {
  Tensor nll, correct, logits;
};

template <class T>
std::vector<T> downloaded(ops::Backend& backend, const Tensor& t) {
  std::vector<T> values(static_cast<std::size_t>(t.elements()));
  if (t) backend.download(t, values.data(), values.size() * sizeof(T));
  return values;
}

LossTensors allocate_loss(Arena& arena, const AdaptedModel& model, std::int64_t rows, bool logits) {
  LossTensors l;
  l.nll = arena.allocate({rows}, DType::f32);
  l.correct = arena.allocate({rows}, DType::i32);
  if (logits) l.logits = arena.allocate({rows, model.head().value.dim(0)}, DType::f32);
  return l;
}

// The same values in another type; a trained head computes in its own.
Tensor converted(Tape& t, const Tensor& x, DType type) {
  if (x.dtype == type) return x;
  const Tensor y = t.allocate(x.shape, type);
  t.backend().convert(x, y);
  return y;
}

// d loss / d normed, if anybody needs it; adds to a trained head's gradient.
Tensor head_and_loss(Tape& t, const Var& normed, const nn::Parameter& head, const Tensor& targets,
                     const LossTensors& loss, const PassOptions& options) {
  const DType type = head.value.dtype;
  const bool accumulates = options.training && !options.observe;
  const Tensor x = converted(t, normed.value, type);
  Tensor dx;
  if (t.needs_grad(normed)) dx = t.allocate(x.shape, type);
  t.backend().linear_cross_entropy({.x_RC = x,
                                    .weight_VC = head.value,
                                    .labels_R = targets,
                                    .loss_scale = options.loss_scale * options.gradient_scale,
                                    .nll_R = loss.nll,
                                    .correct_R = loss.correct,
                                    .dx_RC = {dx, false},
                                    .dweight_VC = {accumulates ? head.grad : Tensor(), true},
                                    .logits_RV = loss.logits});
  return dx ? converted(t, dx, normed.value.dtype) : dx;
}

}  // namespace

double PassResult::nll_sum() const {
  return std::accumulate(nll.begin(), nll.end(), 0.0);
}

PassResult run_pass(ops::Backend& backend, Arenas& arenas, const AdaptedModel& adapted,
                    const MicroBatch& batch, const PassOptions& options) {
  if (batch.label_count() == 0) return {};
  Arena::Scope step(arenas.step());
  Arena::Scope block(arenas.block());
  Arena::Scope host(arenas.host());
  SegmentTape tape(backend, arenas.step_memory(),
                   {.recompute = options.recompute,
                    .training = options.training,
                    .keep_weights = options.keep_weights,
                    .random_key = options.random_key,
                    .dropout = options.dropout,
                    .observe = options.observe,
                    .points = options.points});
  const models::Model& model = adapted.model();
  const std::int64_t count = batch.label_count();
  const Tensor rows =
      models::upload(tape, std::span<const std::int32_t>(batch.logit_rows), {count});
  const Tensor targets =
      models::upload(tape, std::span<const std::int32_t>(batch.targets), {count});
  const LossTensors loss = allocate_loss(arenas.step(), adapted, count, options.want_logits);

  const StepVar hidden = model.forward(tape, batch.input);
  tape.finish(hidden, [&](Tape& t, const Var& x) {
    const Var normed = model.final_norm(t, gather_rows(t, x, rows));
    const Tensor dx = head_and_loss(t, normed, adapted.head(), targets, loss, options);
    return std::pair(normed, dx);
  });
  return {.nll = downloaded<float>(backend, loss.nll),
          .correct = downloaded<std::int32_t>(backend, loss.correct),
          .logits = downloaded<float>(backend, loss.logits)};
}

std::uint64_t micro_batch_key(std::uint64_t step_key, std::size_t index) {
  const auto words = philox4x32(step_key, 0, index);
  return std::uint64_t{words[0]} << 32 | words[1];
}

StepResult accumulate_gradients(ops::Backend& backend, Arenas& arenas, AdaptedModel& model,
                                std::span<const MicroBatch> batches, PassOptions options) {
  StepResult result;
  for (const MicroBatch& b : batches) {
    result.label_tokens += b.label_count();
    result.tokens += b.input.tokens();
    result.samples += b.input.samples();
  }
  model.clear_gradients(backend);
  options.loss_scale = 1.0 / static_cast<double>(std::max<std::int64_t>(1, result.label_tokens));
  const std::uint64_t key = options.random_key;
  double nll = 0;
  for (std::size_t i = 0; i < batches.size(); ++i) {
    options.random_key = micro_batch_key(key, i);
    nll += run_pass(backend, arenas, model, batches[i], options).nll_sum();
  }
  result.loss = nll * options.loss_scale;
  Arena::Scope scope(arenas.step());
  const Tensor norm = arenas.step().allocate({1}, DType::f32);
  backend.global_norm(model.gradients(), norm);
  float value = 0;
  backend.download(norm, &value, sizeof(value));
  result.grad_norm = static_cast<double>(value) / options.gradient_scale;
  return result;
}

void update(ops::Backend& backend, const AdaptedModel& model, double grad_norm,
            const UpdateOptions& options) {
  double scale = 1;
  if (options.max_grad_norm > 0) {
    scale = std::min(1.0, options.max_grad_norm / (grad_norm + 1e-6));
  }
  backend.adamw({.tensors = model.trained(),
                 .learning_rate = options.learning_rate,
                 .weight_decay = options.weight_decay,
                 .grad_scale = scale / options.gradient_scale,
                 .step = options.step});
}

}  // namespace medvqa::train
