#include "kernels/cuda/nvidia/cudnn_symbols.h"

#include <cudnn.h>
#include <dlfcn.h>

namespace medvqa::cuda {

namespace {

struct Functions {
  decltype(&::cudnnGetVersion) get_version;
  decltype(&::cudnnGetErrorString) get_error_string;
  decltype(&::cudnnGetLastErrorString) get_last_error_string;
  decltype(&::cudnnCreate) create;
  decltype(&::cudnnDestroy) destroy;
  decltype(&::cudnnSetStream) set_stream;
  decltype(&::cudnnGetStream) get_stream;
  decltype(&::cudnnBackendCreateDescriptor) create_descriptor;
  decltype(&::cudnnBackendDestroyDescriptor) destroy_descriptor;
  decltype(&::cudnnBackendSetAttribute) set_attribute;
  decltype(&::cudnnBackendGetAttribute) get_attribute;
  decltype(&::cudnnBackendFinalize) finalize;
  decltype(&::cudnnBackendExecute) execute;
  // Of convolutions: the front end's header names them, unused as they are.
  decltype(&::cudnnCreateFilterDescriptor) create_filter;
  decltype(&::cudnnDestroyFilterDescriptor) destroy_filter;
  decltype(&::cudnnSetFilterNdDescriptor) set_filter;
  decltype(&::cudnnReorderFilterAndBias) reorder_filter;
  bool complete = false;
};

template <class Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

Functions load() {
  Functions f{};
  // Stays for the life of the program.
  void* library = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) library = dlopen(MEDVQA_CUDNN_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return f;
  f.complete = find(library, "cudnnGetVersion", f.get_version) &&
               find(library, "cudnnGetErrorString", f.get_error_string) &&
               find(library, "cudnnGetLastErrorString", f.get_last_error_string) &&
               find(library, "cudnnCreate", f.create) && find(library, "cudnnDestroy", f.destroy) &&
               find(library, "cudnnSetStream", f.set_stream) &&
               find(library, "cudnnGetStream", f.get_stream) &&
               find(library, "cudnnBackendCreateDescriptor", f.create_descriptor) &&
               find(library, "cudnnBackendDestroyDescriptor", f.destroy_descriptor) &&
               find(library, "cudnnBackendSetAttribute", f.set_attribute) &&
               find(library, "cudnnBackendGetAttribute", f.get_attribute) &&
               find(library, "cudnnBackendFinalize", f.finalize) &&
               find(library, "cudnnBackendExecute", f.execute) &&
               find(library, "cudnnCreateFilterDescriptor", f.create_filter) &&
               find(library, "cudnnDestroyFilterDescriptor", f.destroy_filter) &&
               find(library, "cudnnSetFilterNdDescriptor", f.set_filter) &&
               find(library, "cudnnReorderFilterAndBias", f.reorder_filter);
  return f;
}

const Functions& functions() {
  static const Functions found = load();
  return found;
}

}  // namespace

bool load_cudnn() {
  return functions().complete;
}

}  // namespace medvqa::cuda

// What the callers of cudnn.h are linked with.
using medvqa::cuda::functions;

size_t cudnnGetVersion() {
  return functions().get_version();
}
const char* cudnnGetErrorString(cudnnStatus_t status) {
  return functions().get_error_string(status);
}
void cudnnGetLastErrorString(char* message, size_t max_size) {
  functions().get_last_error_string(message, max_size);
}
cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
  return functions().create(handle);
}
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
  return functions().destroy(handle);
}
cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  return functions().set_stream(handle, stream);
}
cudnnStatus_t cudnnGetStream(cudnnHandle_t handle, cudaStream_t* stream) {
  return functions().get_stream(handle, stream);
}
cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t* descriptor) {
  return functions().create_descriptor(type, descriptor);
}
cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
  return functions().destroy_descriptor(descriptor);
}
cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count,
                                       const void* elements) {
  return functions().set_attribute(descriptor, name, type, count, elements);
}
cudnnStatus_t cudnnBackendGetAttribute(const cudnnBackendDescriptor_t descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t requested,
                                       int64_t* count, void* elements) {
  return functions().get_attribute(descriptor, name, type, requested, count, elements);
}
cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
  return functions().finalize(descriptor);
}
cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                                  cudnnBackendDescriptor_t variants) {
  return functions().execute(handle, plan, variants);
}
cudnnStatus_t cudnnCreateFilterDescriptor(cudnnFilterDescriptor_t* filter) {
  return functions().create_filter(filter);
}
cudnnStatus_t cudnnDestroyFilterDescriptor(cudnnFilterDescriptor_t filter) {
  return functions().destroy_filter(filter);
}
cudnnStatus_t cudnnSetFilterNdDescriptor(cudnnFilterDescriptor_t filter, cudnnDataType_t type,
                                         cudnnTensorFormat_t format, int rank, const int* dims) {
  return functions().set_filter(filter, type, format, rank, dims);
}
cudnnStatus_t cudnnReorderFilterAndBias(cudnnHandle_t handle, const cudnnFilterDescriptor_t filter,
                                        cudnnReorderType_t kind, const void* data, void* reordered,
                                        int with_bias, const void* bias, void* reordered_bias) {
  return functions().reorder_filter(handle, filter, kind, data, reordered, with_bias, bias,
                                    reordered_bias);
}
