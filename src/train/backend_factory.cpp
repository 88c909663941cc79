#include "medvqa/train/backend_factory.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>

#include "kernels/cpu/cpu_backend.h"
#ifdef MEDVQA_CUDA
#include "kernels/cuda/cuda_backend.h"
#endif

namespace medvqa::train {

namespace {

// The number in "cuda" (0) or "cuda:N"; nothing for another word.
std::optional<int> cuda_number(const std::string& device) {
  if (device == "cuda") return 0;
  constexpr std::string_view prefix = "cuda:";
  if (device.rfind(prefix, 0) != 0) return {};
  int number = 0;
  const char* end = device.data() + device.size();
  const auto parsed = std::from_chars(device.data() + prefix.size(), end, number);
  return parsed.ec == std::errc() && parsed.ptr == end && number >= 0 ? std::optional(number)
                                                                      : std::nullopt;
}

#ifdef MEDVQA_CUDA
int cuda_devices() {
  return cuda::CudaBackend::devices();
}
std::unique_ptr<ops::Backend> make_cuda_backend(int number) {
  return std::make_unique<cuda::CudaBackend>(number);
}
int cuda_architecture(int number) {
  return cuda::device_limits(number).architecture;
}
#else
int cuda_devices() {
  return 0;
}
[[noreturn]] void refuse_cuda(int number) {
  throw UserError(ExitCode::device, fmt::format("device is cuda:{}, but this program was built for "
                                                "the CPU only; set device to cpu or auto, or build "
                                                "it with cmake --preset cuda",
                                                number));
}
std::unique_ptr<ops::Backend> make_cuda_backend(int number) {
  refuse_cuda(number);
}
int cuda_architecture(int number) {
  refuse_cuda(number);
}
#endif

}  // namespace

std::unique_ptr<ops::Backend> make_backend(const std::string& device) {
  if (device == "cpu") return std::make_unique<cpu::CpuBackend>();
  if (device == "auto") return make_backend(cuda_devices() > 0 ? "cuda" : "cpu");
  if (const auto number = cuda_number(device)) return make_cuda_backend(*number);
  throw UserError(ExitCode::config,
                  fmt::format("device is \"{}\", expected auto, cpu, cuda or cuda:N", device));
}

std::vector<std::string> available_devices() {
  std::vector<std::string> devices{"cpu"};
  for (int i = 0; i < cuda_devices(); ++i) devices.push_back(fmt::format("cuda:{}", i));
  return devices;
}

std::string compute_capability(const std::string& device) {
  const auto number = cuda_number(device);
  if (!number) return {};
  const int architecture = cuda_architecture(*number);
  return fmt::format("{}.{}", architecture / 10, architecture % 10);
}

std::vector<std::string> built_in() {
  std::vector<std::string> devices{"cpu: " + cpu::CpuBackend::version()};
#ifdef MEDVQA_CUDA
  devices.push_back("cuda: " + cuda::CudaBackend::version());
#endif
  return devices;
}

}  // namespace medvqa::train
