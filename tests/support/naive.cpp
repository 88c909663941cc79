#include "tests/support/naive.h"

#include <algorithm>
#include <numeric>

namespace medvqa::testing::naive {

namespace {

using Vector = std::vector<double>;

// One query row of one head.
struct Query {
  std::int64_t head, group, row;  // row among all queries
  std::int64_t k_begin, keys;     // what it sees
};

class Computation {
 public:
  Computation(const AttentionShape& s, const Vector& q, const Vector& k, const Vector& v,
              const Vector& dy, AttentionResult& out)
      : s_(s), q_(q), k_(k), v_(v), dy_(dy), out_(out) {}

  void run(const Query& n, std::int64_t rows) {
    Vector score(index(n.keys)), p(index(n.keys));
    double error = 1;
    for (std::int64_t j = 0; j < n.keys; ++j) {
      double size = 0;
      for (std::int64_t d = 0; d < s_.size; ++d) {
        const double term = s_.scale * q_[q_at(n, d)] * k_[k_at(n, j, d)];
        score[index(j)] += term;
        size += std::fabs(term);
      }
      error = std::max(error, 1 + 2 * size);
    }
    const double top = *std::max_element(score.begin(), score.end());
    double sum = 0;
    for (const double z : score) sum += std::exp(z - top);
    const auto lse_at = index(n.head * rows + n.row);
    out_.lse[lse_at] = top + std::log(sum);
    out_.lse_size[lse_at] = std::fabs(out_.lse[lse_at]) + error;
    for (std::size_t j = 0; j < p.size(); ++j) p[j] = std::exp(score[j] - top) / sum;
    for (std::int64_t j = 0; j < n.keys; ++j) {
      for (std::int64_t d = 0; d < s_.size; ++d) {
        out_.y[q_at(n, d)] += p[index(j)] * v_[k_at(n, j, d)];
        out_.y_terms[q_at(n, d)] += p[index(j)] * std::fabs(v_[k_at(n, j, d)]);
        out_.y_size[q_at(n, d)] += error * p[index(j)] * std::fabs(v_[k_at(n, j, d)]);
      }
    }
    if (!dy_.empty()) gradients(n, p, error);
  }

 private:
  static std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }
  std::size_t q_at(const Query& n, std::int64_t d) const {
    return index((n.row * s_.heads + n.head) * s_.size + d);
  }
  std::size_t k_at(const Query& n, std::int64_t j, std::int64_t d) const {
    return index(((n.k_begin + j) * s_.groups + n.group) * s_.size + d);
  }

  void gradients(const Query& n, const Vector& p, double error) {
    double delta = 0, delta_size = 0;
    for (std::int64_t d = 0; d < s_.size; ++d) {
      delta += out_.y[q_at(n, d)] * dy_[q_at(n, d)];
      delta_size += std::fabs(out_.y[q_at(n, d)] * dy_[q_at(n, d)]);
    }
    for (std::int64_t j = 0; j < n.keys; ++j) {
      const double prob = p[index(j)];
      double dp = 0, dp_size = 0;
      for (std::int64_t d = 0; d < s_.size; ++d) {
        const double term = dy_[q_at(n, d)] * v_[k_at(n, j, d)];
        dp += term;
        dp_size += std::fabs(term);
        out_.dv[k_at(n, j, d)] += prob * dy_[q_at(n, d)];
        out_.dv_terms[k_at(n, j, d)] += prob * std::fabs(dy_[q_at(n, d)]);
        out_.dv_size[k_at(n, j, d)] += error * prob * std::fabs(dy_[q_at(n, d)]);
      }
      const double ds = s_.scale * prob * (dp - delta);
      const double ds_size = std::fabs(s_.scale) * prob * error * (dp_size + delta_size);
      for (std::int64_t d = 0; d < s_.size; ++d) {
        out_.dq[q_at(n, d)] += ds * k_[k_at(n, j, d)];
        out_.dq_terms[q_at(n, d)] += std::fabs(ds * k_[k_at(n, j, d)]);
        out_.dk_terms[k_at(n, j, d)] += std::fabs(ds * q_[q_at(n, d)]);
        out_.dq_size[q_at(n, d)] += ds_size * std::fabs(k_[k_at(n, j, d)]);
        out_.dk[k_at(n, j, d)] += ds * q_[q_at(n, d)];
        out_.dk_size[k_at(n, j, d)] += ds_size * std::fabs(q_[q_at(n, d)]);
      }
    }
  }

  const AttentionShape& s_;
  const Vector &q_, &k_, &v_, &dy_;
  AttentionResult& out_;
};

}  // namespace

AttentionResult attention(const AttentionShape& s, const Vector& q, const Vector& k,
                          const Vector& v, const Vector& dy) {
  AttentionResult out;
  for (Vector* x : {&out.y, &out.y_size, &out.y_terms, &out.dq, &out.dq_size, &out.dq_terms})
    x->resize(q.size());
  for (Vector* x : {&out.dk, &out.dk_size, &out.dk_terms, &out.dv, &out.dv_size, &out.dv_terms})
    x->resize(k.size());
  const std::int64_t rows =
      std::accumulate(s.q_lengths.begin(), s.q_lengths.end(), std::int64_t{0});
  out.lse.resize(static_cast<std::size_t>(rows * s.heads));
  out.lse_size.resize(out.lse.size());
  Computation computation(s, q, k, v, dy, out);
  std::int64_t q_begin = 0, k_begin = 0;
  for (std::size_t n = 0; n < s.q_lengths.size(); ++n) {
    for (std::int64_t h = 0; h < s.heads; ++h) {
      // Without keys nothing is read and nothing flows back.
      for (std::int64_t i = 0; s.k_lengths[n] > 0 && i < s.q_lengths[n]; ++i) {
        const std::int64_t keys = s.causal ? std::min(s.k_lengths[n], i + 1) : s.k_lengths[n];
        computation.run({h, h / (s.heads / s.groups), q_begin + i, k_begin, keys}, rows);
      }
    }
    q_begin += s.q_lengths[n];
    k_begin += s.k_lengths[n];
  }
  return out;
}

}  // namespace medvqa::testing::naive
