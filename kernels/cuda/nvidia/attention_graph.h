// cuDNN's graph of attention's forward over packed samples of different lengths.
//
// A tensor [samples, heads, length, D] whose sample n begins at offset[n] elements and has
// lengths[n] rows: our packed rows as they stand. The causal mask is aligned to the first row and
// key, as ours. Statistics are log sum exp, natural, of scaled scores, filled up to `length` rows.
#pragma once

#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <cudnn_frontend.h>

#include <cstdint>
#include <memory>
#include <tuple>

#include "medvqa/core/dtype.h"

namespace medvqa::cuda {

// All that a plan is compiled for; strides are between rows, in elements.
struct AttentionPlanKey {
  DType type = DType::bf16;
  std::int64_t heads = 0, groups = 0, size = 0;
  std::int64_t samples = 0, length = 0;
  std::int64_t q_stride = 0, k_stride = 0, v_stride = 0, y_stride = 0;
  bool causal = false;
  float scale = 1;

  auto members() const {
    return std::tie(type, heads, groups, size, samples, length, q_stride, k_stride, v_stride,
                    y_stride, causal, scale);
  }
  bool operator<(const AttentionPlanKey& other) const { return members() < other.members(); }
};

// What execution is given an address for.
enum class AttentionOperand : std::int64_t {
  q = 1,
  k,
  v,
  y,
  lse,
  q_offsets,
  k_offsets,
  v_offsets,
  y_offsets,
  lengths
};

inline std::unique_ptr<cudnn_frontend::graph::Graph> attention_graph(const AttentionPlanKey& key) {
  namespace fe = cudnn_frontend;
  using fe::graph::Tensor_attributes;
  auto graph = std::make_unique<fe::graph::Graph>();
  graph->set_io_data_type(key.type == DType::f16 ? fe::DataType_t::HALF : fe::DataType_t::BFLOAT16)
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT);
  const auto id = [](AttentionOperand o) { return static_cast<std::int64_t>(o); };
  const auto integers = [&](const char* name, AttentionOperand o, std::int64_t n) {
    return graph->tensor(Tensor_attributes()
                             .set_name(name)
                             .set_uid(id(o))
                             .set_dim({n, 1, 1, 1})
                             .set_stride({1, 1, 1, 1})
                             .set_data_type(fe::DataType_t::INT32));
  };
  const auto place = [&](Tensor_attributes& t, AttentionOperand o, std::int64_t heads,
                         std::int64_t stride, std::shared_ptr<Tensor_attributes> offsets) {
    t.set_uid(id(o))
        .set_dim({key.samples, heads, key.length, key.size})
        .set_stride({key.length * stride, key.size, stride, 1})
        .set_ragged_offset(std::move(offsets));
  };
  const auto input = [&](const char* name, AttentionOperand o, std::int64_t heads,
                         std::int64_t stride, AttentionOperand offsets) {
    Tensor_attributes t;
    t.set_name(name);
    place(t, o, heads, stride, integers("offsets", offsets, key.samples + 1));
    return graph->tensor(t);
  };
  using enum AttentionOperand;
  const auto query = input("q", q, key.heads, key.q_stride, q_offsets);
  const auto keys = input("k", k, key.groups, key.k_stride, k_offsets);
  const auto values = input("v", v, key.groups, key.v_stride, v_offsets);
  const auto rows = integers("lengths", lengths, key.samples);
  fe::graph::SDPA_attributes attributes;
  attributes.set_name("attention")
      .set_generate_stats(true)
      .set_attn_scale(key.scale)
      .set_padding_mask(true)
      .set_seq_len_q(rows)
      .set_seq_len_kv(rows);
  if (key.causal) {
    attributes.set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT)
        .set_diagonal_band_right_bound(0);
  }
  const auto results = graph->sdpa(query, keys, values, attributes);
  results[0]->set_output(true);
  place(*results[0], y, key.heads, key.y_stride, integers("offsets", y_offsets, key.samples + 1));
  results[1]
      ->set_output(true)
      .set_uid(id(lse))
      .set_data_type(fe::DataType_t::FLOAT)
      .set_dim({key.samples, key.heads, key.length, 1})
      .set_stride({key.heads * key.length, key.length, 1, 1});
  return graph;
}

}  // namespace medvqa::cuda
