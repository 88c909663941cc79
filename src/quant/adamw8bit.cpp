#include "medvqa/quant/adamw8bit.h"

#include <algorithm>
#include <array>

#include "medvqa/core/error.h"

namespace medvqa::quant {

AdamWFactors adamw_factors(const AdamWStep& s) {
  MEDVQA_CHECK(s.step >= 1, "the step of AdamW counts from 1");
  const double correction1 = 1.0 - std::pow(s.beta1, static_cast<double>(s.step));
  const double correction2 = std::sqrt(1.0 - std::pow(s.beta2, static_cast<double>(s.step)));
  AdamWFactors f{};
  f.beta1 = static_cast<float>(s.beta1);
  f.one_minus_beta1 = static_cast<float>(1.0 - s.beta1);
  f.beta2 = static_cast<float>(s.beta2);
  f.one_minus_beta2 = static_cast<float>(1.0 - s.beta2);
  f.decay = static_cast<float>(1.0 - s.lr * s.weight_decay);
  f.eps = static_cast<float>(s.eps);
  f.correction2 = static_cast<float>(correction2);
  f.step_8bit = static_cast<float>(-s.lr / correction1);
  f.scaled_eps = static_cast<float>(s.eps * correction2);
  f.step_32bit = static_cast<float>(-s.lr * correction2 / correction1);
  f.gradient_scale = static_cast<float>(s.gradient_scale);
  return f;
}

AdamWTables adamw_tables(CodeRounding rounding) {
  AdamWTables tables{};
  tables.signed_map = signed_dynamic_map().data();
  tables.unsigned_map = unsigned_dynamic_map().data();
  tables.signed_grid = signed_grid_codes().data();
  tables.unsigned_grid = unsigned_grid_codes().data();
  tables.rounding = rounding;
  return tables;
}

void adamw_block_8bit(const AdamWFactors& f, const AdamWTables& tables, std::size_t count,
                      const float* g, float* p, std::uint8_t* m_codes, std::uint8_t* v_codes,
                      float& m_absmax, float& v_absmax) {
  MEDVQA_CHECK(count <= static_cast<std::size_t>(kAdamWBlockSize), "a block has at most 256");
  std::array<Moments, kAdamWBlockSize> moments;
  float new_m_absmax = 0;
  float new_v_absmax = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const Moments old = {tables.signed_map[m_codes[i]] * m_absmax,
                         tables.unsigned_map[v_codes[i]] * v_absmax};
    const Moments now = adamw_moments(f, g[i], old);
    p[i] = adamw_parameter_8bit(f, p[i], now);
    new_m_absmax = std::max(new_m_absmax, std::fabs(now.m));
    new_v_absmax = std::max(new_v_absmax, std::fabs(now.v));
    moments[i] = now;
  }
  const float m_inverse = 1.0f / new_m_absmax;
  const float v_inverse = 1.0f / new_v_absmax;
  for (std::size_t i = 0; i < count; ++i) {
    m_codes[i] = new_m_absmax == 0 ? 0 : code_m(tables, moments[i].m, m_inverse);
    v_codes[i] = new_v_absmax == 0 ? 0 : code_v(tables, moments[i].v, v_inverse);
  }
  m_absmax = new_m_absmax;
  v_absmax = new_v_absmax;
}

void adamw_elements_32bit(const AdamWFactors& f, std::size_t count, const float* g, float* p,
                          float* m, float* v) {
  for (std::size_t i = 0; i < count; ++i) {
    const Moments now = adamw_moments(f, g[i], {m[i], v[i]});
    p[i] = adamw_parameter_32bit(f, p[i], now);
    m[i] = now.m;
    v[i] = now.v;
  }
}

}  // namespace medvqa::quant
