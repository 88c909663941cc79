#include "medvqa/train/backend_factory.h"

#include <fmt/format.h>

#include "kernels/cpu/cpu_backend.h"

namespace medvqa::train {

std::unique_ptr<ops::Backend> make_backend(const std::string& device) {
  if (device == "auto" || device == "cpu") return std::make_unique<cpu::CpuBackend>();
  if (device.rfind("cuda", 0) == 0) {
    throw UserError(ExitCode::device, fmt::format("device is {}, but this program was built for "
                                                  "the CPU only; set device to cpu or auto",
                                                  device));
  }
  throw UserError(ExitCode::config,
                  fmt::format("device is \"{}\", expected auto, cpu, cuda or cuda:N", device));
}

}  // namespace medvqa::train
