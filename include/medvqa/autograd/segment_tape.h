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

#include "medvqa/autograd/step_memory.h"
#include "medvqa/autograd/tape.h"

namespace medvqa::autograd {

enum class Recompute : std::uint8_t { all, attention_saved, none };

// A value that may outlive its segment: a segment's input or output. During the forward it is in
// device memory for as long as a StepVar of it lives; after that, for as long as it is needed.
struct StepVar {
  Tensor value;
  int id = -1;
  std::shared_ptr<const void> held = {};
};

class SegmentTape {
 public:
  struct Memory {
    Arena& step;            // segment inputs and their gradients
    Arena& block;           // one segment's tape, or all of them if nothing is recomputed
    Arena& scratch;         // temporaries of one operation
    Arena* host = nullptr;  // host memory for transfers; only where something is kept there
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
    // Where a segment's inputs and saved attention outputs lie until its replay. On the host: they
    // leave after its forward, and come back while the segment behind it is replayed.
    ops::Place points = ops::Place::device;
  };
  using Segment = std::function<Var(Tape&, std::span<const Var>)>;
  // The last segment: from its input to the value whose gradient it already knows.
  using LossSegment = std::function<std::pair<Var, Tensor>(Tape&, const Var&)>;

  SegmentTape(ops::Backend& backend, Memory memory, Options options);
  ~SegmentTape();

  ops::Backend& backend() { return backend_; }
  Arena& step_arena() { return memory_.step; }
  // For what a caller needs no longer than until the next run().
  Arena& block_arena() { return memory_.block; }
  Arena& host_arena();

  // A value from outside; no gradient flows to it.
  StepVar input(const Tensor& value);
  // The same in the tape's memory, to be filled before it is used.
  StepVar input(Shape shape, DType dtype);
  // `name`: the module whose forward this is, for the observer.
  StepVar run(const std::string& name, std::vector<StepVar> inputs, Segment segment);
  // Runs the loss segment and, in training, its backward and that of everything before it.
  void finish(const StepVar& x, const LossSegment& loss);

 private:
  // A tensor that may leave device memory and come back to another place.
  struct Stored {
    Tensor value;
    StepMemory::Piece piece = {};  // none: memory of somebody else, where it stays
    Tensor host = {};              // its copy, once there is one
    ops::Transfer moved = 0;       // the latest, until somebody has waited for it
    bool resident = true;
  };
  struct Node {
    Stored stored;
    bool needs_grad = false;
    Tensor grad = {};
    StepMemory::Piece grad_piece = {};
    bool written = false;
    int readers = 0;  // segments whose replay reads it
    int holds = 0;    // of these, the ones it is on the device for
    std::weak_ptr<const void> held = {};
  };
  struct Record;

  Node& node(int id) { return nodes_.at(static_cast<std::size_t>(id)); }
  bool replays() const { return options_.training && options_.recompute != Recompute::none; }
  bool offloads() const { return replays() && options_.points == ops::Place::host; }
  StepVar make(const Stored& stored, bool needs_grad);
  TapeOptions tape_options(TapeOptions::Mode mode) const;
  std::vector<Var> inputs_of(Tape& tape, const Record& record, bool with_gradients);
  ops::GradOut gradient(Node& n);
  void release(Node& n);

  Stored store(Shape shape, DType dtype);
  void send(Stored& s);
  void bring(Stored& s);
  void drop(Stored& s);
  void wait_for(Stored& s);
  void drop_unreachable();
  void keep(Record& record);
  void hold(Record* record);
  void let_go(Record& record);

  StepVar forward(Record& record);
  void backward(Record& record);
  void backward_recorded(Record& record);

  ops::Backend& backend_;
  Memory memory_;
  Options options_;
  StepMemory values_;
  std::vector<Node> nodes_;
  std::vector<std::unique_ptr<Record>> records_;
  Record* newest_kept_ = nullptr;
  ops::Transfer latest_ = 0;
};

}  // namespace medvqa::autograd
