#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "medvqa/io/json.h"
#include "medvqa/train/backend_factory.h"
#include "medvqa/train/merge.h"
#include "src/train/export_source.h"

namespace medvqa::train {

namespace fs = std::filesystem;

namespace {

constexpr const char* kScore = "score.weight";

DType output_type(const ExportRequest& request, const ExportSource& source) {
  if (request.dtype) return *request.dtype;
  return source.config.value("dtype", "") == "float16" ? DType::f16 : DType::bf16;
}

bool stopped(const ExportRequest& request) {
  return request.stop_requested && request.stop_requested();
}

// A sequence classifier has its score in place of the head over the vocabulary.
std::vector<MergedTensor> kept_tensors(const MergedWeights& weights, bool classifier) {
  std::vector<MergedTensor> kept = weights.tensors();
  if (classifier) std::erase_if(kept, [](const auto& t) { return t.name == "lm_head.weight"; });
  return kept;
}

bool write_tensors(const ExportRequest& request, const ExportSource& source, const fs::path& folder,
                   MergedWeights& weights, const std::vector<MergedTensor>& tensors) {
  std::vector<io::TensorSpec> specs;
  specs.reserve(tensors.size() + 1);
  for (const MergedTensor& t : tensors) specs.push_back({t.stored, t.dtype, t.shape});
  if (source.head) specs.push_back({kScore, DType::f32, source.head->weight.shape});
  io::CheckpointWriter writer(folder, std::move(specs), request.max_shard_bytes);
  for (const MergedTensor& t : tensors) {
    if (stopped(request)) return false;
    writer.write(t.stored, weights.merged(t));
  }
  if (source.head) writer.write(kScore, source.head->weight.bytes);
  writer.commit();
  return true;
}

[[noreturn]] void fail_proof(const std::string& tensor, const std::string& problem) {
  throw UserError(ExitCode::io, fmt::format("the export read back: tensor \"{}\" {}; is the disk "
                                            "sound? Nothing was left there",
                                            tensor, problem));
}

struct Changes {
  std::size_t tensors = 0;
  std::size_t elements = 0;
  std::size_t different = 0;
  std::vector<std::string> unchanged;
};

// One written tensor against the base's.
void prove_tensor(const io::CheckpointFolder& written, MergedWeights& weights,
                  const MergedTensor& t, Changes& changes) {
  const nn::HostTensor found = written.stored(t.name);
  if (found.shape != t.shape || found.dtype != t.dtype) {
    fail_proof(t.stored, "has another shape or type");
  }
  const std::span<const std::byte> base = weights.base(t);
  if (!t.adapted) {
    if (!std::equal(base.begin(), base.end(), found.bytes.begin(), found.bytes.end())) {
      fail_proof(t.stored, "has no adapter and is not the base's");
    }
    return;
  }
  const std::size_t different = count_different(base, found.bytes);
  ++changes.tensors;
  changes.elements += found.bytes.size() / size_of(t.dtype);
  changes.different += different;
  if (different == 0) changes.unchanged.push_back(t.stored);
}

void report_changes(const Changes& c, DType dtype) {
  if (c.unchanged.size() == c.tensors) {
    throw UserError(ExitCode::model,
                    fmt::format("no weight changes in {}: what the adapter adds is lost to "
                                "rounding; use it unmerged (--form adapter), or train it longer",
                                name_of(dtype)));
  }
  const double share = 100 * static_cast<double>(c.different) / static_cast<double>(c.elements);
  spdlog::info("merged {} linears in {}: {:.1f} % of their values changed", c.tensors,
               name_of(dtype), share);
  if (c.unchanged.empty()) return;
  spdlog::warn("{} of {} merged linears equal the base's; the first is {}", c.unchanged.size(),
               c.tensors, c.unchanged.front());
}

bool prove(const ExportRequest& request, const ExportSource& source, const fs::path& folder,
           MergedWeights& weights, const std::vector<MergedTensor>& tensors, DType dtype) {
  const io::CheckpointFolder written(folder);
  const std::size_t expected = tensors.size() + (source.head ? 1 : 0);
  if (written.names().size() != expected) {
    throw UserError(ExitCode::io, fmt::format("the export read back holds {} tensors, expected {}",
                                              written.names().size(), expected));
  }
  Changes changes;
  for (const MergedTensor& t : tensors) {
    if (stopped(request)) return false;
    prove_tensor(written, weights, t, changes);
  }
  report_changes(changes, dtype);
  return true;
}

}  // namespace

bool write_merged(const ExportRequest& request, const ExportSource& source,
                  io::AtomicFolder& target) {
  const DType dtype = output_type(request, source);
  const std::unique_ptr<ops::Backend> backend = make_backend("cpu");
  const io::CheckpointFolder base(source.base);
  MergedWeights weights(*backend, base, source.adapter, source.quantize, dtype);
  const std::vector<MergedTensor> tensors = kept_tensors(weights, source.head.has_value());
  target.write("config.json", merged_config(source, dtype).dump(2) + "\n");
  if (!write_tensors(request, source, target.aside(), weights, tensors)) return false;
  return prove(request, source, target.aside(), weights, tensors, dtype);
}

}  // namespace medvqa::train
