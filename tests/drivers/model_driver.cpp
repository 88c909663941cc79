// Loss, logits and gradients of one packed batch given as tensors, for comparisons the data formats
// have no words for (several pictures in a sample): scripts/parity_packed.py.
//
//   medvqa_model_driver CONFIG.JSON INPUTS.safetensors OUTPUTS.safetensors
//
// Inputs: input_ids, labels i64 [T], cu_seqlens i32 [N + 1], patches f32 [P, columns], grids i64
// [n, 3]. Outputs: logits f32 [R, V], loss f32 [1], grad.<key> f32, as in a probe.
#include <cstdio>
#include <cstring>
#include <exception>
#include <map>

#include "medvqa/io/safetensors.h"
#include "medvqa/train/adapter_files.h"
#include "medvqa/train/backend_factory.h"
#include "medvqa/train/memory_plan.h"

namespace medvqa::train {
namespace {

template <class T>
std::vector<T> values(const io::SafetensorsFile& file, const std::string& name) {
  const auto bytes = file.raw(name);
  std::vector<T> v(bytes.size() / sizeof(T));
  std::memcpy(v.data(), bytes.data(), bytes.size());
  return v;
}

MicroBatch read_batch(const std::filesystem::path& path) {
  const io::SafetensorsFile file(path);
  MicroBatch b;
  for (const std::int64_t id : values<std::int64_t>(file, "input_ids")) {
    b.input.ids.push_back(static_cast<std::int32_t>(id));
  }
  for (const std::int64_t label : values<std::int64_t>(file, "labels")) {
    b.labels.push_back(static_cast<std::int32_t>(label));
  }
  b.input.cu_seqlens = values<std::int32_t>(file, "cu_seqlens");
  const auto grids = values<std::int64_t>(file, "grids");
  for (std::size_t i = 0; i + 2 < grids.size(); i += 3) {
    b.input.grids.push_back({grids[i], grids[i + 1], grids[i + 2]});
    b.input.patch_rows += b.input.grids.back().patches();
  }
  b.input.patches = values<float>(file, "patches");
  b.find_logit_rows();
  return b;
}

class Outputs {
 public:
  void add(const std::string& name, std::vector<std::int64_t> shape, std::vector<float> v) {
    specs_.push_back({name, DType::f32, std::move(shape)});
    values_[name] = std::move(v);
  }
  void write(const std::filesystem::path& path) const {
    std::vector<std::span<const std::byte>> bytes;
    for (const io::TensorSpec& s : specs_) {
      bytes.push_back(std::as_bytes(std::span(values_.at(s.name))));
    }
    io::write_safetensors(path, specs_, bytes);
  }

 private:
  std::vector<io::TensorSpec> specs_;
  std::map<std::string, std::vector<float>> values_;
};

void run(const std::filesystem::path& config_file, const std::filesystem::path& inputs,
         const std::filesystem::path& outputs) {
  const Config config = load_config(config_file, {}, {});
  const auto backend = make_backend(config.device);
  const ModelInputs model = open_model(config, true, backend->traits());
  const MicroBatch batch = read_batch(inputs);
  PlannedWork work;
  work.train = {batch};
  work.train_logits = true;
  const MemoryPlan plan =
      plan_memory(backend->traits(), model, {autograd::Recompute::attention_saved}, work);
  Arenas arenas(*backend, plan.sizes);
  AdaptedModel adapted(*backend, arenas, *model.source, model.config, model.settings);
  load_adapter(*backend, *model.start, adapted);
  adapted.clear_gradients(*backend);
  PassOptions options;
  options.recompute = plan.policy.recompute;
  options.want_logits = true;
  options.loss_scale = 1.0 / static_cast<double>(batch.label_count());
  const PassResult r = run_pass(*backend, arenas, adapted, batch, options);
  Outputs out;
  const std::int64_t vocabulary = adapted.head().value.dim(0);
  out.add("logits", {batch.label_count(), vocabulary}, r.logits);
  out.add("loss", {1}, {static_cast<float>(r.nll_sum() * options.loss_scale)});
  for (const auto& m : adapted.modules()) {
    for (const auto& part : {std::pair("lora_A", &m->a), std::pair("lora_B", &m->b)}) {
      const Tensor& g = part.second->grad;
      std::vector<float> v(static_cast<std::size_t>(g.elements()));
      backend->download(g, v.data(), v.size() * sizeof(float));
      out.add("grad.base_model.model." + m->name + "." + part.first + ".weight",
              {g.dim(0), g.dim(1)}, std::move(v));
    }
  }
  out.write(outputs);
}

}  // namespace
}  // namespace medvqa::train

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fputs("usage: medvqa_model_driver CONFIG INPUTS OUTPUTS\n", stderr);
    return 2;
  }
  try {
    medvqa::train::run(argv[1], argv[2], argv[3]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
