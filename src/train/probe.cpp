#include "medvqa/train/probe.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "medvqa/io/safetensors.h"
#include "medvqa/train/loss_scale.h"
#include "medvqa/train/session.h"

namespace medvqa::train {

namespace {

// Collects small tensors as bytes of the type they have in the file.
class Collector {
 public:
  template <class T, class S>
  void add(const std::string& name, std::vector<std::int64_t> shape, const std::vector<S>& values) {
    const std::vector<T> converted(values.begin(), values.end());
    const auto bytes = std::as_bytes(std::span(converted));
    specs_.push_back({name, dtype_of<T>(), std::move(shape)});
    bytes_.emplace_back(bytes.begin(), bytes.end());
  }
  // Written later, piece by piece.
  void reserve(const std::string& name, std::vector<std::int64_t> shape) {
    specs_.push_back({name, DType::f32, std::move(shape)});
    bytes_.emplace_back();
  }
  io::SafetensorsWriter open(const std::filesystem::path& file,
                             const std::vector<std::string>& samples) const {
    return {file, specs_, {{"format", "pt"}, {"samples", nlohmann::json(samples).dump()}}};
  }
  void write(io::SafetensorsWriter& writer) const {
    for (std::size_t i = 0; i < specs_.size(); ++i) {
      if (!bytes_[i].empty()) writer.write(specs_[i].name, bytes_[i]);
    }
  }

