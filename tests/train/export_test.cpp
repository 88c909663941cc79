#include "medvqa/train/export.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "medvqa/io/checkpoint_folder.h"
#include "medvqa/io/model_config.h"
#include "medvqa/quant/nf4.h"
#include "medvqa/train/adapter_files.h"
#include "medvqa/train/merge.h"
#include "medvqa/train/random_checkpoint.h"
#include "tests/train/train_test_support.h"

namespace medvqa::train {
namespace {

std::vector<float> floats(const nn::HostTensor& t) {
  std::vector<float> values(t.bytes.size() / sizeof(float));
  std::memcpy(values.data(), t.bytes.data(), t.bytes.size());
  return values;
}

// W as training multiplies with it, by plain loops.
std::vector<float> base_values(const io::CheckpointFolder& base, const std::string& name) {
  const std::vector<std::int64_t> shape = base.shape_of(name);
  const auto w = base.nf4({.name = name, .shape = shape});
  if (!w) return host_values(base.stored(name));
  const auto bytes_of = [](const nn::HostTensor& t) {
    return std::span(reinterpret_cast<const std::uint8_t*>(t.bytes.data()), t.bytes.size());
  };
  std::vector<float> absmax;
  if (w->nested) {
    absmax = quant::dequantize_absmax(bytes_of(w->absmax), floats(w->nested_absmax),
                                      floats(w->nested_map), w->nested_offset);
  } else {
    absmax = floats(w->absmax);
  }
  std::vector<float> values(static_cast<std::size_t>(w->out * w->in));
  quant::dequantize_nf4(bytes_of(w->packed), absmax, floats(w->code), w->block_size, w->dtype,
                        values);
  return values;
}

template <class T>
float rounded(double value) {
  return static_cast<float>(T(static_cast<float>(value)));
}

class Export : public ::testing::Test {
 protected:
  Export() {
    request_.adapter = fixture() / "adapter";
    request_.base = (fixture() / "checkpoint").string();
    request_.out = folder_.path() / "out";
  }

  // Every value of the export lies where f32 arithmetic in any order may round it to.
  template <class T>
  void expect_merged(const io::CheckpointFolder& base, const io::PeftAdapter& adapter,
                     const fs::path& out) {
    const io::CheckpointFolder merged(out);
    EXPECT_EQ(merged.names(), base.names());
    EXPECT_FALSE(merged.quantized());
    const double scaling = adapter.settings().scaling();
    for (const std::string& name : merged.names()) {
      const std::vector<float> w = base_values(base, name);
      const std::vector<float> found = host_values(merged.stored(name));
      EXPECT_EQ(merged.stored_name(name), base.stored_name(name));
      EXPECT_EQ(merged.shape_of(name), base.shape_of(name));
      ASSERT_EQ(merged.stored(name).dtype, dtype_of<T>()) << name;
      const auto module = adapter.modules().find(name.substr(0, name.rfind(".weight")));
      if (module == adapter.modules().end()) {
        for (std::size_t i = 0; i < w.size(); ++i) {
          ASSERT_EQ(found[i], rounded<T>(static_cast<double>(w[i]))) << name;
        }
        continue;
      }
      expect_product<T>(w, module->second, scaling, found, name);
    }
  }

  template <class T>
  static void expect_product(const std::vector<float>& w, const io::AdapterModule& module,
                             double scaling, const std::vector<float>& found,
                             const std::string& name) {
    const std::vector<float> a = host_values(module.a), b = host_values(module.b);
    const auto r = static_cast<std::size_t>(module.a.shape[0]);
    const auto in = static_cast<std::size_t>(module.a.shape[1]);
    bool changed = false;
    for (std::size_t i = 0; i < w.size(); ++i) {
      double sum = 0, size = 0;
      for (std::size_t k = 0; k < r; ++k) {
        const double term =
            static_cast<double>(b[i / in * r + k]) * static_cast<double>(a[k * in + i % in]);
        sum += term;
        size += std::abs(term);
      }
      const auto base = static_cast<double>(w[i]);
      const double error =
          static_cast<double>(r + 3) * roundoff(DType::f32) * (std::abs(base) + scaling * size);
      ASSERT_GE(found[i], rounded<T>(base + scaling * sum - error)) << name << " " << i;
      ASSERT_LE(found[i], rounded<T>(base + scaling * sum + error)) << name << " " << i;
      changed = changed || found[i] != rounded<T>(base);
    }
    EXPECT_TRUE(changed) << name;
  }

