#include "medvqa/autograd/segment_tape.h"

#include <algorithm>
#include <optional>

namespace medvqa::autograd {

using Mode = TapeOptions::Mode;

struct SegmentTape::Record {
  Segment segment;
  std::vector<StepVar> inputs;
  StepVar output;
  SavedAttention attention;
  // Only when nothing is recomputed: the tape of the one and only forward, and its result.
  std::unique_ptr<Tape> tape;
  std::vector<Var> variables;
  Var result;
};

SegmentTape::SegmentTape(ops::Backend& backend, Memory memory, Options options)
    : backend_(backend), memory_(memory), options_(options) {}

SegmentTape::~SegmentTape() = default;

StepVar SegmentTape::make(const Tensor& value, bool needs_grad) {
  nodes_.push_back({.value = value, .needs_grad = needs_grad, .grad = {}, .written = false});
  return {value, static_cast<int>(nodes_.size()) - 1};
}

StepVar SegmentTape::input(const Tensor& value) {
  return make(value, false);
}

TapeOptions SegmentTape::tape_options(Mode mode) const {
  return {.mode = mode,
          .inference = !options_.training,
          .keep_weights = options_.keep_weights,
          .attention = nullptr,
          .attention_arena = &memory_.step,
          .random_key = options_.random_key,
          .dropout = options_.dropout};
}

// Gradient buffers are handed from one value to the next: a chain of equal blocks uses two.
ops::GradOut SegmentTape::gradient(Node& n) {
  if (!n.needs_grad) return {};
  if (!n.grad) {
    const auto fits = [&](const Tensor& t) { return t.bytes() == n.value.bytes(); };
    const auto found = std::find_if(free_gradients_.begin(), free_gradients_.end(), fits);
    if (found != free_gradients_.end()) {
      n.grad = Tensor(found->data, n.value.dtype, n.value.shape);
      free_gradients_.erase(found);
    } else {
      n.grad = memory_.step.allocate_like(n.value);
    }
  }
  return {n.grad, std::exchange(n.written, true)};
}

void SegmentTape::release(Node& n) {
  if (n.grad) free_gradients_.push_back(n.grad);
  n.grad = {};
}

std::vector<Var> SegmentTape::inputs_of(Tape& tape, const Record& record, bool with_gradients) {
  std::vector<Var> vars;
  for (const StepVar& v : record.inputs) {
    Node& n = node(v);
    if (!n.needs_grad) {
      vars.push_back(tape.input(n.value));
    } else if (with_gradients) {
      vars.push_back(tape.input(n.value, gradient(n)));
    } else {
      vars.push_back(tape.input_needing_grad(n.value));
    }
  }
  return vars;
}

StepVar SegmentTape::run(std::vector<StepVar> inputs, Segment segment) {
  auto record = std::make_unique<Record>();
  record->segment = std::move(segment);
  record->inputs = std::move(inputs);
  if (options_.training && options_.recompute == Recompute::none) {
    record->tape = std::make_unique<Tape>(backend_, memory_.block, memory_.scratch,
                                          tape_options(Mode::record));
    record->variables = inputs_of(*record->tape, *record, false);
    record->result = record->segment(*record->tape, record->variables);
    record->output = make(record->result.value, record->tape->needs_grad(record->result));
  } else {
    TapeOptions tape_settings = tape_options(Mode::forward);
    if (options_.training && options_.recompute == Recompute::attention_saved) {
      tape_settings.attention = &record->attention;
    }
    // The output outlives the block, so it is placed in the step arena before the block's scope.
    std::optional<Tensor> kept;
    bool needs_grad = false;
    {
      Arena::Scope scope(memory_.block);
      Tape tape(backend_, memory_.block, memory_.scratch, tape_settings);
      const std::vector<Var> vars = inputs_of(tape, *record, false);
      const Var y = record->segment(tape, vars);
      kept = memory_.step.allocate_like(y.value);
      backend_.copy(y.value, *kept);
      needs_grad = tape.needs_grad(y);
    }
    record->output = make(*kept, needs_grad);
  }
  const StepVar output = record->output;
  if (options_.training) records_.push_back(std::move(record));
  return output;
}

void SegmentTape::backward(Record& record) {
  Node& output = node(record.output);
  if (!output.needs_grad || !output.written) return;
  if (record.tape) {
    // Inputs joined the tape before their gradients had a place.
    for (std::size_t i = 0; i < record.inputs.size(); ++i) {
      Node& n = node(record.inputs[i]);
      if (n.needs_grad) record.tape->attach_gradient(record.variables[i], gradient(n));
    }
    record.tape->backward(record.result, output.grad);
    release(output);
    return;
  }
  Arena::Scope scope(memory_.block);
  TapeOptions tape_settings = tape_options(Mode::replay);
  if (options_.recompute == Recompute::attention_saved) tape_settings.attention = &record.attention;
  Tape tape(backend_, memory_.block, memory_.scratch, tape_settings);
  const std::vector<Var> vars = inputs_of(tape, record, true);
  const Var y = record.segment(tape, vars);
  tape.backward(y, output.grad);
  release(output);
}

void SegmentTape::finish(const StepVar& x, const LossSegment& loss) {
  {
    Arena::Scope scope(memory_.block);
    const Mode mode = options_.training ? Mode::record : Mode::forward;
    Tape tape(backend_, memory_.block, memory_.scratch, tape_options(mode));
    Node& n = node(x);
    const bool with_gradient = options_.training && n.needs_grad;
    const Var input = with_gradient ? tape.input(n.value, gradient(n)) : tape.input(n.value);
    const auto outcome = loss(tape, input);
    if (with_gradient) tape.backward(outcome.first, outcome.second);
  }
  if (!options_.training) return;
  for (auto record = records_.rbegin(); record != records_.rend(); ++record) backward(**record);
}

}  // namespace medvqa::autograd
