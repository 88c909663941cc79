// AdamW with 8-bit states in blocks of 256 (Dettmers et al. 2022) and its f32-state form, as
// bitsandbytes 0.50.2 computes them.
//
//   m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,  c1 = 1 - b1^t,  c2 = sqrt(1 - b2^t)
//   p = p (1 - lr wd),      p += -lr / c1 * m / (sqrt(v) / c2 + eps)
//
// m and v are then stored as codes of the signed and the unsigned dynamic map times the block's
// maximum; the update itself uses them before that rounding. A tensor of fewer than 4096 elements
// keeps f32 states. Everything is f32 except the constants of a step, which are f64 rounded once.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "medvqa/quant/dynamic_map.h"

namespace medvqa::quant {

inline constexpr std::int64_t kAdamWBlockSize = 256;
inline constexpr std::int64_t kAdamWMin8BitElements = 4096;

struct AdamWStep {
  double lr = 0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;
  std::int64_t step = 1;  // 1-based
  double gradient_scale = 1;
};

// The constants of one step in f32. Compute once on the host, hand to every element.
struct AdamWFactors {
  float beta1, one_minus_beta1;
  float beta2, one_minus_beta2;
  float decay;                        // 1 - lr wd
  float eps, correction2, step_8bit;  // eps, c2, -lr / c1
  float scaled_eps, step_32bit;       // eps c2, -lr c2 / c1
  float gradient_scale;
};

AdamWFactors adamw_factors(const AdamWStep& step);

struct Moments {
  float m = 0;
  float v = 0;
};

// The fused multiply-adds are PyTorch's: its vector code has them at exactly these places.
constexpr Moments adamw_moments(const AdamWFactors& f, float g, Moments old) {
  const float scaled = g * f.gradient_scale;
  Moments next;
  next.m = std::fma(scaled, f.one_minus_beta1, old.m * f.beta1);
  next.v = std::fma(scaled * f.one_minus_beta2, scaled, old.v * f.beta2);
  return next;
}

// The parameter after the step, for 8-bit states.
constexpr float adamw_parameter_8bit(const AdamWFactors& f, float p, Moments now) {
  const float root = std::sqrt(now.v) / f.correction2;
  const float denominator = root + f.eps;
  const float update = f.step_8bit * now.m / denominator;
  const float decayed = p * f.decay;
  return decayed + update;
}

// The parameter after the step, for f32 states. PyTorch's order differs from the 8-bit form.
constexpr float adamw_parameter_32bit(const AdamWFactors& f, float p, Moments now) {
  const float denominator = std::sqrt(now.v) + f.scaled_eps;
  return std::fma(now.m / denominator, f.step_32bit, p * f.decay);
}

// Which of its two backends the codes follow. `grid` is bitsandbytes on a CPU, equal to it code
// for code. `nearest` is its CUDA kernel: nearest entry, and m keeps its sign.
enum class CodeRounding : std::uint8_t { grid, nearest };

// The stored code of one moment. `inverse_absmax` is 1 / the block's new maximum; in a block whose
// maximum is 0 store code 0 instead of calling these.
constexpr std::uint8_t nearest_code_m(const float* signed_map, float m, float inverse_absmax) {
  const std::uint8_t code = search_map(signed_map, m * inverse_absmax, true);
  const bool stored_negative = code < 127;
  const bool negative = m < 0.0f;
  if (stored_negative == negative) return code;
  return static_cast<std::uint8_t>(negative ? code - 1 : code + 1);
}

constexpr std::uint8_t nearest_code_v(const float* unsigned_map, float v, float inverse_absmax) {
  return search_map(unsigned_map, v * inverse_absmax, false);
}

struct AdamWTables {
  const float* signed_map;            // [256]
  const float* unsigned_map;          // [256]
  const std::uint8_t* signed_grid;    // [kGridPoints], only for CodeRounding::grid
  const std::uint8_t* unsigned_grid;  // [kGridPoints], only for CodeRounding::grid
  CodeRounding rounding = CodeRounding::grid;
};

// One moment's code as `tables` say.
constexpr std::uint8_t code_m(const AdamWTables& tables, float m, float inverse_absmax) {
  if (tables.rounding == CodeRounding::nearest) {
    return nearest_code_m(tables.signed_map, m, inverse_absmax);
  }
  return tables.signed_grid[grid_index(m * inverse_absmax)];
}

constexpr std::uint8_t code_v(const AdamWTables& tables, float v, float inverse_absmax) {
  if (tables.rounding == CodeRounding::nearest) {
    return nearest_code_v(tables.unsigned_map, v, inverse_absmax);
  }
  return tables.unsigned_grid[grid_index(v * inverse_absmax)];
}

// Tables of the host, never freed.
AdamWTables adamw_tables(CodeRounding rounding = CodeRounding::grid);

// One block of up to 256 elements. p, m_codes, v_codes, m_absmax and v_absmax are read and
// overwritten. States begin as codes 0 with maxima 0.
void adamw_block_8bit(const AdamWFactors& f, const AdamWTables& tables, std::size_t count,
                      const float* g, float* p, std::uint8_t* m_codes, std::uint8_t* v_codes,
                      float& m_absmax, float& v_absmax);

// Any number of elements with f32 states; p, m, v are read and overwritten.
void adamw_elements_32bit(const AdamWFactors& f, std::size_t count, const float* g, float* p,
                          float* m, float* v);

}  // namespace medvqa::quant
