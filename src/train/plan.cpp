#include "medvqa/train/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "medvqa/ops/dry_backend.h"
#include "medvqa/ops/scratch.h"
#include "medvqa/train/available_memory.h"
#include "medvqa/train/backend_factory.h"

namespace medvqa::train {

namespace {

using autograd::Recompute;

constexpr std::size_t kGiB = std::size_t{1} << 30;
// Taken by the driver, cuBLAS and cuDNN before the first tensor.
constexpr std::size_t kCudaContext = std::size_t{700} << 20;
// Program, tokenizer, libraries' own buffers. Measured: 50 to 180 MiB.
constexpr std::size_t kHostProgram = std::size_t{64} << 20;
constexpr std::size_t kBatchesAhead = 3;

struct KnownDevice {
  const char* name;
  std::size_t memory;  // as the device's driver reports it
  DType compute;
};
constexpr std::array<KnownDevice, 5> kDevices{{
    {"t4", std::size_t{15095} << 20, DType::f16},
    {"a100-40", std::size_t{40326} << 20, DType::bf16},
    {"a100-80", std::size_t{81051} << 20, DType::bf16},
    {"h100", std::size_t{81079} << 20, DType::bf16},
    {"h200", std::size_t{143156} << 20, DType::bf16},
}};

Device cuda_device(const std::string& name, std::size_t memory, DType compute) {
  Device d;
  d.name = name;
  d.capacity = memory > kCudaContext ? memory - kCudaContext : 0;
  d.usable = d.capacity;
  d.built_in = false;
  d.traits.name = name;
  d.traits.gemm_workspace = ops::kCublasWorkspace;
  ops::add_cuda_kernels(d.traits);
  d.traits.compute = compute;
  return d;
}

// Its first `samples` samples, if the configuration joins any.
MicroBatch worst_batch(const Config& config, const ModelInputs& model, const Objective& objective,
                       std::int64_t samples) {
  const std::int64_t pixels = data::max_image_pixels(
      model.folder, model.config,
      {.prompt = {}, .min_pixels = config.data.min_pixels, .max_pixels = config.data.max_pixels});
  MicroBatch b;
  b.input = models::largest_input(model.config, config.data.max_length, pixels,
                                  config.data.packing ? samples : 1);
  objective.assume_most_rows(b);
  return b;
}

// Where a parameter belongs, by the names of transformers 5.
std::string part_of(const std::string& name) {
  for (const char* merger : {".merger.", "multi_modal_projector"}) {
    if (name.find(merger) != std::string::npos) return "merger";
  }
  for (const char* tower : {".visual.", ".vision_model."}) {
    if (name.find(tower) != std::string::npos) return "vision";
  }
  if (name.find("embed_tokens") != std::string::npos) return "embedding";
  if (name.rfind("lm_head", 0) == 0) return "head";
  return "decoder";
}

std::vector<ModulePart> parts_of(const ModelInputs& model) {
  ops::DryBackend backend({});
  Arena weights("weights");
  Arena adapters("adapters");
  const nn::DescribedWeights source({});
  nn::Builder builder(backend, source, weights, adapters, DType::bf16, model.settings.lora,
                      nn::QuantizeOnLoad::no, nn::Dequantize::per_use, model.settings.head_rows);
  models::build_model(model.config, builder);
  std::vector<ModulePart> parts;
  for (const char* name : {"vision", "merger", "embedding", "decoder", "head"}) {
    parts.push_back({name, 0, 0});
  }
  const auto part = [&](const std::string& name) -> ModulePart& {
    const std::string belongs = part_of(name);
    return *std::find_if(parts.begin(), parts.end(),
                         [&](const ModulePart& p) { return p.name == belongs; });
  };
  for (const nn::TensorRequest& r : source.requests()) {
    std::int64_t n = 1;
    for (const std::int64_t d : r.shape) n *= d;
    part(r.name).parameters += n;
  }
  for (const auto& m : builder.modules()) part(m->name + ".").trainable += m->r * (m->in + m->out);
  if (builder.trained_head()) {
    part("lm_head") = {"head", 0, builder.trained_head()->value.elements()};
  }
  return parts;
}

// Beside the arenas: the program, batches prepared ahead, and the adapter while it is written.
std::size_t host_bytes(const Device& device, const MicroBatch& batch, const ModelInputs& model,
                       const std::vector<ModulePart>& modules) {
  if (!device.built_in) return 0;
  const std::int64_t columns = models::patch_columns(model.config);
  const auto patches = static_cast<std::size_t>(batch.input.patch_rows * columns) * sizeof(float);
  std::size_t adapter = 0;
  for (const ModulePart& m : modules) adapter += static_cast<std::size_t>(m.trainable);
  return kHostProgram + kBatchesAhead * patches + adapter * sizeof(float);
}

// With the seconds of an optimizer step in the place of a sample's.
void count_time(const Config& config, PolicyChoice choice, Plan& plan) {
  const auto samples =
      static_cast<double>(config.train.batch_size * config.train.gradient_accumulation);
  plan.memory = choice.plan;
  plan.memory.seconds *= samples;
  plan.candidates = std::move(choice.compared);
  for (MemoryPlan& c : plan.candidates) c.seconds *= samples;
}

}  // namespace

Device find_device(const std::string& name, const Config& config) {
  if (name.empty()) {
    const auto backend = make_backend(config.device);
    return {.name = backend->traits().name,
            .capacity = available_memory(*backend),
            .usable = usable_memory(*backend),
            .built_in = true,
            .traits = backend->traits()};
  }
  for (const KnownDevice& d : kDevices) {
    if (name == d.name) return cuda_device(name, d.memory, d.compute);
  }
  std::size_t bytes = 0;
  const auto parsed = std::from_chars(name.data(), name.data() + name.size(), bytes);
  if (parsed.ec == std::errc() && parsed.ptr == name.data() + name.size() && bytes > 0) {
    return cuda_device(name, bytes, DType::bf16);
  }
  throw UserError(ExitCode::usage,
                  fmt::format("--device {}: expected t4, a100-40, a100-80, h100, h200 or a number "
                              "of bytes",
                              name));
}

Plan make_plan(const Config& config, const std::string& device) {
  Plan plan;
  plan.device = find_device(device, config);
  const ModelInputs model = open_model(config, false, plan.device.traits);
  plan.compute = model.settings.compute;
  const auto objective = make_objective(config.data);
  const auto work_of = [&](std::int64_t samples) {
    PlannedWork work;
    work.train.push_back(worst_batch(config, model, *objective, samples));
    // Every run ends with one pass that only goes forward.
    (objective->scores_need_logits() ? work.logits : work.evaluate) = work.train;
    return work;
  };
  const PlannedWork whole = work_of(config.train.batch_size);
  const models::PackedInput& worst = whole.train.front().input;
  plan.modules = parts_of(model);
  plan.host = host_bytes(plan.device, whole.train.front(), model, plan.modules);
  for (const Recompute r : {Recompute::none, Recompute::attention_saved, Recompute::all}) {
    const MemoryPlan m = plan_memory(plan.device.traits, model, {.recompute = r}, whole);
    plan.policies.emplace_back(r, m.sizes.total() + plan.host);
  }
  const PolicyRequest request{.recompute = config.train.recompute,
                              .offload = config.train.offload,
                              .batch_size = config.train.batch_size};
  count_time(config, choose_policy(plan.device.traits, model, request, plan.device.usable, work_of),
             plan);
  plan.tokens = worst.tokens() / worst.samples();
  plan.patches = worst.patch_rows / worst.samples();
  const PlannedWork pass = work_of(plan.memory.policy.samples_per_pass);
  plan.passes = static_cast<double>(config.train.batch_size * config.train.gradient_accumulation) /
                static_cast<double>(pass.train.front().input.samples());
  return plan;
}

std::vector<std::string> changes_that_fit(const Config& config, const std::string& device) {
  struct Change {
    std::string text;
    Config config;
  };
  std::vector<Change> changes;
  const auto add = [&](const std::string& text, auto&& apply) {
    Config c = config;
    apply(c);
    changes.push_back({text, std::move(c)});
  };
  if (config.train.recompute && *config.train.recompute != Recompute::all) {
    add("train.recompute=\"all\"", [](Config& c) { c.train.recompute = Recompute::all; });
  }
  for (std::int64_t b = config.train.batch_size / 2; b >= 1; b /= 2) {
    add(fmt::format("train.batch_size={} train.gradient_accumulation={}", b,
                    config.train.gradient_accumulation * config.train.batch_size / b),
        [b](Config& c) { c.train.batch_size = b; });
  }
  const std::string& compute = config.model.compute;
  if (compute == "f32" ||
      (compute == "auto" && find_device(device, config).traits.compute == DType::f32)) {
    add("model.compute=\"bf16\"", [](Config& c) { c.model.compute = "bf16"; });
  }
  if (config.model.quantization != "nf4") {
    add("model.quantization=\"nf4\"", [](Config& c) { c.model.quantization = "nf4"; });
  }
  const std::int64_t least = std::max<std::int64_t>(1 << 16, config.data.min_pixels.value_or(0));
  for (std::int64_t pixels = 1 << 20; pixels >= least; pixels /= 4) {
    add(fmt::format("data.image.max_pixels={}", pixels), [pixels](Config& c) {
      c.train.batch_size = 1;
      c.data.max_pixels = pixels;
    });
  }
  std::vector<std::string> fitting;
  for (const Change& change : changes) {
    const Plan plan = make_plan(change.config, device);
    if (plan.fits() && fitting.size() < 3) {
      fitting.push_back(fmt::format("--set {} ({:.2f} GiB)", change.text,
                                    static_cast<double>(plan.total()) / static_cast<double>(kGiB)));
    }
  }
  return fitting;
}

}  // namespace medvqa::train
