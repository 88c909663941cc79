#include "medvqa/train/available_memory.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "medvqa/train/backend_factory.h"
#include "tests/train/train_test_support.h"

namespace medvqa::train {
namespace {

// A root with a system that has 8000 KiB left.
class AvailableMemory : public ::testing::Test {
 protected:
  void SetUp() override {
    write("proc/meminfo", "MemTotal: 9000 kB\nMemFree: 1 kB\nMemAvailable:    8000 kB\n");
  }
  void write(const std::string& name, const std::string& text) {
    std::filesystem::create_directories((folder_.path() / name).parent_path());
    std::ofstream(folder_.path() / name) << text;
  }
  std::size_t available() const { return available_memory(folder_.path()); }

  TempFolder folder_;
};

TEST_F(AvailableMemory, OfThisMachineIsPlausible) {
  EXPECT_GT(available_memory(), std::size_t{1} << 20);
  EXPECT_LT(available_memory(), std::size_t{1} << 50);
  const auto backend = make_backend("cpu");
  EXPECT_LT(usable_memory(*backend), available_memory(*backend));
}

TEST_F(AvailableMemory, IsTheSystemsWithoutLimits) {
  EXPECT_EQ(available(), 8000u * 1024);
  write("proc/self/cgroup", "0::/job\n");
  write("sys/fs/cgroup/job/memory.max", "max\n");
  write("sys/fs/cgroup/job/memory.current", "5\n");
  EXPECT_EQ(available(), 8000u * 1024);
}

TEST_F(AvailableMemory, IsWhatTheTightestGroupLeaves) {
  write("proc/self/cgroup", "0::/slurm/job_1/step_0\n");
  write("sys/fs/cgroup/slurm/job_1/memory.max", "1000000\n");
  write("sys/fs/cgroup/slurm/job_1/memory.current", "400000\n");
  EXPECT_EQ(available(), 600000u);
  write("sys/fs/cgroup/slurm/job_1/memory.stat", "anon 7\ninactive_file 300000\nfile 9\n");
  EXPECT_EQ(available(), 900000u);
  write("sys/fs/cgroup/slurm/job_1/step_0/memory.max", "500000\n");
  write("sys/fs/cgroup/slurm/job_1/step_0/memory.current", "600000\n");
  EXPECT_EQ(available(), 0u);
}

TEST_F(AvailableMemory, KnowsTheFirstVersionAndContainers) {
  write("proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/docker/abc\n0::/\n");
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "700000\n");
  write("sys/fs/cgroup/memory/memory.usage_in_bytes", "100000\n");
  write("sys/fs/cgroup/memory/memory.stat", "inactive_file 5\ntotal_inactive_file 50000\n");
  EXPECT_EQ(available(), 650000u);
}

}  // namespace
}  // namespace medvqa::train