  void refused(ExitCode code, const std::vector<std::string>& parts) {
    expect_user_error(code, parts, [&] { export_model(request_); });
    EXPECT_FALSE(fs::exists(request_.out));
    for (const auto& entry : fs::directory_iterator(folder_.path())) {
      EXPECT_EQ(entry.path().filename().string().rfind(".tmp", 0), std::string::npos);
    }
  }

  fs::path random_base(const char* preset, bool nf4 = false) {
    RandomCheckpoint request;
    request.config = preset_config(preset);
    request.out = folder_.path() / (nf4 ? "nf4" : "dense");
    request.seed = 5;
    request.nf4 = nf4;
    write_random_checkpoint(request);
    return request.out;
  }

  // A copy of the fixture's adapter that the test may change.
  fs::path own_adapter() {
    const fs::path copy = folder_.path() / "adapter";
    fs::copy(fixture() / "adapter", copy, fs::copy_options::recursive);
    request_.adapter = copy;
    return copy;
  }

  TempFolder folder_;
  ExportRequest request_;
};

TEST_F(Export, MergedWeightsAreTheSum) {
  ASSERT_TRUE(export_model(request_));
  const io::CheckpointFolder base(fixture() / "checkpoint");
  const io::PeftAdapter adapter(fixture() / "adapter", base.name_style());
  expect_merged<BFloat16>(base, adapter, request_.out);
  const json config = json::parse(bytes_of_file(request_.out / "config.json"));
  EXPECT_FALSE(config.contains("quantization_config"));
  EXPECT_EQ(config.at("torch_dtype"), "bfloat16");
  for (const char* name : {"tokenizer.json", "preprocessor_config.json", "README.md",
                           "manifest.json", "chat_template.json"}) {
    EXPECT_TRUE(fs::exists(request_.out / name)) << name;
  }
  const std::string card = bytes_of_file(request_.out / "README.md");
  for (const char* part : {"library_name: transformers", "merged into its weights", "# out\n",
                           "Not validated for clinical use"}) {
    EXPECT_NE(card.find(part), std::string::npos) << part;
  }

  request_.out = folder_.path() / "half";
  request_.dtype = DType::f16;
  request_.max_shard_bytes = 20000;
  ASSERT_TRUE(export_model(request_));
  expect_merged<Float16>(base, adapter, request_.out);
  EXPECT_EQ(json::parse(bytes_of_file(request_.out / "config.json")).at("torch_dtype"), "float16");
  const json index = json::parse(bytes_of_file(request_.out / "model.safetensors.index.json"));
  std::uint64_t total = 0;
  for (const std::string& name : base.names()) {
    std::uint64_t bytes = 2;
    for (const std::int64_t d : base.shape_of(name)) bytes *= static_cast<std::uint64_t>(d);
    total += bytes;
    EXPECT_TRUE(index.at("weight_map").contains(base.stored_name(name))) << name;
  }
  EXPECT_EQ(index.at("metadata").at("total_size"), total);
}

TEST_F(Export, ABaseQuantisedOnLoadIsTheOneTrainedOn) {
  const fs::path dense = random_base("tiny-qwen2-vl");
  const fs::path stored = random_base("tiny-qwen2-vl", true);
  const io::CheckpointFolder base(stored);
  const std::vector<float> a(16 * 128, 0.25f), b(128 * 16, 0.5f);
  io::AdapterToWrite w;
  w.settings = {.r = 16, .alpha = 16, .base_model = "x"};
  w.name_style = base.name_style();
  w.modules = {{"model.language_model.layers.0.self_attn.q_proj", 128, 128, a, b}};
  request_.adapter = folder_.path() / "one";
  io::write_peft_adapter(request_.adapter, w);
  const io::PeftAdapter adapter(request_.adapter, base.name_style());
  // `medvqa init --quantization nf4` writes what quantising on load makes of the same values.
  request_.base = dense.string();
  request_.quantize = nn::QuantizeOnLoad::nf4_nested;
  ASSERT_TRUE(export_model(request_));
  expect_merged<BFloat16>(base, adapter, request_.out);
  request_.quantize.reset();
  request_.overwrite = true;
  ASSERT_TRUE(export_model(request_));
  expect_merged<BFloat16>(io::CheckpointFolder(dense), adapter, request_.out);
}

TEST_F(Export, TheAdapterIsReSpelled) {
  request_.form = ExportForm::adapter;
  const io::PeftAdapter before(fixture() / "adapter", io::NameStyle::qwen2_vl);
  for (const io::KeyStyle style : {io::KeyStyle::legacy, io::KeyStyle::current}) {
    request_.key_style = style;
    request_.overwrite = true;
    ASSERT_TRUE(export_model(request_));
    const io::SafetensorsFile file(request_.out / "adapter_model.safetensors");
    const bool legacy = style == io::KeyStyle::legacy;
    EXPECT_EQ(file.contains("base_model.model.visual.blocks.0.attn.qkv.lora_A.weight"), legacy);
    EXPECT_EQ(file.contains("base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"), legacy);
    const io::PeftAdapter after(request_.out, io::NameStyle::qwen2_vl);
    ASSERT_EQ(after.modules().size(), before.modules().size());
    for (const auto& module : before.modules()) {
      const io::AdapterModule& other = after.modules().at(module.first);
      EXPECT_EQ(host_values(other.a), host_values(module.second.a));
      EXPECT_EQ(host_values(other.b), host_values(module.second.b));
    }
    const json config = json::parse(bytes_of_file(request_.out / "adapter_config.json"));
    const auto& targets = config.at("target_modules");
    const auto has = [&](const char* name) {
      return std::count(targets.begin(), targets.end(), name) == 1;
    };
    EXPECT_TRUE(has("model.visual.blocks.0.attn.qkv"));
    EXPECT_EQ(has("visual.blocks.0.attn.qkv"), legacy);
    EXPECT_EQ(config.at("base_model_name_or_path"), "checkpoint");
  }
}

TEST_F(Export, ARunNamesItsBaseAndItsQuantisation) {
  json c = fixture_config(folder_);
  c["train"]["max_steps"] = 1;
  c["train"]["warmup_steps"] = 0;
  const Config config = load(folder_, c);
  ASSERT_EQ(train(config, {}), Outcome::finished);
  request_.run = config.output;
  request_.adapter.clear();
  request_.base.clear();
  ASSERT_TRUE(export_model(request_));
  const io::CheckpointFolder base(fixture() / "checkpoint");
  expect_merged<BFloat16>(base, io::PeftAdapter(config.output / "adapter", base.name_style()),
                          request_.out);
  EXPECT_NE(bytes_of_file(request_.out / "README.md").find("8-bit AdamW"), std::string::npos);
  request_.out = folder_.path() / "other";
  fs::remove_all(config.output / "adapter");
  refused(ExitCode::model, {"no adapter", "--resume auto"});
  fs::remove(config.output / "config.resolved.json");
  refused(ExitCode::config, {"config.resolved.json", "--adapter"});
}

TEST_F(Export, WhatIsThereIsNotLost) {
  ASSERT_TRUE(export_model(request_));
  const std::string first = bytes_of_file(request_.out / "manifest.json");
  expect_user_error(ExitCode::config, {"out", "not empty", "--overwrite"},
                    [&] { export_model(request_); });
  request_.overwrite = true;
  // Asked to stop while it writes: the old export stays.
  int asked = 0;
  request_.dtype = DType::f16;
  request_.stop_requested = [&] { return ++asked > 3; };
  EXPECT_FALSE(export_model(request_));
  EXPECT_EQ(bytes_of_file(request_.out / "manifest.json"), first);
  request_.stop_requested = nullptr;
  ASSERT_TRUE(export_model(request_));
  EXPECT_NE(bytes_of_file(request_.out / "manifest.json"), first);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_.path()), {}), 1);
  // A folder of the user's is never replaced.
  folder_.write("mine/precious", "x");
  request_.out = folder_.path() / "mine";
  expect_user_error(ExitCode::config, {"no earlier export"}, [&] { export_model(request_); });
  EXPECT_EQ(folder_.read("mine/precious"), "x");
}

