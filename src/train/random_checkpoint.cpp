#include "medvqa/train/random_checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>
#include <thread>

#include "medvqa/core/philox.h"
#include "medvqa/io/checkpoint_writer.h"
#include "medvqa/io/file.h"
#include "medvqa/io/model_config.h"
#include "medvqa/io/tensor_names.h"
#include "medvqa/models/model.h"
#include "medvqa/ops/dry_backend.h"
#include "medvqa/quant/dynamic_map.h"
#include "medvqa/quant/nf4.h"
#include "src/train/family_files.h"

namespace medvqa::train {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr std::size_t kPiece = std::size_t{1} << 24;  // elements drawn at a time
constexpr double kNarrow = 0.1;

// Two normal values from two uniform words. Box & Muller 1958.
void normal_pair(std::uint32_t a, std::uint32_t b, float& x, float& y) {
  const double u = (static_cast<double>(a) + 0.5) * 0x1p-32;
  const double v = static_cast<double>(b) * 0x1p-32;
  const double radius = std::sqrt(-2 * std::log(u));
  x = static_cast<float>(radius * std::cos(2 * std::numbers::pi * v));
  y = static_cast<float>(radius * std::sin(2 * std::numbers::pi * v));
}

void parallel_ranges(std::size_t n, const std::function<void(std::size_t, std::size_t)>& f) {
  const std::size_t threads = std::max(1u, std::thread::hardware_concurrency());
  const std::size_t share = (n / threads / 4 + 1) * 4;
  std::vector<std::thread> workers;
  for (std::size_t begin = 0; begin < n; begin += share) {
    workers.emplace_back(f, begin, std::min(n, begin + share));
  }
  for (std::thread& w : workers) w.join();
}

// Elements [first, first + values.size()) of tensor `stream`; `first` is a multiple of 4.
void draw(std::uint64_t seed, std::uint64_t stream, std::size_t first, double mean, double spread,
          std::vector<float>& values) {
  parallel_ranges(values.size(), [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; i += 4) {
      const auto words = philox4x32(seed, stream, (first + i) / 4);
      std::array<float, 4> four;
      normal_pair(words[0], words[1], four[0], four[1]);
      normal_pair(words[2], words[3], four[2], four[3]);
      for (std::size_t k = i; k < std::min(end, i + 4); ++k) {
        values[k] = static_cast<float>(mean + spread * static_cast<double>(four[k - i]));
      }
    }
  });
}

std::size_t elements(const nn::TensorRequest& r) {
  std::size_t n = 1;
  for (const std::int64_t d : r.shape) n *= static_cast<std::size_t>(d);
  return n;
}

struct Distribution {
  double mean, spread;
};

Distribution distribution_of(const nn::TensorRequest& r) {
  switch (r.role) {
    case nn::TensorRole::embedding:
      return {0, 1};
    case nn::TensorRole::norm:
      return {1, kNarrow};
    case nn::TensorRole::bias:
    case nn::TensorRole::gate:
      return {0, kNarrow};
    case nn::TensorRole::linear:
      break;
  }
  const auto fan_in = static_cast<double>(elements(r)) / static_cast<double>(r.shape.front());
  return {0, 1 / std::sqrt(fan_in)};
}

// Every tensor the architecture asks for, in its order.
std::vector<nn::TensorRequest> list_tensors(const json& config) {
  ops::DryBackend backend({});
  const nn::DescribedWeights source({});
  Arena weights("weights");
  Arena adapters("adapters");
  nn::Builder builder(backend, source, weights, adapters, DType::bf16, {}, nn::QuantizeOnLoad::no);
  models::build_model(config, builder);
  return source.requests();
}

std::vector<BFloat16> to_bf16(const std::vector<float>& values) {
  std::vector<BFloat16> out(values.size());
  std::transform(values.begin(), values.end(), out.begin(), [](float v) { return BFloat16(v); });
  return out;
}

class Writer {
 public:
  Writer(const RandomCheckpoint& request, const json& config, const fs::path& folder)
      : request_(request),
        style_(io::name_style_of(config.value("model_type", ""))),
        tensors_(list_tensors(config)),
        writer_(folder, specs()) {}

