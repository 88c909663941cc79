// Products through cuBLASLt, sums in f32 (no TF32: f32 means f32, as PyTorch's default).
//
// cuBLASLt counts columns first: a row-major matrix is its own transpose there. So the product is
// asked for as c' = op(b)' op(a)', with the operands changed about and no byte moved.
#include "kernels/cuda/products.h"

#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <utility>

#include "medvqa/ops/scratch.h"

namespace medvqa::cuda {

namespace {

void check(cublasStatus_t status, const char* expression, int line) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw DeviceError(std::string(expression) + ": " + cublasLtGetStatusString(status) + " (" +
                    __FILE__ + ":" + std::to_string(line) + ")");
}
#define MEDVQA_CUBLAS_CALL(expression) check(expression, #expression, __LINE__)

cudaDataType_t cuda_type(DType type) {
  switch (type) {
    case DType::f32:
      return CUDA_R_32F;
    case DType::bf16:
      return CUDA_R_16BF;
    case DType::f16:
      return CUDA_R_16F;
    default:
      throw InternalError("gemm: cuBLASLt has no product of " + std::string(name_of(type)));
  }
}

// What a library's handle of any kind is freed by.
template <class Handle, cublasStatus_t (*destroy)(Handle)>
class Owned {
 public:
  Owned() = default;
  ~Owned() {
    if (handle_ != nullptr) destroy(handle_);
  }
  Owned(Owned&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Owned& operator=(Owned&&) = delete;
  Handle* address() { return &handle_; }
  operator Handle() const { return handle_; }  // NOLINT(google-explicit-constructor)

 private:
  Handle handle_ = nullptr;
};
using Library = Owned<cublasLtHandle_t, cublasLtDestroy>;
using Description = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

// The stored matrix, columns first.
Layout layout_of(const Tensor& t) {
  Layout layout;
  MEDVQA_CUBLAS_CALL(cublasLtMatrixLayoutCreate(
      layout.address(), cuda_type(t.dtype), static_cast<std::uint64_t>(t.dim(1)),
      static_cast<std::uint64_t>(t.dim(0)), t.row_stride));
  return layout;
}

template <class T>
void set(cublasLtMatmulDesc_t description, cublasLtMatmulDescAttributes_t attribute, T value) {
  MEDVQA_CUBLAS_CALL(cublasLtMatmulDescSetAttribute(description, attribute, &value, sizeof(value)));
}

template <class T>
void set(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute,
         T value) {
  MEDVQA_CUBLAS_CALL(
      cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)));
}

std::uint32_t alignment_of(const Tensor& t) {
  const auto address = reinterpret_cast<std::uintptr_t>(t.data);
  const std::uintptr_t lowest = address & (~address + 1);
  return static_cast<std::uint32_t>(std::min<std::uintptr_t>(lowest, 256));
}

Description describe(const ops::Gemm& p) {
  Description d;
  MEDVQA_CUBLAS_CALL(cublasLtMatmulDescCreate(d.address(), CUBLAS_COMPUTE_32F, CUDA_R_32F));
  const auto operation = [](ops::Transpose t) {
    return t == ops::Transpose::yes ? CUBLAS_OP_T : CUBLAS_OP_N;
  };
  set(d, CUBLASLT_MATMUL_DESC_TRANSA, operation(p.transpose_b));
  set(d, CUBLASLT_MATMUL_DESC_TRANSB, operation(p.transpose_a));
  if (p.bias_N) {
    set(d, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(d, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, cuda_type(p.bias_N.dtype));
  }
  return d;
}

}  // namespace

struct Products::State {
  // A shape's description and the algorithm cuBLASLt advises for it, asked for once.
  struct Plan {
    Description description;
    Layout a, b, addend, c;
    cublasLtMatmulAlgo_t algorithm;
  };
  using Key = std::array<std::int64_t, 20>;
  static constexpr std::size_t kMostPlans = 4096;

  explicit State(Stream on) : stream(on) { MEDVQA_CUBLAS_CALL(cublasLtCreate(library.address())); }

  Plan make(const ops::Gemm& p, const Tensor& addend, std::size_t workspace) const;
  const Plan& plan(const ops::Gemm& p, const Tensor& addend, std::size_t workspace);

