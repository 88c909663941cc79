#include "kernels/cpu/cpu_backend.h"

#include <omp.h>

#include <cstdlib>
#include <cstring>
#include <new>

#include "kernels/cpu/elements.h"
#include "kernels/cpu/matmul_cache.h"

namespace medvqa::cpu {

CpuBackend::CpuBackend() : matmuls_(std::make_unique<MatmulCache>()) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512bf16") != 0) traits_.compute = DType::bf16;
  if (__builtin_cpu_supports("avx2") == 0 || __builtin_cpu_supports("fma") == 0) {
    throw UserError(ExitCode::device,
                    "this processor lacks AVX2 or FMA, which the CPU kernels need; run on a newer "
                    "machine or with device=cuda");
  }
#endif
  traits_.name = "cpu";
  traits_.threads = omp_get_max_threads();
  traits_.gemm_in_f16 = false;
  for (int i = 0; i < traits_.threads; ++i) {
    head_products_.push_back(std::make_unique<MatmulCache>());
  }
}

CpuBackend::~CpuBackend() = default;

std::string CpuBackend::version() {
  const dnnl_version_t* v = dnnl_version();
  return "oneDNN " + std::to_string(v->major) + "." + std::to_string(v->minor) + "." +
         std::to_string(v->patch);
}

std::shared_ptr<void> CpuBackend::allocate_memory(std::size_t bytes) {
  const std::size_t rounded = (bytes / kArenaAlignment + 1) * kArenaAlignment;
  void* memory = std::aligned_alloc(kArenaAlignment, rounded);
  if (memory == nullptr) {
    throw UserError(ExitCode::memory, "the system has no " + std::to_string(rounded) +
                                          " bytes of memory left; lower train.batch_size or "
                                          "data.image.max_pixels");
  }
  return {memory, [](void* p) { std::free(p); }};
}

void CpuBackend::do_upload(const void* host, const Tensor& dst) {
  if (dst.bytes() != 0) std::memcpy(dst.data, host, dst.bytes());
}

void CpuBackend::do_download(const Tensor& src, void* host) {
  if (src.bytes() != 0) std::memcpy(host, src.data, src.bytes());
}

// Both memories are the host's: the copy is made at once.
ops::Transfer CpuBackend::do_offload(const Tensor& src, const Tensor& host) {
  do_copy(src, host);
  return 0;
}

ops::Transfer CpuBackend::do_fetch(const Tensor& host, const Tensor& dst) {
  do_copy(host, dst);
  return 0;
}

void CpuBackend::do_copy(const Tensor& src, const Tensor& dst) {
  if (src.elements() == 0) return;
  const std::size_t bytes = static_cast<std::size_t>(src.row_elements()) * size_of(src.dtype);
  const std::size_t from = static_cast<std::size_t>(src.row_stride) * size_of(src.dtype);
  const std::size_t to = static_cast<std::size_t>(dst.row_stride) * size_of(dst.dtype);
  parallel_for(src.dim(0), src.row_elements(), [&](std::int64_t i) {
    const auto at = static_cast<std::size_t>(i);
    std::memcpy(static_cast<std::byte*>(dst.data) + at * to,
                static_cast<const std::byte*>(src.data) + at * from, bytes);
  });
}

void CpuBackend::do_convert(const Tensor& src, const Tensor& dst) {
  constexpr std::int64_t kBlock = 4096;
  const std::int64_t n = src.elements();
  dispatch_float(src.dtype, [&]<class S>() {
    dispatch_float(dst.dtype, [&]<class D>() {
      const S* s = src.as<S>();
      D* d = dst.as<D>();
      parallel_for((n + kBlock - 1) / kBlock, kBlock, [&](std::int64_t block) {
        const std::int64_t end = std::min(n, (block + 1) * kBlock);
        for (std::int64_t i = block * kBlock; i < end; ++i) {
          d[i] = static_cast<D>(static_cast<Accumulator<D>>(load(s[i])));
        }
      });
    });
  });
}

void CpuBackend::do_fill(const Tensor& dst, double value) {
  if (dst.dtype == DType::u8 || dst.dtype == DType::i32) {
    MEDVQA_CHECK(value == 0, "integer tensors can only be filled with zero");
    if (dst.bytes() != 0) std::memset(dst.data, 0, dst.bytes());
    return;
  }
  dispatch_float(dst.dtype, [&]<class T>() {
    const T v = static_cast<T>(static_cast<Accumulator<T>>(value));
    T* d = dst.as<T>();
    for (std::int64_t i = 0; i < dst.elements(); ++i) d[i] = v;
  });
}

void CpuBackend::do_accumulate(const Tensor& src, const ops::GradOut& dst) {
  if (!dst.accumulate) return do_copy(src, dst.tensor);
  if (src.elements() == 0) return;
  dispatch_float(src.dtype, [&]<class T>() {
    const std::int64_t columns = src.row_elements();
    parallel_for(src.dim(0), columns, [&](std::int64_t i) {
      const T* s = row<T>(src, i);
      T* d = row<T>(dst.tensor, i);
      put_row(d, columns, true, [=](std::int64_t c) { return load(s[c]); });
    });
  });
}

}  // namespace medvqa::cpu
