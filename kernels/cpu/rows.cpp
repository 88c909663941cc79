#include <cstring>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/elements.h"

namespace medvqa::cpu {

namespace {
std::byte* row_bytes(const Tensor& t, std::int64_t i) {
  return static_cast<std::byte*>(t.data) +
         i * t.row_stride * static_cast<std::int64_t>(size_of(t.dtype));
}
}  // namespace

void CpuBackend::do_gather_rows(const Tensor& table_VC, const Tensor& rows_T, const Tensor& y_TC) {
  const auto bytes = static_cast<std::size_t>(y_TC.dim(1)) * size_of(y_TC.dtype);
  const std::int32_t* rows = rows_T.as<std::int32_t>();
  for (std::int64_t t = 0; t < rows_T.dim(0); ++t) {
    MEDVQA_CHECK(rows[t] >= 0 && rows[t] < table_VC.dim(0), "gather_rows: row out of range");
    std::memcpy(row_bytes(y_TC, t), row_bytes(table_VC, rows[t]), bytes);
  }
}

void CpuBackend::do_scatter_rows(const Tensor& x_IC, const Tensor& rows_I, const Tensor& y_TC) {
  const auto bytes = static_cast<std::size_t>(y_TC.dim(1)) * size_of(y_TC.dtype);
  const std::int32_t* rows = rows_I.as<std::int32_t>();
  for (std::int64_t i = 0; i < rows_I.dim(0); ++i) {
    MEDVQA_CHECK(rows[i] >= 0 && rows[i] < y_TC.dim(0), "scatter_rows: row out of range");
    std::memcpy(row_bytes(y_TC, rows[i]), row_bytes(x_IC, i), bytes);
  }
}

void CpuBackend::do_scale_rows(const Tensor& x_TC, double factor, const Tensor& scale_T,
                               const ops::GradOut& y_TC) {
  if (x_TC.elements() == 0) return;
  dispatch_float(x_TC.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const std::int64_t columns = x_TC.row_elements();
    parallel_for(x_TC.dim(0), columns, [&](std::int64_t i) {
      A scale = static_cast<A>(factor);
      if (scale_T) scale *= scale_T.as<A>()[i];
      const T* x = row<T>(x_TC, i);
      T* y = row<T>(y_TC.tensor, i);
      put_row(y, columns, y_TC.accumulate, [=](std::int64_t c) { return scale * load(x[c]); });
    });
  });
}

}  // namespace medvqa::cpu
