#include "medvqa/autograd/segment_tape.h"

#include <algorithm>

namespace medvqa::autograd {

using Mode = TapeOptions::Mode;

struct SegmentTape::Record {
  Segment segment;
  std::vector<int> inputs;
  int output = -1;
  bool kept = false;  // its replay is wanted
  SavedAttention attention;
  std::vector<Stored> saved;  // what `attention` consists of: outputs and log-sum-exps in turn
  // Only when nothing is recomputed: the tape of the one and only forward, and its result.
  std::unique_ptr<Tape> tape;
  std::vector<Var> variables;
  Var result;
};

SegmentTape::SegmentTape(ops::Backend& backend, Memory memory, Options options)
    : backend_(backend), memory_(memory), options_(options), values_(backend, memory.step) {}

SegmentTape::~SegmentTape() = default;

Arena& SegmentTape::host_arena() {
  MEDVQA_CHECK(memory_.host != nullptr, "something is kept on the host, and there is no memory");
  return *memory_.host;
}

StepVar SegmentTape::make(const Stored& stored, bool needs_grad) {
  const std::shared_ptr<const void> held = std::make_shared<char>();
  nodes_.push_back({.stored = stored, .needs_grad = needs_grad, .held = held});
  return {stored.value, static_cast<int>(nodes_.size()) - 1, held};
}

StepVar SegmentTape::input(const Tensor& value) {
  return make({.value = value}, false);
}

StepVar SegmentTape::input(Shape shape, DType dtype) {
  drop_unreachable();
  return make(store(shape, dtype), false);
}

TapeOptions SegmentTape::tape_options(Mode mode) const {
  return {.mode = mode,
          .inference = !options_.training,
          .keep_weights = options_.keep_weights,
          .attention = nullptr,
          .random_key = options_.random_key,
          .dropout = options_.dropout};
}

// --- where values lie ---------------------------------------------------------------------------

SegmentTape::Stored SegmentTape::store(Shape shape, DType dtype) {
  Tensor value(nullptr, dtype, shape);
  const StepMemory::Piece piece = values_.take(value.shape, value.dtype);
  value.data = piece.memory;
  return {.value = value, .piece = piece};
}

void SegmentTape::send(Stored& s) {
  if (!s.piece || s.host) return;
  s.host = host_arena().allocate(s.value.shape, s.value.dtype);
  latest_ = s.moved = backend_.offload(s.value, s.host);
}

void SegmentTape::bring(Stored& s) {
  if (s.resident) return;
  s.piece = values_.take(s.value.shape, s.value.dtype);
  s.value.data = s.piece.memory;
  latest_ = s.moved = backend_.fetch(s.host, s.value);
  s.resident = true;
}

void SegmentTape::drop(Stored& s) {
  if (!s.piece || !s.resident) return;
  values_.give_back(s.piece, s.moved);
  s.resident = false;
}

void SegmentTape::wait_for(Stored& s) {
  backend_.await(std::exchange(s.moved, 0));
}

// What neither the rest of the forward nor a replay will read from where it is.
void SegmentTape::drop_unreachable() {
  if (options_.training && !replays()) return;
  for (Node& n : nodes_) {
    const bool wanted = n.readers > 0 && !n.stored.host;
    if (n.held.expired() && n.holds == 0 && !wanted) drop(n.stored);
  }
}

// Saved attention outputs leave one segment late: the next one's are written elsewhere, while
// these are on their way.
void SegmentTape::keep(Record& record) {
  record.kept = true;
  for (const int id : record.inputs) {
    ++node(id).readers;
    if (offloads()) send(node(id).stored);
  }
  if (!offloads()) return;
  for (Stored& s : record.saved) send(s);
  if (newest_kept_ != nullptr) {
    for (Stored& s : newest_kept_->saved) drop(s);
  }
  newest_kept_ = &record;
}

// Sees to it that the record can be replayed soon.
void SegmentTape::hold(Record* record) {
  if (record == nullptr) return;
  for (const int id : record->inputs) {
    ++node(id).holds;
    bring(node(id).stored);
  }
  for (Stored& s : record->saved) bring(s);
}

void SegmentTape::let_go(Record& record) {
  for (const int id : record.inputs) {
    Node& n = node(id);
    --n.readers;
    --n.holds;
    if (n.holds == 0 && (n.readers == 0 || n.stored.host)) drop(n.stored);
  }
  for (Stored& s : record.saved) drop(s);
}

// --- gradients ----------------------------------------------------------------------------------

ops::GradOut SegmentTape::gradient(Node& n) {
  if (!n.needs_grad) return {};
  if (!n.grad) {
    const Tensor& value = n.stored.value;
    n.grad_piece = values_.take(value.shape, value.dtype);
    n.grad = Tensor(n.grad_piece.memory, value.dtype, value.shape);
  }
  return {n.grad, std::exchange(n.written, true)};
}

void SegmentTape::release(Node& n) {
  values_.give_back(std::exchange(n.grad_piece, {}));
  n.grad = {};
}

std::vector<Var> SegmentTape::inputs_of(Tape& tape, const Record& record, bool with_gradients) {
  std::vector<Var> vars;
  for (const int id : record.inputs) {
    Node& n = node(id);
    if (!n.needs_grad) {
      vars.push_back(tape.input(n.stored.value));
    } else if (with_gradients) {
      vars.push_back(tape.input(n.stored.value, gradient(n)));
    } else {
      vars.push_back(tape.input_needing_grad(n.stored.value));
    }
  }
  return vars;
}

// --- forward ------------------------------------------------------------------------------------

StepVar SegmentTape::run(const std::string& name, std::vector<StepVar> inputs, Segment segment) {
  drop_unreachable();
  auto record = std::make_unique<Record>();
  record->segment = std::move(segment);
  for (const StepVar& v : inputs) record->inputs.push_back(v.id);
  StepVar output;
  if (options_.training && !replays()) {
    record->tape = std::make_unique<Tape>(backend_, memory_.block, memory_.scratch,
                                          tape_options(Mode::record));
    record->variables = inputs_of(*record->tape, *record, false);
    record->result = record->segment(*record->tape, record->variables);
    output = make({.value = record->result.value}, record->tape->needs_grad(record->result));
  } else {
    output = forward(*record);
  }
  if (options_.observe) options_.observe(name, output.value);
  record->output = output.id;
  if (options_.training) records_.push_back(std::move(record));
  return output;
}

StepVar SegmentTape::forward(Record& record) {
  TapeOptions tape_settings = tape_options(Mode::forward);
  if (replays() && options_.recompute == Recompute::attention_saved) {
    record.attention.allocate = [this, &record](Shape shape, DType dtype) {
      record.saved.push_back(store(shape, dtype));
      return record.saved.back().value;
    };
    tape_settings.attention = &record.attention;
  }
  Arena::Scope scope(memory_.block);
  Tape tape(backend_, memory_.block, memory_.scratch, tape_settings);
  const std::vector<Var> vars = inputs_of(tape, record, false);
  const Var y = record.segment(tape, vars);
  const Stored output = store(y.value.shape, y.value.dtype);
  backend_.copy(y.value, output.value);
  const bool needs_grad = tape.needs_grad(y);
  if (replays() && needs_grad) keep(record);
  if (!record.kept) {
    for (Stored& s : record.saved) drop(s);
  }
  return make(output, needs_grad);
}

// --- backward -----------------------------------------------------------------------------------

void SegmentTape::backward_recorded(Record& record) {
  Node& output = node(record.output);
  if (!output.needs_grad || !output.written) return;
  // Inputs joined the tape before their gradients had a place.
  for (std::size_t i = 0; i < record.inputs.size(); ++i) {
    Node& n = node(record.inputs[i]);
    if (n.needs_grad) record.tape->attach_gradient(record.variables[i], gradient(n));
  }
  record.tape->backward(record.result, output.grad);
  release(output);
}

void SegmentTape::backward(Record& record) {
  Node& output = node(record.output);
  if (!output.written) return;
  for (const int id : record.inputs) wait_for(node(id).stored);
  for (std::size_t i = 0; i < record.saved.size(); ++i) {
    wait_for(record.saved[i]);
    SavedAttention::Entry& e = record.attention.entries.at(i / 2);
    (i % 2 == 0 ? e.y : e.lse) = record.saved[i].value;
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
  std::vector<Record*> kept;
  for (auto r = records_.rbegin(); r != records_.rend(); ++r) {
    if ((*r)->kept) kept.push_back(r->get());
  }
  kept.push_back(nullptr);
  hold(kept.front());
  drop_unreachable();
  Node& n = node(x.id);
  {
    Arena::Scope scope(memory_.block);
    const Mode mode = options_.training ? Mode::record : Mode::forward;
    Tape tape(backend_, memory_.block, memory_.scratch, tape_options(mode));
    const bool with_gradient = options_.training && n.needs_grad;
    const Tensor& value = n.stored.value;
    const Var input = with_gradient ? tape.input(value, gradient(n)) : tape.input(value);
    const auto outcome = loss(tape, input);
    if (with_gradient && !options_.observe) tape.backward(outcome.first, outcome.second);
  }
  if (!options_.training) return;
  if (options_.observe) return backend_.await(latest_);
  if (n.readers == 0) drop(n.stored);
  if (!replays()) {
    for (auto r = records_.rbegin(); r != records_.rend(); ++r) backward_recorded(**r);
    return;
  }
  for (std::size_t i = 0; kept[i] != nullptr; ++i) {
    hold(kept[i + 1]);
    backward(*kept[i]);
    let_go(*kept[i]);
  }
  backend_.await(latest_);
}

}  // namespace medvqa::autograd
