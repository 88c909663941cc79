// Moving rows: copy, convert, fill, accumulate, gather, scatter, scale. A thread moves N neighbours
// at once: 16 bytes where addresses and row lengths allow, one element otherwise.
#include <cmath>
#include <cstdint>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device/storage.h"

namespace medvqa::cuda {

namespace {

constexpr int kThreads = 256;

// A row's length and the distance to the next, in units of N elements.
struct Rows {
  std::int64_t columns = 0;
  std::int64_t stride = 0;
};

__device__ std::int64_t thread_number() {
  return static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

// Where unit `column` of a row begins, in elements.
template <int N>
__device__ std::int64_t element_at(const Rows& rows, std::int64_t row, std::int64_t column) {
  return (row * rows.stride + column) * N;
}

// Row i of y is row chosen[i] of x (gather), row chosen[i] of y is row i of x (scatter), or both
// are row i where nothing is chosen.
enum class Choice : std::uint8_t { none, gather, scatter };

template <class T, int N, Choice C>
__global__ void __launch_bounds__(kThreads)
    move_kernel(std::int64_t n, const T* x, Rows x_rows, const std::int32_t* chosen, T* y,
                Rows y_rows) {
  const std::int64_t i = thread_number();
  if (i >= n) return;
  const std::int64_t row = i / x_rows.columns, column = i % x_rows.columns;
  const std::int64_t from = C == Choice::gather ? chosen[row] : row;
  const std::int64_t to = C == Choice::scatter ? chosen[row] : row;
  store_vector(y + element_at<N>(y_rows, to, column),
               load_vector<T, N>(x + element_at<N>(x_rows, from, column)));
}

// y = factor * scale[row] * x, or y += it in f32, rounded once; scale null: all ones.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    scale_kernel(std::int64_t n, const T* x, Rows x_rows, float factor, const float* scale, T* y,
                 Rows y_rows, bool accumulate) {
  const std::int64_t i = thread_number();
  if (i >= n) return;
  const std::int64_t row = i / x_rows.columns, column = i % x_rows.columns;
  const float by = scale == nullptr ? factor : factor * scale[row];
  T* to = y + element_at<N>(y_rows, row, column);
  Vector<T, N> v = load_vector<T, N>(x + element_at<N>(x_rows, row, column));
  if (accumulate) {
    const Vector<T, N> before = load_vector<T, N>(to);
    for (int k = 0; k < N; ++k) v[k] = from_float<T>(to_float(before[k]) + by * to_float(v[k]));
  } else {
    for (int k = 0; k < N; ++k) v[k] = from_float<T>(by * to_float(v[k]));
  }
  store_vector(to, v);
}

template <class S, class D, int N>
__global__ void __launch_bounds__(kThreads) convert_kernel(std::int64_t n, const S* x, D* y) {
  const std::int64_t i = thread_number();
  if (i >= n) return;
  const Vector<S, N> from = load_vector<S, N>(x + i * N);
  Vector<D, N> to;
  for (int k = 0; k < N; ++k) to[k] = from_float<D>(to_float(from[k]));
  store_vector(y + i * N, to);
}

template <class T>
__global__ void __launch_bounds__(kThreads) fill_kernel(std::int64_t n, T* y, float value) {
  const std::int64_t i = thread_number();
  if (i < n) y[i] = from_float<T>(value);
}

// Runs kernel(n, arguments...) with a thread for each of n units.
template <class... Parameters, class... Arguments>
void launch_units(void (*kernel)(std::int64_t, Parameters...), std::int64_t n, Stream stream,
                  Arguments&&... arguments) {
  if (n == 0) return;
  launch(kernel, blocks_for(n, kThreads), kThreads, 0, stream, n,
         std::forward<Arguments>(arguments)...);
}

bool aligned(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p) % 16 == 0;
}

// Whether all rows of all tensors begin at and consist of whole units of n elements.
bool in_units(std::int64_t n, std::initializer_list<Tensor> tensors) {
  bool fits = true;
  for (const Tensor& t : tensors) {
    fits = fits && aligned(t.data) && t.row_elements() % n == 0 && t.row_stride % n == 0;
  }
  return fits;
}

Rows rows_of(const Tensor& t, std::int64_t unit) {
  return {.columns = t.row_elements() / unit, .stride = t.row_stride / unit};
}

// Rank-1 tensors have rows of one element; where everything is contiguous it is one long row.
Tensor as_one_row(const Tensor& t) {
  return t.reshaped({1, t.elements()});
}

template <class T, Choice C>
void move(const Tensor& x, const std::int32_t* chosen, const Tensor& y, std::int64_t n,
          Stream stream) {
  constexpr int kVector = 16 / sizeof(T);
  auto* from = static_cast<const T*>(x.data);
  auto* to = static_cast<T*>(y.data);
  if (in_units(kVector, {x, y})) {
    launch_units(move_kernel<T, kVector, C>, n / kVector, stream, from, rows_of(x, kVector), chosen,
                 to, rows_of(y, kVector));
  } else {
    launch_units(move_kernel<T, 1, C>, n, stream, from, rows_of(x, 1), chosen, to, rows_of(y, 1));
  }
}

// Moves n elements of any type as the bits they are.
template <Choice C>
void move_bits(const Tensor& x, const std::int32_t* chosen, const Tensor& y, std::int64_t n,
               Stream stream) {
  switch (size_of(x.dtype)) {
    case 1:
      return move<std::uint8_t, C>(x, chosen, y, n, stream);
    case 2:
      return move<std::uint16_t, C>(x, chosen, y, n, stream);
    case 4:
      return move<std::uint32_t, C>(x, chosen, y, n, stream);
    default:
      return move<std::uint64_t, C>(x, chosen, y, n, stream);
  }
}

void scale(const Tensor& x, float factor, const Tensor& by_row, const ops::GradOut& y,
           Stream stream) {
  dispatch_storage(x.dtype, [&]<class T>() {
    constexpr int kVector = 16 / sizeof(T);
    const float* s = by_row ? elements_of<float>(by_row) : nullptr;
    const T* from = elements_of<T>(x);
    T* to = elements_of<T>(y.tensor);
    if (in_units(kVector, {x, y.tensor})) {
      launch_units(scale_kernel<T, kVector>, x.elements() / kVector, stream, from,
                   rows_of(x, kVector), factor, s, to, rows_of(y.tensor, kVector), y.accumulate);
    } else {
      launch_units(scale_kernel<T, 1>, x.elements(), stream, from, rows_of(x, 1), factor, s, to,
                   rows_of(y.tensor, 1), y.accumulate);
    }
  });
}

}  // namespace

