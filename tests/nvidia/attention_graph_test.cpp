// cuDNN has an engine for every graph we ask it for, on devices that need not be there: it is given
// their properties in words. Kernels are compiled and loaded later, with a driver: not here.
#include "kernels/cuda/nvidia/attention_graph.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "kernels/cuda/nvidia/cudnn_symbols.h"

namespace {
int major_of_device = 0;
}

// The front end asks the runtime which device it is on. There is none.
extern "C" cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
extern "C" cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  std::memset(properties, 0, sizeof(*properties));
  properties->major = major_of_device;
  return cudaSuccess;
}

namespace medvqa::cuda {
namespace {

struct Device {
  int version;  // 100 * major + 10 * minor
  int shared_bytes, multiprocessors;
  const char* name;
};

constexpr Device kA100{800, 166912, 108, "NVIDIA A100-SXM4-80GB"};
constexpr Device kL4{890, 101376, 58, "NVIDIA L4"};
constexpr Device kH100{900, 232448, 132, "NVIDIA H100 80GB HBM3"};

std::shared_ptr<cudnn_frontend::DeviceProperties> properties_of(const Device& d) {
  const auto number = [](const char* name, std::int64_t value) {
    return std::string("\"") + name + "\":" + std::to_string(value) + ",";
  };
  const std::string text =
      "{\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64]," +
      number("regsPerBlock", 65536) + number("multiProcessorCount", d.multiprocessors) +
      number("warpSize", 32) + number("maxSharedMemoryPerBlock", 49152) +
      number("maxSharedMemoryPerBlockOptin", d.shared_bytes) +
      number("reservedSharedMemoryPerBlock", 1024) + number("maxRegistersPerSM", 65536) +
      number("maxCtasPerSM", 32) + number("maxThreadsPerBlock", 1024) +
      number("maxThreadsPerSM", 2048) + number("pciDeviceId", 0) + number("isTccDriver", 0) +
      number("supportCoopLaunch", 1) + number("totalGlobalMem", std::int64_t{24} << 30) +
      number("smClockRateKHz", 1410000) + number("memClockRateKHz", 1593000) +
      number("l2CacheSize", 41943040) + number("cudaDeviceId", 0) + number("deviceVer", d.version) +
      number("driverVer", 13000) + "\"deviceName\":\"" + d.name + "\"}";
  auto properties = std::make_shared<cudnn_frontend::DeviceProperties>();
  const auto status = properties->deserialize(std::vector<std::uint8_t>(text.begin(), text.end()));
  return status.is_good() ? properties : nullptr;
}

// What stops cuDNN from serving the graph; empty if nothing does.
std::string fault_of(const Device& d, const AttentionPlanKey& key) {
  const auto properties = properties_of(d);
  if (properties == nullptr) return "cuDNN does not take the device's properties";
  major_of_device = d.version / 100;
  const auto graph = attention_graph(key);
  graph->set_device_properties(properties);
  auto status = graph->validate();
  if (status.is_good()) status = graph->build_operation_graph();
  if (status.is_good()) {
    status = graph->create_execution_plans({cudnn_frontend::HeurMode_t::A});
  }
  if (status.is_good()) status = graph->check_support();
  return status.is_good() ? "" : status.get_message();
}

AttentionPlanKey key_of(DType type, std::int64_t size, bool causal) {
  constexpr std::int64_t kHeads = 12, kGroups = 2;
  const std::int64_t packed = (kHeads + 2 * kGroups) * size;
  return {.type = type,
          .heads = kHeads,
          .groups = kGroups,
          .size = size,
          .samples = 4,
          .length = 1024,
          .q_stride = packed,
          .k_stride = packed,
          .v_stride = packed,
          .y_stride = kHeads * size,
          .causal = causal,
          .scale = 0.125f};
}

class AttentionGraph : public ::testing::TestWithParam<Device> {
 protected:
  // cuDNN will have a driver and a compiler by these names; a stub of the first is enough.
  void SetUp() override {
    ASSERT_TRUE(load_cudnn());
    if (dlopen("libcuda.so.1", RTLD_NOW) == nullptr) {
      ASSERT_NE(dlopen(MEDVQA_DRIVER_STUB, RTLD_NOW), nullptr) << dlerror();
    }
    ASSERT_NE(dlopen(MEDVQA_NVRTC, RTLD_NOW), nullptr) << dlerror();
  }
};

TEST_P(AttentionGraph, IsServed) {
  for (const DType type : {DType::bf16, DType::f16}) {
    for (const std::int64_t size : {64, 80, 128}) {
      for (const bool causal : {false, true}) {
        EXPECT_EQ(fault_of(GetParam(), key_of(type, size, causal)), "")
            << name_of(type) << ", heads of " << size << (causal ? ", causal" : "");
      }
    }
  }
}

// So that the test above can fail: a device before cuDNN's kernels.
TEST_P(AttentionGraph, IsRefusedOnTuring) {
  Device turing = GetParam();
  turing.version = 750;
  EXPECT_NE(fault_of(turing, key_of(DType::f16, 64, true)), "");
}

INSTANTIATE_TEST_SUITE_P(Devices, AttentionGraph, ::testing::Values(kA100, kL4, kH100),
                         [](const auto& device) {
                           return "sm_" + std::to_string(device.param.version / 10);
                         });

}  // namespace
}  // namespace medvqa::cuda
