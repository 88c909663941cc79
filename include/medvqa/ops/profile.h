// Where the time goes: seconds and floating-point operations by kind of operation.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>

#include "medvqa/ops/params.h"

namespace medvqa::ops {

// Multiplications and additions of one product, and of one attention forward. Attention is counted
// as if every sample were as long as the longest, half of it if causal; its backward, which makes
// the scores again, is 2.5 times the forward.
double operations(const Gemm& p);
double operations(const Nf4Product& p);
double operations(const Attention& p);
double operations(const AttentionBackward& p);
double operations(const LinearCrossEntropy& p);

class Profile {
 public:
  struct Entry {
    std::int64_t calls = 0;
    double seconds = 0;
    double operations = 0;
  };

  void add(const char* name, double seconds, double count);
  // What ends a section on a device whose calls only queue their work.
  void wait_with(std::function<void()> wait) { wait_ = std::move(wait); }
  void wait() const {
    if (wait_) wait_();
  }
  void clear() { entries_.clear(); }
  const std::map<std::string, Entry>& entries() const { return entries_; }
  double seconds() const;
  // Rows by falling time: calls, seconds, share, GFLOP/s where operations are counted.
  std::string table() const;

 private:
  std::map<std::string, Entry> entries_;
  std::function<void()> wait_;
};

// Measures its own life if there is a profile to write to.
class ProfiledSection {
 public:
  ProfiledSection(Profile* profile, const char* name, double count = 0)
      : profile_(profile), name_(name), count_(count) {
    if (profile_ != nullptr) begin_ = std::chrono::steady_clock::now();
  }
  ~ProfiledSection() {
    if (profile_ == nullptr) return;
    profile_->wait();
    const auto life = std::chrono::steady_clock::now() - begin_;
    profile_->add(name_, std::chrono::duration<double>(life).count(), count_);
  }
  ProfiledSection(const ProfiledSection&) = delete;
  ProfiledSection& operator=(const ProfiledSection&) = delete;

 private:
  Profile* profile_;
  const char* name_;
  double count_;
  std::chrono::steady_clock::time_point begin_;
};

}  // namespace medvqa::ops
