#include "medvqa/autograd/tape.h"

#include <utility>

namespace medvqa::autograd {

Var Tape::make(const Tensor& value, const Node& node) {
  nodes_.push_back(node);
  return {value, static_cast<int>(nodes_.size()) - 1};
}

Var Tape::input(const Tensor& value, ops::GradOut grad) {
  if (!grad) return make(value, {});
  return make(value, {.needs_grad = true, .written = grad.accumulate, .grad = grad.tensor});
}

Var Tape::input_needing_grad(const Tensor& value) {
  return make(value, {.needs_grad = true, .written = false, .grad = {}});
}

void Tape::attach_gradient(const Var& input, ops::GradOut grad) {
  Node& n = nodes_.at(static_cast<std::size_t>(input.id));
  MEDVQA_CHECK(n.needs_grad && !n.grad, "this value takes no gradient from outside");
  n.grad = grad.tensor;
  n.written = grad.accumulate;
}

Var Tape::result(const Tensor& value, std::span<const Var> inputs, bool has_trainable_parameter) {
  bool needs = has_trainable_parameter;
  for (const Var& v : inputs) needs = needs || needs_grad(v);
  return make(value, {.needs_grad = needs, .written = false, .grad = {}});
}

void Tape::backward(const Var& y, const Tensor& seed) {
  if (!needs_grad(y)) return;
  MEDVQA_CHECK(recording(), "backward on a tape that remembers nothing");
  backend_.accumulate(seed.reshaped(y.value.shape), grad(y));
  for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) (*step)();
}

Tensor Tape::grad_of(const Var& y) const {
  MEDVQA_CHECK(node(y).written, "a gradient is read before anything was written to it");
  return node(y).grad.reshaped(y.value.shape);
}

ops::GradOut Tape::grad(const Var& v) {
  Node& n = nodes_.at(static_cast<std::size_t>(v.id));
  if (!n.needs_grad) return {};
  if (!n.grad) n.grad = block_.allocate(v.value.shape, v.value.dtype);
  return {n.grad.reshaped(v.value.shape), std::exchange(n.written, true)};
}

}  // namespace medvqa::autograd