TEST_F(Export, FoldersThatAreReadAreNotWritten) {
  const fs::path adapter = own_adapter();
  for (const fs::path& out : {adapter, adapter / "deep" / "er", folder_.path()}) {
    request_.out = out;
    request_.overwrite = true;
    expect_user_error(ExitCode::config, {"--out", "which is read"},
                      [&] { export_model(request_); });
  }
  EXPECT_FALSE(fs::exists(adapter / "deep"));
}

TEST_F(Export, AnAdapterThatDoesNotFitIsRefused) {
  const fs::path adapter = own_adapter();
  request_.base = random_base("tiny-qwen2-vl").string();
  refused(ExitCode::model, {"the model has", "another model"});
  request_.base = (folder_.path() / "nothing").string();
  refused(ExitCode::model, {"nothing", "--base"});
  request_.base = "";
  refused(ExitCode::model, {"--base"});
  request_.base = (fixture() / "checkpoint").string();
  json settings = json::parse(bytes_of_file(adapter / "adapter_config.json"));
  settings["use_dora"] = true;
  folder_.write("adapter/adapter_config.json", settings.dump());
  refused(ExitCode::model, {"use_dora"});
  fs::remove(adapter / "adapter_config.json");
  refused(ExitCode::model, {"adapter_config.json"});
}

