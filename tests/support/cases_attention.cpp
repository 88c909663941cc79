#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/support/cases.h"
#include "tests/support/naive.h"

namespace medvqa::testing {

namespace {

struct Options {
  naive::AttentionShape shape;
  bool packed = false;      // queries, keys and values stand in wider rows
  bool accumulate = false;  // backward only
  bool dq = true, dkv = true;
  bool self = false;  // forward only: queries and keys share one cu tensor, as a model's do
};

std::int64_t sum(const std::vector<std::int64_t>& lengths) {
  return std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
}

std::vector<double> boundaries(const std::vector<std::int64_t>& lengths) {
  std::vector<double> cu{0};
  for (const std::int64_t n : lengths) cu.push_back(cu.back() + static_cast<double>(n));
  return cu;
}

std::string name_of(const char* op, const Options& o) {
  const naive::AttentionShape& s = o.shape;
  return fmt::format("{}_h{}g{}d{}_q{}_k{}{}{}{}{}{}{}", op, s.heads, s.groups, s.size,
                     fmt::join(s.q_lengths, "-"), fmt::join(s.k_lengths, "-"),
                     s.causal ? "_causal" : "", o.packed ? "_packed" : "",
                     o.accumulate ? "_acc" : "", o.dq ? "" : "_no_dq", o.dkv ? "" : "_no_dkv",
                     o.self ? "_self" : "");
}

naive::AttentionShape shape(std::int64_t heads, std::int64_t groups, std::int64_t size,
                            std::vector<std::int64_t> lengths, bool causal) {
  return {heads, groups, size, lengths, lengths, causal, 1 / std::sqrt(static_cast<double>(size))};
}

std::vector<Options> options() {
  std::vector<Options> list;
  for (const bool causal : {false, true}) {
    list.push_back({shape(1, 1, 16, {1}, causal)});
    list.push_back({shape(2, 2, 20, {5, 1, 3}, causal), true});
    list.push_back({shape(4, 2, 64, {1, 9}, causal), true});
    list.push_back({shape(3, 1, 80, {7, 2}, causal), true});
    list.push_back({shape(2, 1, 128, {6}, causal)});
    list.push_back({shape(2, 1, 16, {63, 64, 65}, causal), true});
    list.push_back({shape(1, 1, 20, {130}, causal)});
  }
  // Around tiles of 32 and 64 rows, for the head sizes that devices have kernels for.
  for (const bool causal : {false, true}) {
    list.push_back({shape(1, 1, 64, {65}, causal)});
    list.push_back({shape(1, 1, 80, {63, 0, 31}, causal)});
    list.push_back({shape(4, 1, 64, {32}, causal)});
    if (causal) list.push_back({shape(4, 1, 128, {33}, causal)});
    list.push_back({shape(1, 1, 128, {64}, causal), true});
    for (const std::int64_t size : {64, 80, 128}) {
      Options cross{shape(2, 1, size, {34, 0, 3, 2}, causal)};
      cross.shape.k_lengths = {3, 2, 66, 0};
      list.push_back(cross);
    }
  }
  Options cross{shape(4, 2, 16, {3, 70}, false), true};
  cross.shape.k_lengths = {66, 5};
  list.push_back(cross);
  // More keys than the CPU takes in one block, whole and causal.
  Options long_keys{shape(2, 1, 16, {5, 2}, false), true};
  long_keys.shape.k_lengths = {1030, 513};
  list.push_back(long_keys);
  list.push_back({shape(2, 1, 16, {520}, true)});
  Options empty{shape(2, 1, 16, {3, 2, 0, 4}, false), true};
  empty.shape.k_lengths = {5, 0, 6, 7};
  list.push_back(empty);
  return list;
}

// What a device may give to a library.
std::vector<Options> self_options() {
  std::vector<Options> list;
  for (const bool causal : {false, true}) {
    for (const bool packed : {false, true}) {
      list.push_back({shape(4, 2, 64, {1, 9, 130}, causal), packed});
      list.push_back({shape(3, 1, 80, {7, 66}, causal), packed});
      list.push_back({shape(2, 1, 128, {33}, causal), packed});
    }
  }
  for (Options& o : list) o.self = true;
  return list;
}

struct Indices {
  int q, k, v, y, lse, cu_q, cu_k, dy = -1, dq = -1, dk = -1, dv = -1;
};

ops::Attention params(const Options& o, const Indices& i, const Tensors& t) {
  const auto& s = o.shape;
  return {.q_THD = t[at(i.q)],
          .k_SGD = t[at(i.k)],
          .v_SGD = t[at(i.v)],
          .y_THD = t[at(i.y)],
          .lse_HT = t[at(i.lse)],
          .cu_q_N = t[at(i.cu_q)],
          .cu_k_N = t[at(i.cu_k)],
          .max_q = *std::max_element(s.q_lengths.begin(), s.q_lengths.end()),
          .max_k = *std::max_element(s.k_lengths.begin(), s.k_lengths.end()),
          .causal = s.causal,
          .scale = s.scale};
}

void add_inputs(OpCase& c, const Options& o, Indices& i) {
  const auto& s = o.shape;
  const Shape q_shape{sum(s.q_lengths), s.heads, s.size};
  const Shape k_shape{sum(s.k_lengths), s.groups, s.size};
  i.q = c.input("q", q_shape);
  i.k = c.input("k", k_shape);
  i.v = c.input("v", k_shape);
  i.cu_q = c.input("cu_q", {static_cast<std::int64_t>(s.q_lengths.size()) + 1},
                   boundaries(s.q_lengths), fixed(DType::i32));
  i.cu_k = o.self ? i.cu_q
                  : c.input("cu_k", {static_cast<std::int64_t>(s.k_lengths.size()) + 1},
                            boundaries(s.k_lengths), fixed(DType::i32));
  if (!o.packed) return;
  c.stride(i.q, 0, 2 * s.groups * s.size);
  c.stride(i.k, s.heads * s.size, s.groups * s.size);
  if (o.self) {
    c.stride(i.v, (s.heads + s.groups) * s.size, 0);
  } else {
    c.stride(i.v, 3, 5);
  }
}

double longest_sum(const Options& o) {
  const auto& k = o.shape.k_lengths;
  const auto& q = o.shape.q_lengths;
  const std::int64_t rows =
      std::max(*std::max_element(k.begin(), k.end()), *std::max_element(q.begin(), q.end()));
  return static_cast<double>(o.shape.size + rows * o.shape.heads / o.shape.groups);
}

OpCase forward_case(const Options& o) {
  OpCase c(name_of("attention", o));
  Indices i{};
  add_inputs(c, o, i);
  i.y = c.output("y", c[i.q].shape);
  i.lse = c.output("lse", {o.shape.heads, sum(o.shape.q_lengths)}, kAccumulator);
  if (o.packed) c.stride(i.y, 1, 3);
  c.run = [=](ops::Backend& b, const Tensors& t) { b.attention(params(o, i, t)); };
  c.oracle = [=](const Values& v, DType) {
    const auto r = naive::attention(o.shape, v[at(i.q)], v[at(i.k)], v[at(i.v)], {});
    // A device may round probabilities to the type before they meet the values.
    return std::vector<Expected>{{i.y, r.y, r.y_size, longest_sum(o), 1, r.y_terms},
                                 {i.lse, r.lse, r.lse_size, longest_sum(o)}};
  };
  return c;
}

OpCase backward_case(const Options& o) {
  OpCase c(name_of("attention_backward", o));
  Indices i{};
  add_inputs(c, o, i);
  const Shape q_shape = c[i.q].shape;
  i.y = c.input("y", q_shape);
  i.lse = c.input("lse", {o.shape.heads, sum(o.shape.q_lengths)}, kAccumulator);
  i.dy = c.input("dy", q_shape);
  if (o.packed) c.stride(i.dy, 2, 6);
  const auto wanted = [&](const char* name, const Shape& s, bool yes) {
    if (!yes) return -1;
    const int index = c.gradient(name, s, o.accumulate);
    if (o.packed) c.stride(index, 8, 4);
    return index;
  };
  i.dq = wanted("dq", q_shape, o.dq);
  i.dk = wanted("dk", c[i.k].shape, o.dkv);
  i.dv = wanted("dv", c[i.v].shape, o.dkv);
  c.derive = [=](Values& v) {
    const auto r = naive::attention(o.shape, v[at(i.q)], v[at(i.k)], v[at(i.v)], {});
    v[at(i.y)] = r.y;
    v[at(i.lse)] = r.lse;
  };
  c.run = [=](ops::Backend& b, const Tensors& t) {
    const auto out = [&](int index) {
      return index < 0 ? ops::GradOut{} : ops::GradOut{t[at(index)], o.accumulate};
    };
    b.attention_backward({.forward = params(o, i, t),
                          .dy_THD = t[at(i.dy)],
                          .dq_THD = out(i.dq),
                          .dk_SGD = out(i.dk),
                          .dv_SGD = out(i.dv)});
  };
  c.derivatives.forward = [=](ops::Backend& b, const Tensors& t) { b.attention(params(o, i, t)); };
  c.derivatives.y = i.y;
  c.derivatives.weight = i.dy;
  for (const auto& pair : {std::pair(i.dq, i.q), std::pair(i.dk, i.k), std::pair(i.dv, i.v)}) {
    if (pair.first >= 0) c.derivatives.pairs.push_back(pair);
  }
  c.oracle = [=](const Values& v, DType) {
    const auto r = naive::attention(o.shape, v[at(i.q)], v[at(i.k)], v[at(i.v)], v[at(i.dy)]);
    // A device may round probabilities and score gradients.
    std::vector<Expected> all{{i.dq, r.dq, r.dq_size, longest_sum(o), 2, r.dq_terms},
                              {i.dk, r.dk, r.dk_size, longest_sum(o), 2, r.dk_terms},
                              {i.dv, r.dv, r.dv_size, longest_sum(o), 2, r.dv_terms}};
    std::erase_if(all, [](const Expected& e) { return e.operand < 0; });
    for (Expected& e : all) {
      for (std::size_t n = 0; o.accumulate && n < e.value.size(); ++n) {
        e.value[n] += v[at(e.operand)][n];
        e.magnitude[n] += std::fabs(v[at(e.operand)][n]);
      }
    }
    return all;
  };
  return c;
}

}  // namespace

std::vector<OpCase> attention_cases() {
  std::vector<OpCase> cases;
  for (const Options& o : options()) cases.push_back(forward_case(o));
  for (const Options& o : self_options()) cases.push_back(forward_case(o));
  return cases;
}

std::vector<OpCase> attention_backward_cases() {
  std::vector<OpCase> cases;
  for (Options o : options()) {
    cases.push_back(backward_case(o));
    if (sum(o.shape.q_lengths) > 40) continue;
    o.accumulate = true;
    cases.push_back(backward_case(o));
    o.dq = false;
    cases.push_back(backward_case(o));
    o.accumulate = false;
    o.dq = true;
    o.dkv = false;
    cases.push_back(backward_case(o));
  }
  return cases;
}

}  // namespace medvqa::testing
