#include "kernels/cuda/cuda_backend.h"

#include "kernels/cuda/update_state.h"
#include "medvqa/ops/scratch.h"

namespace medvqa::cuda {

CudaBackend::CudaBackend(int device)
    : limits_(device_limits(device)),
      stream_(make_stream()),
      products_(std::make_unique<Products>(stream_)),
      uploads_(std::make_unique<UploadQueue>(stream_)),
      copies_(std::make_unique<CopyQueue>(stream_)),
      library_attention_(std::make_unique<LibraryAttention>(limits_, stream_)),
      update_(std::make_unique<UpdateState>(stream_)),
      traits_(products_->traits()) {
  traits_.name = limits_.name;
  ops::add_cuda_kernels(traits_);
  traits_.compute = limits_.architecture >= 80 ? DType::bf16 : DType::f16;
}

CudaBackend::~CudaBackend() {
  copies_.reset();
  uploads_.reset();
  library_attention_.reset();
  products_.reset();
  destroy_stream(stream_);
}

std::shared_ptr<void> CudaBackend::allocate_memory(std::size_t bytes) {
  return allocate_device_memory(bytes);
}

int CudaBackend::devices() {
  return device_count();
}

std::string CudaBackend::version() {
  const std::string attention = LibraryAttention::version();
  return device_software() + ", " + Products::version() +
         (attention.empty() ? "" : ", " + attention);
}

std::optional<std::size_t> CudaBackend::free_memory() const {
  return free_device_memory();
}

void CudaBackend::do_wait() noexcept {
  try {
    synchronise(stream_);
  } catch (const DeviceError&) {  // stays with the device until it is asked again
  }
}

std::shared_ptr<void> CudaBackend::allocate_host_memory(std::size_t bytes) {
  return allocate_pinned_memory(bytes);
}

ops::Transfer CudaBackend::do_offload(const Tensor& src, const Tensor& host) {
  return copies_->to_host(host.data, src.data, src.bytes());
}

ops::Transfer CudaBackend::do_fetch(const Tensor& host, const Tensor& dst) {
  return copies_->to_device(dst.data, host.data, dst.bytes());
}

void CudaBackend::do_await(ops::Transfer transfer) {
  copies_->await(transfer);
}

void CudaBackend::do_upload(const void* host, const Tensor& dst) {
  if (dst.bytes() != 0) uploads_->copy(dst.data, host, dst.bytes());
}

void CudaBackend::do_download(const Tensor& src, void* host) {
  if (src.bytes() != 0) copy_to_host(host, src.data, src.bytes(), stream_);
}

// The activation is a kernel of its own: cuBLASLt's GELU is the tanh form, and has no others.
void CudaBackend::do_gemm(const ops::Gemm& p, const Tensor& scratch) {
  ops::Gemm product = p;
  product.activation = ops::Activation::none;
  product.preactivation_MN = {};
  if (p.preactivation_MN) product.c = p.preactivation_MN;
  if (p.accumulate && p.preactivation_MN) {
    product.accumulate = false;
    product.residual_MN = p.c;
  }
  products_->gemm(product, scratch);
  if (p.activation != ops::Activation::none) do_activation(p.activation, product.c, p.c);
}

}  // namespace medvqa::cuda
