#include "medvqa/data/dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <functional>
#include <numeric>
#include <system_error>
#include <utility>

#include "medvqa/core/error.h"
#include "medvqa/core/mt19937.h"

namespace medvqa::data {
namespace {

// Calls job(0) .. job(count - 1), each once, on up to `threads` threads. After an error no further
// job begins, and the error of the lowest index is thrown: jobs begin in order, so it is the same
// one whatever the number of threads.
void run_in_order(std::size_t count, int threads, const std::function<void(std::size_t)>& job) {
  std::atomic<std::size_t> next{0};
  std::atomic<bool> failed{false};
  std::mutex mutex;
  std::size_t error_index = count;
  std::exception_ptr error;
  const auto work = [&] {
    while (!failed) {
      const std::size_t i = next++;
      if (i >= count) return;
      try {
        job(i);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (i < error_index) {
          error_index = i;
          error = std::current_exception();
        }
        failed = true;
      }
    }
  };
  std::vector<std::thread> others;
  const auto wanted = std::min(static_cast<std::size_t>(std::max(threads, 1)), count);
  try {
    while (others.size() + 1 < wanted) others.emplace_back(work);
  } catch (const std::system_error&) {
    // The system gives no more threads: those there are do all the work.
  }
  work();
  for (std::thread& thread : others) thread.join();
  if (error) std::rethrow_exception(error);
}

bool is_too_long(const Example& example, const LengthRule& rule) {
  return static_cast<std::int64_t>(example.ids.size()) > rule.max_length;
}

void check_example(const Example& example, const LengthRule& rule) {
  if (is_too_long(example, rule)) {
    if (rule.drop) return;
    throw UserError(
        ExitCode::data,
        fmt::format("record {}: found {} tokens ({} of them for the image), expected at most {}; "
                    "raise data.max_length, lower data.image.max_pixels or set data.too_long to "
                    "\"drop\"",
                    example.id, example.ids.size(), example.image_tokens, rule.max_length));
  }
  if (example.label_count() == 0) {
    throw UserError(ExitCode::data,
                    fmt::format("record {}: found no token to learn from, expected an answer of at "
                                "least one; mend or remove the record",
                                example.id));
  }
}

}  // namespace

Dataset prepare_dataset(const Processor& processor, std::span<const Record> records,
                        const LengthRule& rule, int threads) {
  std::vector<Example> examples(records.size());
  run_in_order(records.size(), threads, [&](std::size_t i) {
    examples[i] = processor.prepare(records[i]);
    check_example(examples[i], rule);
  });
  Dataset dataset;
  for (std::size_t i = 0; i < examples.size(); ++i) {
    if (is_too_long(examples[i], rule)) {
      dataset.too_long.push_back(i);
    } else {
      dataset.examples.push_back(std::move(examples[i]));
    }
  }
  if (dataset.examples.empty()) {
    throw UserError(ExitCode::data,
                    fmt::format("found no samples left of {} records ({} longer than {} tokens), "
                                "expected at least one; raise data.max_length or lower "
                                "data.image.max_pixels",
                                records.size(), dataset.too_long.size(), rule.max_length));
  }
  return dataset;
}

std::vector<std::int64_t> epoch_order(std::int64_t examples, bool shuffle, std::uint64_t seed,
                                      std::int64_t epoch) {
  MEDVQA_CHECK(examples >= 0 && epoch >= 0, "examples and epochs are counted from 0");
  if (shuffle) {
    return TorchGenerator(seed + static_cast<std::uint64_t>(epoch)).permutation(examples);
  }
  std::vector<std::int64_t> order(static_cast<std::size_t>(examples));
  std::iota(order.begin(), order.end(), 0);
  return order;
}

std::vector<std::int64_t> length_grouped(std::vector<std::int64_t> order,
                                         std::span<const std::int64_t> lengths,
                                         std::int64_t step_samples) {
  MEDVQA_CHECK(order.size() == lengths.size() && step_samples > 0, "a length a sample");
  constexpr std::int64_t kMostSteps = 50, kLeastPieces = 4;
  const auto count = static_cast<std::int64_t>(order.size());
  const std::int64_t steps =
      std::clamp<std::int64_t>(count / (kLeastPieces * step_samples), 1, kMostSteps);
  const std::int64_t piece = steps * step_samples;
  const auto longer = [&](std::int64_t a, std::int64_t b) {
    return lengths[static_cast<std::size_t>(a)] > lengths[static_cast<std::size_t>(b)];
  };
  auto longest = order.begin();
  for (std::int64_t begin = 0; begin < count; begin += piece) {
    const auto first = order.begin() + begin;
    std::stable_sort(first, order.begin() + std::min(count, begin + piece), longer);
    if (longer(*first, *longest)) longest = first;
  }
  if (!order.empty()) std::iter_swap(order.begin(), longest);
  return order;
}

Batch pack(const Processor& processor, std::span<const Example* const> examples,
           bool with_patches) {
  Batch batch;
  batch.cu_seqlens.push_back(0);
  for (const Example* example : examples) {
    batch.ids.insert(batch.ids.end(), example->ids.begin(), example->ids.end());
    batch.labels.insert(batch.labels.end(), example->labels.begin(), example->labels.end());
    batch.cu_seqlens.push_back(static_cast<std::int32_t>(batch.ids.size()));
    batch.sample_ids.push_back(example->id);
    if (example->class_index) batch.classes.push_back(*example->class_index);
    if (example->image.empty()) continue;
    batch.grids.push_back(example->grid);
    batch.patch_rows += example->grid.patches();
  }
  if (!with_patches) return batch;
  batch.patches.reserve(static_cast<std::size_t>(batch.patch_rows * processor.patch_columns()));
  for (const Example* example : examples) processor.load_patches(*example, batch.patches);
  return batch;
}

}  // namespace medvqa::data