TEST_F(Export, AnAdapterThatChangesNothingIsRefused) {
  const io::PeftAdapter before(fixture() / "adapter", io::NameStyle::qwen2_vl);
  io::AdapterToWrite w;
  w.settings = before.settings();
  w.name_style = io::NameStyle::qwen2_vl;
  std::vector<std::vector<float>> values;
  for (const auto& module : before.modules()) {
    const auto& [a, b] = std::pair(module.second.a, module.second.b);
    values.push_back(host_values(a));
    values.emplace_back(static_cast<std::size_t>(b.shape[0] * b.shape[1]), 0.0f);
  }
  std::size_t i = 0;
  for (const auto& module : before.modules()) {
    w.modules.push_back({module.first, module.second.a.shape[1], module.second.b.shape[0],
                         values[i], values[i + 1]});
    i += 2;
  }
  request_.adapter = folder_.path() / "idle";
  io::write_peft_adapter(request_.adapter, w);
  refused(ExitCode::model, {"every lora_B is zero"});
  // Too little for f16 to show.
  request_.dtype = DType::f16;
  for (std::size_t k = 1; k < values.size(); k += 2) {
    std::fill(values[k].begin(), values[k].end(), 1e-30f);
  }
  io::write_peft_adapter(request_.adapter, w);
  refused(ExitCode::model, {"no weight changes in f16", "--form adapter"});
  // More than f16 can hold.
  for (std::size_t k = 1; k < values.size(); k += 2) {
    std::fill(values[k].begin(), values[k].end(), 1e7f);
  }
  io::write_peft_adapter(request_.adapter, w);
  refused(ExitCode::model, {"not finite in f16", "--dtype bf16"});
  // Bytes that changed after they were written.
  const fs::path file = request_.adapter / "adapter_model.safetensors";
  std::string bytes = bytes_of_file(file);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  folder_.write("idle/adapter_model.safetensors", bytes);
  refused(ExitCode::model, {"altered", "manifest.json"});
}

