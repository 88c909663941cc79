#include "medvqa/io/checkpoint_writer.h"

#include <cstring>

#include "medvqa/io/checkpoint_folder.h"
#include "medvqa/quant/dynamic_map.h"
#include "medvqa/quant/nf4.h"
#include "tests/io/io_test_support.h"

namespace medvqa::io {
namespace {

TEST(CheckpointWriter, WritesNf4ThatTheReaderAccepts) {
  const TempFolder folder;
  folder.write("config.json", R"({"model_type":"llama"})");
  std::vector<float> weights;
  for (int i = 0; i < 8 * 64; ++i) weights.push_back(static_cast<float>(i % 37 - 18) * 0.01f);
  const quant::Nf4Data data = quant::quantize_nf4(weights);
  const quant::NestedAbsmax nested = quant::quantize_absmax(data.absmax);
  const Nf4Layout layout{8, 64, DType::f16};
  const Nf4Layout plain{8, 64, DType::f32, 64, 256, false};
  std::vector<TensorSpec> tensors = {{"norm", DType::bf16, {3}}};
  append_nf4_specs(tensors, "a", layout);
  append_nf4_specs(tensors, "b", plain);
  CheckpointWriter writer(folder.path(), tensors);
  Nf4Parts parts;
  parts.packed = data.packed;
  parts.code = quant::kNf4Code;
  parts.absmax = data.absmax;
  parts.codes = nested.codes;
  parts.nested_absmax = nested.absmax;
  parts.nested_map = quant::signed_dynamic_map();
  parts.nested_offset = nested.offset;
  write_nf4(writer, "a", layout, parts);
  write_nf4(writer, "b", plain, parts);
  EXPECT_THROW(writer.commit(), InternalError);
  writer.write("norm", bytes_of("abcdef"));
  writer.commit();

  const CheckpointFolder read(folder.path());
  const auto a = read.nf4({"a", {8, 64}});
  ASSERT_TRUE(a.has_value());
  EXPECT_EQ(a->dtype, DType::f16);
  EXPECT_EQ(a->nested_offset, nested.offset);
  EXPECT_EQ(std::memcmp(a->packed.bytes.data(), data.packed.data(), data.packed.size()), 0);
  const auto b = read.nf4({"b", {8, 64}});
  ASSERT_TRUE(b.has_value());
  EXPECT_FALSE(b->nested);
  EXPECT_EQ(std::memcmp(b->absmax.bytes.data(), data.absmax.data(), 4 * data.absmax.size()), 0);
}

TEST(CheckpointWriter, SplitsIntoShardsWithAnIndex) {
  const TempFolder folder;
  folder.write("config.json", R"({"model_type":"qwen2_vl"})");
  CheckpointWriter writer(folder.path(),
                          {{"visual.a", DType::f32, {2}},
                           {"visual.b", DType::f32, {2}},
                           {"lm_head.weight", DType::f32, {3}}},
                          16);
  writer.write("lm_head.weight", bytes_of("123456789012"));
  writer.write("visual.b", bytes_of("bbbb"));
  writer.write("visual.b", bytes_of("BBBB"));
  writer.write("visual.a", bytes_of("aaaaAAAA"));
  writer.commit();
  EXPECT_TRUE(std::filesystem::exists(folder.path() / "model-00001-of-00002.safetensors"));
  EXPECT_TRUE(std::filesystem::exists(folder.path() / "model-00002-of-00002.safetensors"));
  EXPECT_TRUE(has_weights(folder.path()));
  const CheckpointFolder read(folder.path());
  const auto b = read.dense({"model.visual.b", {2}});
  EXPECT_EQ(std::memcmp(b.bytes.data(), "bbbbBBBB", 8), 0);
  EXPECT_EQ(nlohmann::json::parse(folder.read("model.safetensors.index.json"))
                .at("metadata")
                .at("total_size"),
            28);
}

}  // namespace
}  // namespace medvqa::io
