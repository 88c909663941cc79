#include "medvqa/train/probe.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "medvqa/io/safetensors.h"
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

void add_gradients(Collector& c, Session& session) {
  const AdaptedModel& model = session.model();
  for (std::size_t i = 0; i < model.gradients().size(); ++i) {
    const Tensor& grad = model.gradients()[i];
    std::vector<float> values(static_cast<std::size_t>(grad.elements()));
    session.backend().download(grad, values.data(), values.size() * sizeof(float));
    c.add<float>(gradient_name(model.trained_names()[i]), {grad.dim(0), grad.dim(1)}, values);
  }
}

// Forward and backward of every micro-batch; logits of all rows in order, and the loss.
void add_results(Collector& c, Session& session, const std::vector<MicroBatch>& batches,
                 std::int64_t label_tokens) {
  PassOptions options = session.pass_options(0);
  options.want_logits = true;
  options.loss_scale = 1.0 / static_cast<double>(std::max<std::int64_t>(1, label_tokens));
  session.model().clear_gradients(session.backend());
  std::vector<float> logits;
  double nll = 0;
  const std::uint64_t key = options.random_key;
  for (std::size_t i = 0; i < batches.size(); ++i) {
    options.random_key = micro_batch_key(key, i);
    const PassResult r =
        run_pass(session.backend(), session.arenas(), session.model(), batches[i], options);
    logits.insert(logits.end(), r.logits.begin(), r.logits.end());
    nll += r.nll_sum();
  }
  const std::int64_t vocabulary = session.model().head().value.dim(0);
  c.add<float>("logits", {label_tokens, vocabulary}, logits);
  c.add<float>("loss", {1}, std::vector<double>{nll * options.loss_scale});
  add_gradients(c, session);
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
