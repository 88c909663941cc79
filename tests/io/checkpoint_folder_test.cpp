#include "medvqa/io/checkpoint_folder.h"

#include <cstring>
#include <regex>

#include "medvqa/io/peft_adapter.h"
#include "medvqa/quant/nf4.h"
#include "tests/io/io_test_support.h"

namespace medvqa::io {
namespace {

namespace fs = std::filesystem;
const fs::path kLlama = fs::path(MEDVQA_FIXTURES) / "io" / "llama_nf4";
const char* const kQ = "model.layers.0.self_attn.q_proj.weight";

template <class T>
std::vector<T> values_of(const nn::HostTensor& tensor) {
  std::vector<T> values(tensor.bytes.size() / sizeof(T));
  std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}

std::vector<float> dequantised(const nn::HostNf4& w) {
  std::vector<float> absmax;
  if (w.nested) {
    absmax = quant::dequantize_absmax(
        values_of<std::uint8_t>(w.absmax), values_of<float>(w.nested_absmax),
        values_of<float>(w.nested_map), w.nested_offset, w.nested_block_size);
  } else {
    absmax = values_of<float>(w.absmax);
  }
  std::vector<float> values(static_cast<std::size_t>(w.out * w.in));
  quant::dequantize_nf4(values_of<std::uint8_t>(w.packed), absmax, values_of<float>(w.code),
                        w.block_size, w.dtype, values);
  return values;
}

// A checkpoint that transformers 5.17 and bitsandbytes 0.50.2 saved, against their own values.
TEST(CheckpointFolder, DequantisesAsBitsandbytes) {
  const CheckpointFolder folder(kLlama);
  const SafetensorsFile expected(kLlama / "dequantised.safetensors");
  EXPECT_TRUE(folder.quantized());
  int checked = 0;
  for (const auto& item : expected.entries()) {
    const nn::HostTensor tensor = expected.tensor(item.first);
    const nn::TensorRequest request{item.first, tensor.shape};
    const auto weight = folder.nf4(request);
    if (!weight) {
      EXPECT_EQ(values_of<std::uint16_t>(folder.dense(request)), values_of<std::uint16_t>(tensor));
      continue;
    }
    EXPECT_TRUE(weight->nested);
    std::vector<float> values;
    for (const BFloat16 x : values_of<BFloat16>(tensor)) values.push_back(static_cast<float>(x));
    EXPECT_EQ(dequantised(*weight), values) << item.first;
    ++checked;
  }
  EXPECT_EQ(checked, 7);
  EXPECT_EQ(folder.names().size(), 12u);
}

// Hub prefixes and a flat config.json, saved by transformers; the adapter's keys are the new ones.
TEST(CheckpointFolder, QwenCheckpointHasEveryModuleOfItsAdapter) {
  const fs::path fixture = fs::path(MEDVQA_FIXTURES) / "qwen2_vl_tiny";
  const CheckpointFolder folder(fixture / "checkpoint");
  EXPECT_EQ(folder.name_style(), NameStyle::qwen2_vl);
  EXPECT_TRUE(folder.contains("model.language_model.embed_tokens.weight"));
  EXPECT_TRUE(folder.contains("model.visual.patch_embed.proj.weight"));
  EXPECT_TRUE(folder.config().at("text_config").at("rope_parameters").contains("mrope_section"));
  const PeftAdapter adapter(fixture / "adapter", folder.name_style());
  for (const auto& item : adapter.modules()) {
    const std::int64_t out = item.second.b.shape[0];
    const std::int64_t in = item.second.a.shape[1];
    EXPECT_TRUE(folder.nf4({item.first + ".weight", {out, in}}).has_value()) << item.first;
  }
}

TEST(CheckpointFolder, RefusesWhatDoesNotFitTheRequest) {
  const CheckpointFolder folder(kLlama);
  expect_user_error(ExitCode::model, {kQ, "is 4-bit"}, [&] { folder.dense({kQ, {64, 64}}); });
  expect_user_error(ExitCode::model, {kQ, "shape [64, 64]", "[64, 32]"}, [&] {
    folder.nf4({kQ, {64, 32}});
  });
  expect_user_error(ExitCode::model, {"model.norm.weight", "[64]", "[65]"}, [&] {
    folder.dense({"model.norm.weight", {65}});
  });
  expect_user_error(ExitCode::model, {"model.nom.weight", "missing"}, [&] {
    folder.dense({"model.nom.weight", {64}});
  });
  EXPECT_FALSE(folder.nf4({"model.norm.weight", {64}}).has_value());
}

// A Llama checkpoint with one plain NF4 tensor "w" [4, 32] whose pieces a test can spoil.
std::string plain_nf4_file(const std::string& state, std::int64_t blocks, std::int64_t codes) {
  const TempFolder scratch;
  const fs::path path = scratch.path() / "f";
  SafetensorsWriter writer(
      path,
      {{"w", DType::u8, {64, 1}},
       {"w.absmax", DType::f32, {blocks}},
       {"w.quant_map", DType::f32, {codes}},
       {"w.quant_state.bitsandbytes__nf4", DType::u8, {static_cast<std::int64_t>(state.size())}}},
      {});
  writer.write("w", bytes_of(std::string(64, '\x70')));
  writer.write("w.absmax", bytes_of(std::string(static_cast<std::size_t>(4 * blocks), '\0')));
  writer.write("w.quant_map", bytes_of(std::string(static_cast<std::size_t>(4 * codes), '\0')));
  writer.write("w.quant_state.bitsandbytes__nf4", bytes_of(state));
  writer.commit();
  return scratch.read("f");
}

const std::string kState =
    R"({"quant_type":"nf4","blocksize":64,"dtype":"bfloat16","shape":[4,32]})";

void open_plain(const std::string& state, std::int64_t blocks, std::int64_t codes) {
  const TempFolder folder;
  folder.write("config.json", R"({"model_type":"llama"})");
  folder.write("model.safetensors", plain_nf4_file(state, blocks, codes));
  const CheckpointFolder checkpoint(folder.path());
  EXPECT_TRUE(checkpoint.nf4({"w", {4, 32}}).has_value());
}

TEST(CheckpointFolder, PlainNf4IsRead) {
  open_plain(kState, 2, 16);
}

TEST(CheckpointFolder, EverySizeOfAQuantStateIsChecked) {
  const auto fails = [](const std::string& from, const std::string& to,
                        const std::vector<std::string>& parts) {
    expect_user_error(ExitCode::model, parts,
                      [&] { open_plain(std::regex_replace(kState, std::regex(from), to), 2, 16); });
  };
  fails("\"nf4\"", "\"int4\"", {"w.quant_state", "int4"});
  fails("64", "63", {"blocksize 63"});
  fails("64", "8192", {"blocksize 8192"});
  fails("64", "\"64\"", {"\"blocksize\" must be an integer"});
  fails("bfloat16", "int8", {"dtype \"int8\""});
  fails("4,32", "32,4", {"shape [32, 4]", "[4, 32]"});
  fails("4,32", "4", {"shape [4]"});
  fails("\\}", ",\"nested_offset\":0.5}", {"\"nested_blocksize\" is missing"});
  fails("\\}", "", {"w.quant_state", "line 1"});
  expect_user_error(ExitCode::model, {"w.absmax", "2 elements"}, [] { open_plain(kState, 3, 16); });
  expect_user_error(ExitCode::model, {"w.quant_map", "16 elements"},
                    [] { open_plain(kState, 2, 15); });
}

TEST(CheckpointFolder, Fp4IsRefusedWithAdvice) {
  const TempFolder folder;
  folder.write("config.json", R"({"model_type":"llama"})");
  write_safetensors(folder.path() / "model.safetensors",
                    {{"w", DType::u8, {2, 1}}, {"w.quant_state.bitsandbytes__fp4", DType::u8, {2}}},
                    {bytes_of("ab"), bytes_of("{}")});
  const CheckpointFolder checkpoint(folder.path());
  expect_user_error(ExitCode::model, {"\"w\" is FP4", "nf4"}, [&] {
    checkpoint.nf4({"w", {2, 2}});
  });
}

void write_one(const fs::path& path, const std::string& name) {
  write_safetensors(path, {{name, DType::f32, {1}}}, {bytes_of("abcd")});
}

TEST(CheckpointFolder, ShardsAreFoundThroughTheIndex) {
  const TempFolder folder;
  folder.write("config.json", R"({"model_type":"qwen2_vl","hidden_size":8})");
  expect_user_error(ExitCode::model, {"no weights", "model.safetensors"},
                    [&] { CheckpointFolder checkpoint(folder.path()); });
  write_one(folder.path() / "a.safetensors", "visual.x");
  write_one(folder.path() / "b.safetensors", "model.norm.weight");
  folder.write(
      "model.safetensors.index.json",
      R"({"weight_map":{"visual.x":"a.safetensors","model.norm.weight":"b.safetensors"}})");
  const CheckpointFolder checkpoint(folder.path());
  EXPECT_EQ(checkpoint.names(),
            (std::vector<std::string>{"model.language_model.norm.weight", "model.visual.x"}));
  EXPECT_EQ(checkpoint.dense({"model.visual.x", {1}}).bytes.size(), 4u);
}

TEST(CheckpointFolder, BadIndexesAreRefused) {
  const auto fails = [](const std::string& index, const std::vector<std::string>& parts) {
    const TempFolder folder;
    folder.write("config.json", R"({"model_type":"llama"})");
    write_one(folder.path() / "a.safetensors", "x");
    folder.write("model.safetensors.index.json", index);
    expect_user_error(ExitCode::model, parts, [&] { CheckpointFolder c(folder.path()); });
  };
  fails(R"({"weight_map":{"x":"../a.safetensors"}})", {"\"x\"", "../a.safetensors"});
  fails(R"({"weight_map":{"x":"/etc/passwd"}})", {"/etc/passwd"});
  fails(R"({"weight_map":{"x":"a.bin"}})", {"a.bin"});
  fails(R"({"weight_map":{"x":"b.safetensors"}})", {"b.safetensors", "missing"});
  fails(R"({"weight_map":{"x":"a.safetensors","y":"a.safetensors"}})", {"\"y\"", "not there"});
  fails(R"({"weight_map":{"x":3}})", {"\"x\" must be a string"});
  fails(R"({"weight_map":{}})", {"no shard"});
  fails(R"({})", {"\"weight_map\" is missing"});
}

TEST(CheckpointFolder, TheSameTensorUnderTwoNamesIsRefused) {
  const TempFolder folder;
  folder.write("config.json", R"({"model_type":"qwen2_vl"})");
  write_safetensors(folder.path() / "model.safetensors",
                    {{"visual.x", DType::u8, {1}}, {"model.visual.x", DType::u8, {1}}},
                    {bytes_of("a"), bytes_of("b")});
  expect_user_error(ExitCode::model, {"model.visual.x", "twice"},
                    [&] { CheckpointFolder c(folder.path()); });
}

TEST(TensorNames, GoBothWays) {
  const auto both = [](NameStyle style, const std::string& hub, const std::string& canonical) {
    EXPECT_EQ(canonical_name(style, hub), canonical);
    EXPECT_EQ(canonical_name(style, canonical), canonical);
    EXPECT_EQ(hub_name(style, canonical), hub);
  };
  const NameStyle qwen = name_style_of("qwen2_5_vl");
  both(qwen, "visual.blocks.0.attn.qkv.weight", "model.visual.blocks.0.attn.qkv.weight");
  both(qwen, "model.layers.0.mlp.up_proj", "model.language_model.layers.0.mlp.up_proj");
  both(qwen, "lm_head.weight", "lm_head.weight");
  const NameStyle mllama = name_style_of("mllama");
  both(mllama, "language_model.model.norm.weight", "model.language_model.norm.weight");
  both(mllama, "language_model.lm_head.weight", "lm_head.weight");
  both(mllama, "vision_model.class_embedding", "model.vision_model.class_embedding");
  both(mllama, "multi_modal_projector.bias", "model.multi_modal_projector.bias");
  both(name_style_of("llama"), "model.layers.0.x", "model.layers.0.x");
}

}  // namespace
}  // namespace medvqa::io