  void write() {
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      if (four_bit(tensors_[i])) {
        write_quantized(tensors_[i], i);
      } else {
        write_dense(tensors_[i], i);
      }
    }
    writer_.commit();
  }

 private:
  bool four_bit(const nn::TensorRequest& r) const { return request_.nf4 && r.quantizable; }
  std::string stored_name(const nn::TensorRequest& r) const { return io::hub_name(style_, r.name); }
  static io::Nf4Layout layout(const nn::TensorRequest& r) {
    io::Nf4Layout l;
    l.out = r.shape.at(0);
    l.in = r.shape.at(1);
    return l;
  }

  std::vector<io::TensorSpec> specs() const {
    std::vector<io::TensorSpec> specs;
    for (const nn::TensorRequest& r : tensors_) {
      if (four_bit(r)) {
        io::append_nf4_specs(specs, stored_name(r), layout(r));
      } else {
        specs.push_back({stored_name(r), DType::bf16, r.shape});
      }
    }
    return specs;
  }

  void write_dense(const nn::TensorRequest& r, std::size_t stream) {
    const Distribution d = distribution_of(r);
    const std::size_t n = elements(r);
    std::vector<float> values;
    for (std::size_t first = 0; first < n; first += kPiece) {
      values.resize(std::min(kPiece, n - first));
      draw(request_.seed, stream, first, d.mean, d.spread, values);
      const std::vector<BFloat16> narrow = to_bf16(values);
      writer_.write(stored_name(r), std::as_bytes(std::span(narrow)));
    }
  }

  // Quantised from the bf16 values a 16-bit checkpoint of the same seed would hold.
  void write_quantized(const nn::TensorRequest& r, std::size_t stream) {
    const Distribution d = distribution_of(r);
    std::vector<float> values(elements(r));
    draw(request_.seed, stream, 0, d.mean, d.spread, values);
    for (float& v : values) v = static_cast<float>(BFloat16(v));
    const quant::Nf4Data data = quant::quantize_nf4(values);
    const quant::NestedAbsmax nested = quant::quantize_absmax(data.absmax);
    io::Nf4Parts parts;
    parts.packed = data.packed;
    parts.code = quant::kNf4Code;
    parts.codes = nested.codes;
    parts.nested_absmax = nested.absmax;
    parts.nested_map = quant::signed_dynamic_map();
    parts.nested_offset = nested.offset;
    io::write_nf4(writer_, stored_name(r), layout(r), parts);
  }

  const RandomCheckpoint& request_;
  io::NameStyle style_;
  std::vector<nn::TensorRequest> tensors_;
  io::CheckpointWriter writer_;
};

// As transformers writes it for a 4-bit model whose head and projector stay in 16 bit.
json quantization_config(const json& config) {
  return {{"quant_method", "bitsandbytes"},
          {"load_in_4bit", true},
          {"load_in_8bit", false},
          {"_load_in_4bit", true},
          {"_load_in_8bit", false},
          {"bnb_4bit_compute_dtype", "bfloat16"},
          {"bnb_4bit_quant_storage", "uint8"},
          {"bnb_4bit_quant_type", "nf4"},
          {"bnb_4bit_use_double_quant", true},
          {"llm_int8_enable_fp32_cpu_offload", false},
          {"llm_int8_has_fp16_weight", false},
          {"llm_int8_skip_modules", family_files(config).dense_linears},
          {"llm_int8_threshold", 6.0}};
}

void write_processor(const json& config, io::AtomicFolder& folder) {
  const json settings = processor_settings(config);
  if (!settings.is_null()) folder.write("preprocessor_config.json", settings.dump(2) + "\n");
}

void write_text_files(const RandomCheckpoint& request, json config, io::AtomicFolder& folder) {
  config.erase("quantization_config");
  if (request.nf4) config["quantization_config"] = quantization_config(config);
  folder.write("config.json", config.dump(2) + "\n");
  if (!request.tokenizer) {
    folder.write("tokenizer.json", byte_level_tokenizer(config).dump() + "\n");
    folder.write("tokenizer_config.json", tokenizer_settings(config).dump(2) + "\n");
    write_processor(config, folder);
    return;
  }
  if (!fs::exists(*request.tokenizer / "tokenizer.json") &&
      !fs::exists(*request.tokenizer / "tokenizer.model")) {
    throw UserError(ExitCode::model,
                    fmt::format("--tokenizer {}: no tokenizer.json and no tokenizer.model in it; "
                                "name a model folder that has one",
                                request.tokenizer->string()));
  }
  for (const char* name :
       {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
        "preprocessor_config.json", "chat_template.json", "chat_template.jinja", "vocab.json",
        "merges.txt"}) {
    if (fs::exists(*request.tokenizer / name)) folder.copy_in(*request.tokenizer / name);
  }
  if (!fs::exists(*request.tokenizer / "preprocessor_config.json")) {
    write_processor(config, folder);
  }
}

}  // namespace

void write_random_checkpoint(const RandomCheckpoint& request) {
  if (fs::exists(request.out) && (!fs::is_directory(request.out) || !fs::is_empty(request.out))) {
    throw UserError(ExitCode::usage, fmt::format("--out {} is not empty; choose another folder or "
                                                 "remove it",
                                                 request.out.string()));
  }
  const json config = io::normalized_config(request.config, "config.json");
  io::AtomicFolder folder(request.out);
  write_text_files(request, request.config, folder);
  Writer(request, config, folder.aside()).write();
  folder.commit();
}

}  // namespace medvqa::train
