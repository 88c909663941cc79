// Adapters for tests: values of both factors away from zero, gradients cleared.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "medvqa/nn/builder.h"
#include "tests/support/random_values.h"
#include "tests/support/test_device.h"

namespace medvqa::testing {

inline nn::LoraOptions adapt_all(std::int64_t r, double scaling, double dropout = 0) {
  nn::LoraOptions o;
  o.r = r;
  o.scaling = scaling;
  o.dropout = dropout;
  o.adapts = [](const std::string&, nn::LinearKind kind) { return kind != nn::LinearKind::other; };
  return o;
}

inline void fill_adapters(TestDevice& device,
                          std::span<const std::shared_ptr<nn::LoraModule>> modules,
                          double scale = 0.5) {
  for (const auto& m : modules) {
    for (nn::Parameter* p : {&m->a, &m->b}) {
      device.set(p->value, random_values(m->name + (p == &m->a ? ".a" : ".b"), p->value.elements(),
                                         -scale, scale));
      device.backend().fill(p->grad, 0);
    }
  }
}

}  // namespace medvqa::testing