TEST_F(Export, AClassifierIsASequenceClassifier) {
  const fs::path base = random_base("tiny-llama");
  const io::CheckpointFolder files(base);
  const std::string q = "model.layers.0.self_attn.q_proj";
  const std::vector<std::int64_t> shape = files.shape_of(q + ".weight");
  const std::vector<float> a(static_cast<std::size_t>(4 * shape[1]), 0.5f);
  const std::vector<float> b(static_cast<std::size_t>(shape[0] * 4), 0.5f);
  const std::int64_t width = shape[1];
  const std::vector<float> head(static_cast<std::size_t>(2 * width), 0.125f);
  io::AdapterToWrite w;
  w.settings = {.r = 4, .alpha = 4, .base_model = "Llama-3-8B"};
  w.modules = {{q, shape[1], shape[0], a, b}};
  w.add_files = [&](const fs::path& folder) {
    io::write_safetensors(folder / "head.safetensors", {{"head.weight", DType::f32, {2, width}}},
                          {std::as_bytes(std::span(head))},
                          {{"token_ids", "[9, 4]"}, {"labels", R"(["No", "Yes"])"}});
  };
  request_.adapter = folder_.path() / "classifier";
  request_.base = base.string();
  io::write_peft_adapter(request_.adapter, w);
  ASSERT_TRUE(export_model(request_));
  const io::CheckpointFolder merged(request_.out);
  EXPECT_FALSE(merged.contains("lm_head.weight"));
  EXPECT_EQ(host_values(merged.stored("score.weight")), head);
  const json config = json::parse(bytes_of_file(request_.out / "config.json"));
  EXPECT_EQ(config.at("architectures"), json::array({"LlamaForSequenceClassification"}));
  EXPECT_EQ(config.at("id2label"), (json{{"0", "No"}, {"1", "Yes"}}));
  EXPECT_EQ(config.at("label2id"), (json{{"No", 0}, {"Yes", 1}}));
  const json tokenizer = json::parse(bytes_of_file(base / "tokenizer.json"));
  const json& added = tokenizer.at("added_tokens");
  const auto pad = std::find_if(added.begin(), added.end(), [](const json& t) {
    return t.at("content") == "<|finetune_right_pad_id|>";
  });
  ASSERT_NE(pad, added.end());
  EXPECT_EQ(config.at("pad_token_id"), pad->at("id"));
  EXPECT_NE(bytes_of_file(request_.out / "NOTICE").find("Meta Llama 3"), std::string::npos);

  request_.form = ExportForm::adapter;
  request_.out = folder_.path() / "full";
  ASSERT_TRUE(export_model(request_));
  const io::SafetensorsFile full(request_.out / "lm_head.safetensors");
  const std::vector<float> weight = host_values(full.tensor("lm_head.weight"));
  const std::vector<float> bias = host_values(full.tensor("lm_head.bias"));
  const auto rows = io::read_model_config(base).at("text_config").at("vocab_size");
  ASSERT_EQ(bias.size(), rows.get<std::size_t>());
  for (std::size_t row = 0; row < bias.size(); ++row) {
    const bool is_class = row == 9 || row == 4;
    ASSERT_EQ(bias[row], is_class ? 0.0f : -1000.0f) << row;
    ASSERT_EQ(weight[row * static_cast<std::size_t>(width)], is_class ? 0.125f : 0.0f) << row;
  }
  EXPECT_EQ(bytes_of_file(request_.out / "head.safetensors"),
            bytes_of_file(request_.adapter / "head.safetensors"));
}

}  // namespace
}  // namespace medvqa::train