void CudaBackend::do_copy(const Tensor& src, const Tensor& dst) {
  if (src.elements() == 0) return;
  const bool flat = src.contiguous() && dst.contiguous();
  move_bits<Choice::none>(flat ? as_one_row(src) : src, nullptr, flat ? as_one_row(dst) : dst,
                          src.elements(), stream_);
}

void CudaBackend::do_convert(const Tensor& src, const Tensor& dst) {
  const std::int64_t n = src.elements();
  dispatch_storage(src.dtype, [&]<class S>() {
    const S* from = elements_of<S>(src);
    if (dst.dtype == DType::f64) {
      return launch_units(convert_kernel<S, double, 1>, n, stream_, from, elements_of<double>(dst));
    }
    dispatch_storage(dst.dtype, [&]<class D>() {
      constexpr int kVector = 4;
      D* to = elements_of<D>(dst);
      if (n % kVector == 0 && aligned(from) && aligned(to)) {
        launch_units(convert_kernel<S, D, kVector>, n / kVector, stream_, from, to);
      } else {
        launch_units(convert_kernel<S, D, 1>, n, stream_, from, to);
      }
    });
  });
}

void CudaBackend::do_fill(const Tensor& dst, double value) {
  const bool integers = dst.dtype == DType::u8 || dst.dtype == DType::i32;
  MEDVQA_CHECK(!integers || value == 0, "integer tensors can only be filled with zero");
  if (integers || (value == 0 && !std::signbit(value))) {
    if (dst.bytes() != 0) set_zero(dst.data, dst.bytes(), stream_);
    return;
  }
  dispatch_storage(dst.dtype, [&]<class T>() {
    launch_units(fill_kernel<T>, dst.elements(), stream_, elements_of<T>(dst),
                 static_cast<float>(value));
  });
}

void CudaBackend::do_accumulate(const Tensor& src, const ops::GradOut& dst) {
  if (!dst.accumulate) return do_copy(src, dst.tensor);
  if (src.elements() == 0) return;
  if (src.contiguous() && dst.tensor.contiguous()) {
    return scale(as_one_row(src), 1.0f, {}, {as_one_row(dst.tensor), true}, stream_);
  }
  scale(src, 1.0f, {}, dst, stream_);
}

// Unlike the CPU's, a kernel cannot refuse a row number that is out of range; the model's code
// makes them.
void CudaBackend::do_gather_rows(const Tensor& table_VC, const Tensor& rows_T, const Tensor& y_TC) {
  if (y_TC.elements() == 0) return;
  move_bits<Choice::gather>(table_VC, elements_of<std::int32_t>(rows_T), y_TC, y_TC.elements(),
                            stream_);
}

void CudaBackend::do_scatter_rows(const Tensor& x_IC, const Tensor& rows_I, const Tensor& y_TC) {
  if (x_IC.elements() == 0) return;
  move_bits<Choice::scatter>(x_IC, elements_of<std::int32_t>(rows_I), y_TC, x_IC.elements(),
                             stream_);
}

void CudaBackend::do_scale_rows(const Tensor& x_TC, double factor, const Tensor& scale_T,
                                const ops::GradOut& y_TC) {
  if (x_TC.elements() == 0) return;
  scale(x_TC, static_cast<float>(factor), scale_T, y_TC, stream_);
}

}  // namespace medvqa::cuda