 private:
  std::vector<io::TensorSpec> specs_;
  std::vector<std::vector<std::byte>> bytes_;
};

std::int64_t size_of_list(const auto& v) {
  return static_cast<std::int64_t>(v.size());
}

// Samples one after another, whatever micro-batches they came in.
MicroBatch joined(const std::vector<MicroBatch>& batches) {
  MicroBatch all;
  all.input.cu_seqlens = {0};
  for (const MicroBatch& b : batches) {
    const std::int32_t offset = all.input.cu_seqlens.back();
    const auto append = [](auto& to, const auto& from) {
      to.insert(to.end(), from.begin(), from.end());
    };
    append(all.input.ids, b.input.ids);
    append(all.labels, b.labels);
    append(all.classes, b.classes);
    append(all.input.patches, b.input.patches);
    append(all.input.grids, b.input.grids);
    append(all.sample_ids, b.sample_ids);
    all.input.patch_rows += b.input.patch_rows;
    for (std::size_t n = 1; n < b.input.cu_seqlens.size(); ++n) {
      all.input.cu_seqlens.push_back(offset + b.input.cu_seqlens[n]);
    }
  }
  all.find_logit_rows();
  return all;
}

// The first seven rows of the table, pixels reserved only.
void add_inputs(Collector& c, const nlohmann::json& config, const MicroBatch& b,
                const DataInputs& data) {
  const std::int64_t tokens = b.input.tokens();
  c.add<std::int64_t>("input_ids", {tokens}, b.input.ids);
  c.add<std::int32_t>("cu_seqlens", {size_of_list(b.input.cu_seqlens)}, b.input.cu_seqlens);
  const data::IntegerTensor labels = data.objective->labels(b);
  c.add<std::int64_t>(labels.name, labels.shape, labels.values);
  const auto positions = models::token_positions(config, b.input);
  std::vector<std::int32_t> flat;
  for (const auto& axis : positions) flat.insert(flat.end(), axis.begin(), axis.end());
  const bool one_axis = positions.size() == 1;
  c.add<std::int64_t>("position_ids",
                      one_axis ? std::vector<std::int64_t>{tokens}
                               : std::vector<std::int64_t>{size_of_list(positions), tokens},
                      flat);
  c.add<std::int64_t>("logit_rows", {b.label_count()}, b.logit_rows);
  if (b.input.grids.empty()) return;
  std::vector<PatchGrid> grids;
  for (const models::PatchGrid& g : b.input.grids) grids.push_back({g.t, g.h, g.w});
  for (const data::IntegerTensor& t : data.processor->describe_images(grids)) {
    c.add<std::int64_t>(t.name, t.shape, t.values);
  }
  c.reserve("pixel_values", data.processor->pixel_shape(b.input.patch_rows));
}

// "MODULE.lora_A" as in adapter_model.safetensors; the head has a file of its own.
std::string gradient_name(const std::string& trained) {
  return trained == "head.weight" ? "grad." + trained
                                  : "grad.base_model.model." + trained + ".weight";
}

using GradientValues = std::vector<std::vector<float>>;

// Without their scale, in the order of AdaptedModel::gradients().
GradientValues gradients_of(Session& session, double scale) {
  GradientValues all;
  for (const Tensor& grad : session.model().gradients()) {
    std::vector<float>& values = all.emplace_back(static_cast<std::size_t>(grad.elements()));
    session.backend().download(grad, values.data(), values.size() * sizeof(float));
    for (float& v : values) v = static_cast<float>(v / scale);
  }
  return all;
}

bool finite(const GradientValues& all) {
  return std::all_of(all.begin(), all.end(), [](const std::vector<float>& values) {
    return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
  });
}

struct Results {
  std::vector<float> logits;
  double nll = 0;
  GradientValues gradients;
};

// Forward and backward of every micro-batch; logits of all rows in order.
Results run_all(Session& session, const std::vector<MicroBatch>& batches, PassOptions options) {
  session.model().clear_gradients(session.backend());
  Results all;
  const std::uint64_t key = options.random_key;
  for (std::size_t i = 0; i < batches.size(); ++i) {
    options.random_key = micro_batch_key(key, i);
    const PassResult r =
        run_pass(session.backend(), session.arenas(), session.model(), batches[i], options);
    all.logits.insert(all.logits.end(), r.logits.begin(), r.logits.end());
    all.nll += r.nll_sum();
  }
  all.gradients = gradients_of(session, options.gradient_scale);
  return all;
}

// In f16 with the loss scale a run would come to: the first that gives finite gradients.
Results scaled_results(Session& session, const std::vector<MicroBatch>& batches,
                       PassOptions options) {
  if (session.model_inputs().settings.compute != DType::f16) {
    return run_all(session, batches, options);
  }
  LossScale scale;
  for (;;) {
    options.gradient_scale = scale.value();
    Results all = run_all(session, batches, options);
    const bool good = finite(all.gradients);
    scale.update(good);
    if (good || scale.exhausted()) return all;
  }
}

void add_results(Collector& c, Session& session, const std::vector<MicroBatch>& batches,
                 std::int64_t label_tokens) {
  PassOptions options = session.pass_options(0);
  options.want_logits = true;
  options.loss_scale = 1.0 / static_cast<double>(std::max<std::int64_t>(1, label_tokens));
  const Results all = scaled_results(session, batches, options);
  const AdaptedModel& model = session.model();
  const std::int64_t vocabulary = model.head().value.dim(0);
  c.add<float>("logits", {label_tokens, vocabulary}, all.logits);
  c.add<float>("loss", {1}, std::vector<double>{all.nll * options.loss_scale});
  for (std::size_t i = 0; i < all.gradients.size(); ++i) {
    const Tensor& grad = model.gradients()[i];
    c.add<float>(gradient_name(model.trained_names()[i]), {grad.dim(0), grad.dim(1)},
                 all.gradients[i]);
  }
}

}  // namespace

void write_probe(const Config& config, const std::filesystem::path& file) {
  Session session(config, Session::Purpose::probe);
  auto prefetcher = session.batches(0);
  const std::vector<MicroBatch> batches = session.take(*prefetcher, session.steps().front());
  const MicroBatch all = joined(batches);
  Collector c;
  const data::Processor& processor = *session.data().processor;
  add_inputs(c, session.model_inputs().config, all, session.data());
  add_results(c, session, batches, all.label_count());
  io::SafetensorsWriter writer = c.open(file, all.sample_ids);
  c.write(writer);
  if (!all.input.grids.empty()) {
    const std::vector<float> pixels = processor.pixels(all.input.patches);
    writer.write("pixel_values", std::as_bytes(std::span(pixels)));
  }
  writer.commit();
}

void write_probe_inputs(const Config& config, const std::filesystem::path& file) {
  Config everything = config;
  everything.data.validation_fraction.reset();
  everything.data.validation.clear();
  const ModelInputs model = open_model(config, false);
  const DataInputs data = open_data(everything, model);
  std::vector<std::int64_t> order(data.train.examples.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int64_t>(i);
  const MicroBatch all = dry_micro_batch(*data.processor, data.train, order);
  Collector c;
  add_inputs(c, model.config, all, data);
  io::SafetensorsWriter writer = c.open(file, all.sample_ids);
  c.write(writer);
  // Pixels of a whole data set need not fit in memory.
  std::vector<float> patches;
  for (const data::Example& e : data.train.examples) {
    if (e.image.empty()) continue;
    patches.clear();
    data.processor->load_patches(e, patches);
    const std::vector<float> pixels = data.processor->pixels(patches);
    writer.write("pixel_values", std::as_bytes(std::span(pixels)));
  }
  writer.commit();
}

}  // namespace medvqa::train
