// The step above the block: runs a model as a chain of segments (a transformer block, a merger, a
// splice), keeps what the recompute policy says, and walks back through them. A segment's function
// is plain forward code; it runs once, or, when its activations are recomputed, twice.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "medvqa/autograd/tape.h"

namespace medvqa::autograd {

enum class Recompute : std::uint8_t { all, attention_saved, none };

// A value that lives for the whole step: a segment's input or output.
struct StepVar {
  Tensor value;
  int id = -1;
};

class SegmentTape {
 public:
  struct Memory {
    Arena& step;     // segment inputs and their gradients
    Arena& block;    // one segment's tape, or all of them if nothing is recomputed
    Arena& scratch;  // temporaries of one operation
  };
  // Looks at a segment's output right after its first forward.
  using Observer = std::function<void(const std::string& name, const Tensor& value)>;
  struct Options {
    Recompute recompute = Recompute::all;
    bool training = true;  // false: forward only
    bool keep_weights = false;
    std::uint64_t random_key = 0;
    bool dropout = false;
    // With it the forward alone runs, in the memory a whole pass takes.
    Observer observe = {};
  };
  using Segment = std::function<Var(Tape&, std::span<const Var>)>;
  // The last segment: from its input to the value whose gradient it already knows.
  using LossSegment = std::function<std::pair<Var, Tensor>(Tape&, const Var&)>;

  SegmentTape(ops::Backend& backend, Memory memory, Options options);
  ~SegmentTape();

  ops::Backend& backend() { return backend_; }
  Arena& step_arena() { return memory_.step; }
  Arena& scratch() { return memory_.scratch; }

  // A value from outside; no gradient flows to it.
  StepVar input(const Tensor& value);
  // `name`: the module whose forward this is, for the observer.
  StepVar run(const std::string& name, std::vector<StepVar> inputs, Segment segment);
  // Runs the loss segment and, in training, its backward and that of everything before it.
  void finish(const StepVar& x, const LossSegment& loss);

 private:
  struct Node {
    Tensor value;
    bool needs_grad = false;
    Tensor grad;
    bool written = false;
  };
  struct Record;

  Node& node(const StepVar& v) { return nodes_.at(static_cast<std::size_t>(v.id)); }
  StepVar make(const Tensor& value, bool needs_grad);
  TapeOptions tape_options(TapeOptions::Mode mode) const;
  std::vector<Var> inputs_of(Tape& tape, const Record& record, bool with_gradients);
  ops::GradOut gradient(Node& n);
  void release(Node& n);
  void backward(Record& record);

  ops::Backend& backend_;
  Memory memory_;
  Options options_;
  std::vector<Node> nodes_;
  std::vector<std::unique_ptr<Record>> records_;
  std::vector<Tensor> free_gradients_;
};

}  // namespace medvqa::autograd
