#include "medvqa/train/probe.h"

#include <gtest/gtest.h>

#include <cstring>

#include "medvqa/io/safetensors.h"
#include "tests/train/train_test_support.h"

namespace medvqa::train {
namespace {

std::vector<float> stored(const io::SafetensorsFile& file, const std::string& name) {
  const nn::HostTensor t = file.tensor(name);
  std::vector<float> values(t.bytes.size() / sizeof(float));
  std::memcpy(values.data(), t.bytes.data(), t.bytes.size());
  return values;
}

// With dropout the micro-batches of a step have random keys of their own: the probe shows the step
// that a run takes, to the bit.
TEST(Probe, HasTheGradientsOfTheFirstStep) {
  for (const char* dropout : {"lora.dropout=0", "lora.dropout=0.3"}) {
    const TempFolder folder;
    const Config config = load(folder, fixture_config(folder), {dropout});
    const fs::path out = folder.path() / "probe.safetensors";
    write_probe(config, out);
    Session session(config, Session::Purpose::train);
    const Gradients expected = gradients_of(session);
    const io::SafetensorsFile probe(out);
    EXPECT_EQ(stored(probe, "loss").front(), static_cast<float>(expected.result.loss)) << dropout;
    std::size_t i = 0;
    for (const auto& m : session.model().modules()) {
      for (const char* part : {".lora_A.weight", ".lora_B.weight"}) {
        EXPECT_EQ(stored(probe, "grad.base_model.model." + m->name + part), expected.of[i++])
            << dropout << " " << m->name << part;
      }
    }
    ASSERT_EQ(session.steps().front().micro_batches.size(), 2u);
  }
}

}  // namespace
}  // namespace medvqa::train
