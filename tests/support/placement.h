// Operands of a case in device memory, each in an allocation of its own between sentinel bytes,
// with sentinels in the gaps of strided rows.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/backends.h"
#include "tests/support/op_case.h"

namespace medvqa::testing {

class Placement {
 public:
  // `values` by operand; those of outputs are ignored. A device that watches accesses is told which
  // bytes are sentinels.
  Placement(const TestedBackend& tested, const OpCase& c, DType compute, const Values& values);
  // On the CPU.
  Placement(const OpCase& c, DType compute, const Values& values);

  const Tensors& tensors() const { return tensors_; }
  // The same tensors without memory, for a backend that only measures.
  Tensors described() const;
  std::vector<double> read(int operand) const;
  // One line for every sentinel or input that is not what it was.
  std::vector<std::string> damage() const;

 private:
  struct Slot {
    std::shared_ptr<void> memory;
    std::vector<std::byte> image;  // as uploaded
    std::vector<bool> writable;    // by byte
    std::vector<bool> element;     // by byte: not a sentinel
  };
  void watch(const TestedBackend& tested, const Slot& slot, const Operand& operand) const;
  std::vector<std::byte> now(const Slot& slot) const;
  std::int64_t element_byte(std::size_t operand, std::int64_t element) const;

  ops::Backend& backend_;
  const OpCase& case_;
  DType compute_;
  std::vector<Slot> slots_;
  Tensors tensors_;
};

}  // namespace medvqa::testing
