#include <cmath>
#include <cstdint>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device/elements.h"

namespace medvqa::cuda {

namespace {

// columns: pairs of cos_TF; an angle is a thread's.
__global__ void __launch_bounds__(kElementThreads)
    rotary_table_kernel(ElementGrid grid, const std::int32_t* positions_AT, std::int64_t stride,
                        const float* inv_freq_F, const std::int32_t* axis_F, float* cos_TF,
                        float* sin_TF) {
  ElementPlace place;
  if (!find_place(grid, place)) return;
  const unsigned token = place.row, f = place.vector;
  const std::int32_t position = positions_AT[axis_F[f] * stride + token];
  const float angle = static_cast<float>(position) * inv_freq_F[f];
  const std::int64_t at = static_cast<std::int64_t>(token) * grid.per_row + f;
  cos_TF[at] = cosf(angle);
  sin_TF[at] = sinf(angle);
}

// N neighbouring f32, which may be more than one instruction moves.
template <int N>
__device__ void load_floats(const float* from, float (&to)[N]) {
  constexpr int kStep = N < 4 ? N : 4;
#pragma unroll
  for (int i = 0; i < N; i += kStep) {
    const Vector<float, kStep> v = load_vector<float, kStep>(from + i);
#pragma unroll
    for (int k = 0; k < kStep; ++k) to[i + k] = v[k];
  }
}

// columns: pairs of all heads of a row; N of one head's are a thread's.
template <class T, int N>
__global__ void __launch_bounds__(kElementThreads)
    rotary_kernel(ElementGrid grid, RowPointer<T> x_TC, unsigned half,
                  const float* __restrict__ cos_TF, const float* __restrict__ sin_TF, float sign) {
  ElementPlace place;
  if (!find_place(grid, place)) return;
  const unsigned head = place.vector * N / half, f = place.vector * N % half;
  const std::int64_t angle = static_cast<std::int64_t>(place.row) * half + f;
  float cosines[N], sines[N];
  load_floats(cos_TF + angle, cosines);
  load_floats(sin_TF + angle, sines);
  T* lower = x_TC[place.row] + static_cast<std::int64_t>(head) * 2 * half + f;
  T* upper = lower + half;
  Vector<T, N> u = load_vector<T, N>(lower);
  Vector<T, N> v = load_vector<T, N>(upper);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const float a = to_float(u[i]), b = to_float(v[i]);
    const float c = cosines[i], s = sign * sines[i];
    u[i] = from_float<T>(a * c - b * s);
    v[i] = from_float<T>(b * c + a * s);
  }
  store_vector(lower, u);
  store_vector(upper, v);
}

}  // namespace

void CudaBackend::do_rotary_table(const ops::RotaryTable& p) {
  if (p.cos_TF.elements() == 0) return;
  const RowExtent extent{p.cos_TF.dim(0), p.cos_TF.dim(1)};
  launch_elements(rotary_table_kernel, extent, 1, stream_,
                  elements_of<std::int32_t>(p.positions_AT), p.positions_AT.row_stride,
                  elements_of<float>(p.inv_freq_F), elements_of<std::int32_t>(p.axis_F),
                  elements_of<float>(p.cos_TF), elements_of<float>(p.sin_TF));
}

void CudaBackend::do_rotary(const ops::Rotary& p) {
  const std::int64_t half = p.head_size / 2;
  const RowExtent extent{p.x_TC.dim(0), p.heads * half};
  if (extent.rows * extent.columns == 0) return;
  dispatch_storage(p.x_TC.dtype, [&]<class T>() {
    const bool vectors = rows_take_vectors<T>(extent.rows, half, {&p.x_TC}) &&
                         rows_take_vectors<float>(extent.rows, half, {&p.cos_TF, &p.sin_TF});
    dispatch_vectors<T>(vectors, [&]<int N>() {
      launch_elements(rotary_kernel<T, N>, extent, N, stream_, row_pointer<T>(p.x_TC), half,
                      elements_of<float>(p.cos_TF), elements_of<float>(p.sin_TF),
                      p.inverse ? -1.0f : 1.0f);
    });
  });
}

}  // namespace medvqa::cuda
