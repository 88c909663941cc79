#include "medvqa/train/evaluate_only.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <map>

#include "medvqa/core/error.h"
#include "medvqa/core/mt19937.h"
#include "medvqa/train/adapter_files.h"
#include "medvqa/train/available_memory.h"
#include "medvqa/train/backend_factory.h"
#include "medvqa/train/policy.h"
#include "medvqa/train/report.h"

namespace medvqa::train {

void shuffle_images(DataInputs& data, const DataConfig& config, std::uint64_t seed) {
  std::map<std::filesystem::path, std::string> names;
  for (const data::Record& r : data.validation_records) {
    if (!r.image.empty()) names.emplace(r.image, r.image_name);
  }
  if (names.size() < 2) {
    throw UserError(ExitCode::data,
                    fmt::format("--shuffle-images: the validation samples have {} image(s), "
                                "expected at least 2",
                                names.size()));
  }
  const std::vector<std::pair<std::filesystem::path, std::string>> images(names.begin(),
                                                                          names.end());
  const auto order = TorchGenerator(seed).permutation(static_cast<std::int64_t>(images.size()));
  std::map<std::filesystem::path, std::size_t> other;
  for (std::size_t i = 0; i < order.size(); ++i) {
    other[images[static_cast<std::size_t>(order[i])].first] =
        static_cast<std::size_t>(order[(i + 1) % order.size()]);
  }
  for (data::Record& r : data.validation_records) {
    if (r.image.empty()) continue;
    const std::size_t to = other.at(r.image);
    r.image = images[to].first;
    r.image_name = images[to].second;
  }
  // Another image may have another size, and so take another number of tokens.
  prepare_validation(data, config);
}

Evaluation evaluate_only(const Config& config, bool with_shuffled_images) {
  const auto backend = make_backend(config.device);
  ModelInputs model = open_model(config, true, backend->traits());
  DataInputs data = open_data(config, model);
  if (data.validation.examples.empty()) {
    throw UserError(ExitCode::config,
                    "--evaluate: data.validation is null or holds no samples; give a fraction or "
                    "sources");
  }
  if (with_shuffled_images) shuffle_images(data, config.data, config.train.seed);
  for (const std::string& line : too_long_report(data)) spdlog::warn("{}", line);
  const PolicyRequest request{.recompute = autograd::Recompute::all,
                              .offload = config.train.offload,
                              .batch_size = config.train.batch_size};
  const auto passes = [&](std::int64_t samples) {
    PlannedWork work;
    add_evaluation(data, samples, work);
    return work;
  };
  const MemoryPlan plan =
      choose_policy(backend->traits(), model, request, usable_memory(*backend), passes).plan;
  apply(plan.policy, model.settings);
  const std::size_t available = available_memory(*backend);
  if (plan.sizes.total() > available) {
    throw UserError(ExitCode::memory,
                    fmt::format("the evaluation needs {} bytes and {} has {} left; lower "
                                "train.batch_size or data.image.max_pixels",
                                plan.sizes.total(), memory_owner(*backend), available));
  }
  Arenas arenas(*backend, plan.sizes);
  AdaptedModel adapted(*backend, arenas, *model.source, model.config, model.settings);
  if (model.start) {
    load_adapter(*backend, *model.start, adapted);
  } else {
    adapted.initialize_adapters(*backend, config.train.seed);
  }
  return evaluate(*backend, arenas, adapted, data, plan.policy.samples_per_pass);
}

}  // namespace medvqa::train
