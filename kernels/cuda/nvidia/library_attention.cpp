// Attention's forward through cuDNN 9, on sm_80 and newer. cuDNN is loaded when a device is first
// used (cudnn_symbols.cpp): where it is missing, or does not serve a case, our kernels do. The
// environment's MEDVQA_LIBRARY_ATTENTION=0 leaves it alone.
#include "kernels/cuda/library_attention.h"

#include <cstdlib>
#include <map>
#include <string_view>
#include <unordered_map>

#include "kernels/cuda/nvidia/attention_graph.h"
#include "kernels/cuda/nvidia/cudnn_symbols.h"
#include "medvqa/ops/scratch.h"

namespace medvqa::cuda {

namespace {

using cudnn_frontend::HeurMode_t;
using cudnn_frontend::graph::Graph;

constexpr int kOldestDevice = 80;
// Before 9.6 packed samples had no shared key/value heads.
constexpr std::size_t kOldestVersion = 90600;
constexpr std::int64_t kAlignment = 16;  // bytes, of every row of a tensor

bool wanted() {
  const char* const value = std::getenv("MEDVQA_LIBRARY_ATTENTION");
  return value == nullptr || std::string_view(value) != "0";
}

bool aligned(const Tensor& t) {
  const auto address = reinterpret_cast<std::uintptr_t>(t.data);
  const auto row = t.row_stride * static_cast<std::int64_t>(size_of(t.dtype));
  return address % kAlignment == 0 && row % kAlignment == 0;
}

// Offsets are 32 bits.
bool within_offsets(const Tensor& t) {
  return t.dim(0) * t.row_stride <= INT32_MAX;
}

bool serves(const ops::Attention& p) {
  if (ops::library_attention_scratch(p).bytes == 0) return false;
  // Lengths of queries and keys that differ leave rows without keys, which are not cuDNN's to zero.
  if (p.cu_q_N.data != p.cu_k_N.data) return false;
  for (const Tensor* t : {&p.q_THD, &p.k_SGD, &p.v_SGD, &p.y_THD}) {
    if (!aligned(*t) || !within_offsets(*t)) return false;
  }
  return true;
}

AttentionPlanKey key_of(const ops::Attention& p, const LibraryOperands& o) {
  return {.type = p.q_THD.dtype,
          .heads = p.q_THD.dim(1),
          .groups = p.k_SGD.dim(1),
          .size = p.q_THD.dim(2),
          .samples = o.samples,
          .length = o.length,
          .q_stride = p.q_THD.row_stride,
          .k_stride = p.k_SGD.row_stride,
          .v_stride = p.v_SGD.row_stride,
          .y_stride = p.y_THD.row_stride,
          .causal = p.causal,
          .scale = static_cast<float>(p.scale)};
}

}  // namespace

struct LibraryAttention::State {
  explicit State(Stream stream) {
    ready = cudnnCreate(&handle) == CUDNN_STATUS_SUCCESS &&
            cudnnSetStream(handle, stream) == CUDNN_STATUS_SUCCESS;
  }
  ~State() {
    plans.clear();
    if (handle != nullptr) cudnnDestroy(handle);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  // Null where cuDNN has no plan, or one that wants more memory than there is for it.
  Graph* plan(const AttentionPlanKey& key);

  cudnnHandle_t handle = nullptr;
  bool ready = false;
  // A few: a model's shapes, by powers of two of samples and lengths.
  std::map<AttentionPlanKey, std::unique_ptr<Graph>> plans;
};

Graph* LibraryAttention::State::plan(const AttentionPlanKey& key) {
  const auto known = plans.find(key);
  if (known != plans.end()) return known->second.get();
  std::unique_ptr<Graph> graph = attention_graph(key);
  const bool built =
      graph->build(handle, {HeurMode_t::A}).is_good() &&
      graph->get_workspace_size() <= static_cast<std::int64_t>(ops::kLibraryAttentionWorkspace);
  if (!built) graph.reset();
  return plans.emplace(key, std::move(graph)).first->second.get();
}

LibraryAttention::LibraryAttention(const DeviceLimits& device, Stream stream) {
  if (device.architecture < kOldestDevice || !wanted() || !load_cudnn()) return;
  if (cudnnGetVersion() < kOldestVersion) return;
  state_ = std::make_unique<State>(stream);
  if (!state_->ready) state_.reset();
}

LibraryAttention::~LibraryAttention() = default;

std::string LibraryAttention::version() {
  if (!load_cudnn()) return "cuDNN not found";
  const std::size_t version = cudnnGetVersion();  // 10000 major + 100 minor + patch
  return "cuDNN " + std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) +
         "." + std::to_string(version % 100);
}

bool LibraryAttention::forward(const ops::Attention& p, const Tensor& scratch) {
  if (state_ == nullptr || !serves(p)) return false;
  const LibraryOperands o = library_operands(p, scratch);
  Graph* const graph = state_->plan(key_of(p, o));
  if (graph == nullptr) return false;
  cudaStream_t stream = nullptr;
  if (cudnnGetStream(state_->handle, &stream) != CUDNN_STATUS_SUCCESS) {
    throw DeviceError("attention: cuDNN has lost its stream");
  }
  write_library_operands(p, o, stream);
  using enum AttentionOperand;
  std::unordered_map<std::int64_t, void*> addresses;
  const auto give = [&](AttentionOperand operand, void* address) {
    addresses.emplace(static_cast<std::int64_t>(operand), address);
  };
  give(q, p.q_THD.data);
  give(k, p.k_SGD.data);
  give(v, p.v_SGD.data);
  give(y, p.y_THD.data);
  give(lse, o.lse);
  give(q_offsets, o.q_offsets);
  give(k_offsets, o.k_offsets);
  give(v_offsets, o.v_offsets);
  give(y_offsets, o.y_offsets);
  give(lengths, o.lengths);
  auto status = graph->execute(state_->handle, addresses, o.workspace);
  if (!status.is_good()) {
    throw DeviceError("attention: cuDNN " + status.get_message() + " (" + __FILE__ + ")");
  }
  read_library_lse(p, o, stream);
  return true;
}

}  // namespace medvqa::cuda