  Stream stream;
  Library library;
  std::map<Key, Plan> plans;
};

Products::State::Plan Products::State::make(const ops::Gemm& p, const Tensor& addend,
                                            std::size_t workspace) const {
  Plan plan{describe(p), layout_of(p.a), layout_of(p.b), layout_of(addend), layout_of(p.c), {}};
  Preference preference;
  MEDVQA_CUBLAS_CALL(cublasLtMatmulPreferenceCreate(preference.address()));
  set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace);
  // Partial sums stay in f32.
  set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(p.b));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(p.a));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(addend));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(p.c));
  cublasLtMatmulHeuristicResult_t advised{};
  int found = 0;
  MEDVQA_CUBLAS_CALL(cublasLtMatmulAlgoGetHeuristic(library, plan.description, plan.b, plan.a,
                                                    plan.addend, plan.c, preference, 1, &advised,
                                                    &found));
  if (found == 0) {
    throw DeviceError("gemm: cuBLASLt has no algorithm for a product of " +
                      std::to_string(p.c.dim(0)) + " x " + std::to_string(p.c.dim(1)) + " in " +
                      std::string(name_of(p.a.dtype)));
  }
  plan.algorithm = advised.algo;
  return plan;
}

const Products::State::Plan& Products::State::plan(const ops::Gemm& p, const Tensor& addend,
                                                   std::size_t workspace) {
  const auto flags = (p.transpose_a == ops::Transpose::yes ? 1 : 0) +
                     (p.transpose_b == ops::Transpose::yes ? 2 : 0) + (p.bias_N ? 4 : 0);
  const Key key{p.a.dim(0),
                p.a.dim(1),
                p.a.row_stride,
                alignment_of(p.a),
                p.b.dim(0),
                p.b.dim(1),
                p.b.row_stride,
                alignment_of(p.b),
                p.c.dim(0),
                p.c.dim(1),
                p.c.row_stride,
                alignment_of(p.c),
                addend.row_stride,
                alignment_of(addend),
                static_cast<std::int64_t>(p.a.dtype),
                static_cast<std::int64_t>(p.c.dtype),
                flags,
                p.bias_N ? static_cast<std::int64_t>(p.bias_N.dtype) : 0,
                p.accumulate || p.residual_MN ? 1 : 0,
                static_cast<std::int64_t>(workspace)};
  // Batches differ in length without end.
  if (plans.size() >= kMostPlans && plans.count(key) == 0) plans.clear();
  const auto known = plans.find(key);
  return known != plans.end() ? known->second
                              : plans.emplace(key, make(p, addend, workspace)).first->second;
}

Products::Products(Stream stream) : state_(std::make_unique<State>(stream)) {}
Products::~Products() = default;

std::string Products::version() {
  const std::size_t version = cublasLtGetVersion();  // 10000 major + 100 minor + patch
  return "cuBLASLt " + std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100);
}

ops::DeviceTraits Products::traits() const {
  ops::DeviceTraits traits;
  traits.gemm_in_f16 = true;
  traits.gemm_workspace = ops::kCublasWorkspace;
  return traits;
}

void Products::gemm(const ops::Gemm& p, const Tensor& scratch) {
  if (p.c.elements() == 0) return;
  const Tensor& addend = p.residual_MN ? p.residual_MN : p.c;
  const std::size_t workspace = std::min(scratch.bytes(), ops::kCublasWorkspace);
  const State::Plan& plan = state_->plan(p, addend, workspace);
  if (p.bias_N) {
    const void* bias = p.bias_N.data;
    set(plan.description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
  }
  const auto alpha = static_cast<float>(p.alpha);
  const float beta = p.accumulate || p.residual_MN ? 1.0f : 0.0f;
  MEDVQA_CUBLAS_CALL(cublasLtMatmul(state_->library, plan.description, &alpha, p.b.data, plan.b,
                                    p.a.data, plan.a, &beta, addend.data, plan.addend, p.c.data,
                                    plan.c, &plan.algorithm, scratch.data, workspace,
                                    state_->stream));
}

}  // namespace medvqa::cuda
