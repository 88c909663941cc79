// Prepared examples, their order, and the batches a run reads.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "medvqa/data/processor.h"

namespace medvqa::data {

struct LengthRule {
  std::int64_t max_length = 2048;
  bool drop = false;  // false: the first longer example is an error
};

struct Dataset {
  std::vector<Example> examples;
  std::vector<std::size_t> too_long;  // the dropped ones, by their place among the records
};

// Prepares every record, in order, on `threads` threads. UserError(ExitCode::data) for a sample
// longer than the rule allows (naming it, its length and its image tokens), for one without any
// label token, and for an empty result.
Dataset prepare_dataset(const Processor& processor, std::span<const Record> records,
                        const LengthRule& rule, int threads);

// Order of one epoch: torch.randperm(n) seeded with seed + epoch, or 0..n-1. As HF Trainer.
std::vector<std::int64_t> epoch_order(std::int64_t examples, bool shuffle, std::uint64_t seed,
                                      std::int64_t epoch);

// The order of an epoch in which samples of like length stand together. transformers'
// get_length_grouped_indices with the permutation `order`: pieces of m * step_samples samples,
// m = min(n / (4 * step_samples), 50) but at least 1, each sorted by length, longest first and
// equal ones as they stood; then the longest of all changes places with the first.
std::vector<std::int64_t> length_grouped(std::vector<std::int64_t> order,
                                         std::span<const std::int64_t> lengths,
                                         std::int64_t step_samples);

// Packed samples of one micro-batch, one after another without padding.
struct Batch {
  std::vector<std::int32_t> ids, labels, cu_seqlens;
  std::vector<std::int32_t> classes;  // one a sample, or none
  std::vector<float> patches;         // empty if not asked for
  std::vector<PatchGrid> grids;
  std::int64_t patch_rows = 0;
  std::vector<std::string> sample_ids;
};

Batch pack(const Processor& processor, std::span<const Example* const> examples, bool with_patches);

// Makes the batches of a list in order, some ahead, on its own threads. Errors of a worker are
// thrown by the next() that would have returned its batch.
class Prefetcher {
 public:
  // Every entry of `batches` lists indices into `dataset`. Both are kept by reference.
  Prefetcher(const Processor& processor, const Dataset& dataset,
             std::vector<std::vector<std::int64_t>> batches, int threads);
  ~Prefetcher();
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  // Nothing after the last.
  std::optional<Batch> next();

 private:
  struct Slot;
  void work();

  const Processor& processor_;
  const Dataset& dataset_;
  std::vector<std::vector<std::int64_t>> batches_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t next_to_make_ = 0;
  std::size_t next_to_take_ = 0;
  std::size_t ahead_ = 2;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace medvqa::data
