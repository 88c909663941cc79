// Backend's copies beside the operations.
#include <fmt/format.h>

#include "medvqa/ops/backend.h"

namespace medvqa::ops {

namespace {

void check_copy(const char* op, const Tensor& src, const Tensor& dst) {
  MEDVQA_CHECK(src.shape == dst.shape && src.dtype == dst.dtype,
               fmt::format("{}: {} to {}", op, src.str(), dst.str()));
  MEDVQA_CHECK(src.contiguous() && dst.contiguous(),
               fmt::format("{}: both sides must be contiguous", op));
}

}  // namespace

Transfer Backend::offload(const Tensor& src, const Tensor& host) {
  check_copy("offload", src, host);
  const ProfiledSection section(profile_, "offload");
  return do_offload(src, host);
}

Transfer Backend::fetch(const Tensor& host, const Tensor& dst) {
  check_copy("fetch", host, dst);
  const ProfiledSection section(profile_, "fetch");
  return do_fetch(host, dst);
}

void Backend::await(Transfer transfer) {
  if (transfer != 0) do_await(transfer);
}

}  // namespace medvqa::ops
