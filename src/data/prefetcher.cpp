#include <algorithm>
#include <exception>
#include <system_error>
#include <utility>

#include "medvqa/core/error.h"
#include "medvqa/data/dataset.h"

namespace medvqa::data {

struct Prefetcher::Slot {
  bool is_made = false;
  Batch batch;
  std::exception_ptr error;
};

Prefetcher::Prefetcher(const Processor& processor, const Dataset& dataset,
                       std::vector<std::vector<std::int64_t>> batches, int threads)
    : processor_(processor), dataset_(dataset), batches_(std::move(batches)) {
  const auto count = static_cast<std::int64_t>(dataset_.examples.size());
  for (const auto& batch : batches_) {
    for (const std::int64_t i : batch) {
      MEDVQA_CHECK(i >= 0 && i < count, "a batch lists examples of the data set");
    }
    slots_.push_back(std::make_unique<Slot>());
  }
  const auto wanted = static_cast<std::size_t>(std::max(threads, 1));
  // One finished batch waits while each thread makes another.
  ahead_ = std::max(ahead_, wanted + 1);
  try {
    while (threads_.size() < wanted) threads_.emplace_back([this] { work(); });
  } catch (const std::system_error&) {
    // With one thread at least the batches still come, only later.
    if (threads_.empty()) throw;
  }
}

Prefetcher::~Prefetcher() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Prefetcher::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] {
      return stopping_ || next_to_make_ == batches_.size() ||
             next_to_make_ < next_to_take_ + ahead_;
    });
    if (stopping_ || next_to_make_ == batches_.size()) return;
    const std::size_t i = next_to_make_++;
    lock.unlock();
    Batch batch;
    std::exception_ptr error;
    try {
      std::vector<const Example*> examples;
      for (const std::int64_t e : batches_[i]) {
        examples.push_back(&dataset_.examples[static_cast<std::size_t>(e)]);
      }
      batch = pack(processor_, examples, true);
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    Slot& slot = *slots_[i];
    slot.batch = std::move(batch);
    slot.error = std::move(error);
    slot.is_made = true;
    changed_.notify_all();
  }
}

std::optional<Batch> Prefetcher::next() {
  std::unique_lock lock(mutex_);
  if (next_to_take_ == batches_.size()) return std::nullopt;
  const std::size_t i = next_to_take_;
  changed_.wait(lock, [&] { return slots_[i]->is_made; });
  const std::unique_ptr<Slot> slot = std::move(slots_[i]);
  ++next_to_take_;
  lock.unlock();
  changed_.notify_all();
  if (slot->error) std::rethrow_exception(slot->error);
  return std::move(slot->batch);
}

}  // namespace medvqa::data
