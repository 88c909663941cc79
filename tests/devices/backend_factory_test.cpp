// What is said of a device.
#include <gtest/gtest.h>

#include "tests/devices/device_test_support.h"

namespace medvqa::train {
namespace {

using BackendFactory = DeviceTest;

TEST_F(BackendFactory, TellsTheComputeCapability) {
  EXPECT_EQ(compute_capability("cpu"), "");
  const std::vector<std::string> devices = available_devices();
  for (auto device = devices.begin() + 1; device != devices.end(); ++device) {
    const double capability = std::stod(compute_capability(*device));
    EXPECT_GE(capability, 7.5);
    EXPECT_EQ(capability >= 8, narrow_type(*device) == "bf16") << *device;
  }
  const std::string missing = "cuda:" + std::to_string(devices.size() - 1);
  expect_user_error(ExitCode::device, {"there is no"}, [&] { compute_capability(missing); });
}

}  // namespace
}  // namespace medvqa::train
