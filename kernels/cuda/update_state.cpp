#include "kernels/cuda/update_state.h"

#include "medvqa/core/arena.h"

namespace medvqa::cuda {

namespace {
// Room for the tables of a thousand tensors; adapters of the models we know have fewer.
constexpr std::size_t kTableBytes = std::size_t{1000} * 128;
}  // namespace

UpdateState::UpdateState(Stream stream) : trained(kTableBytes), gradients(kTableBytes) {
  const quant::AdamWTables host = quant::adamw_tables();
  constexpr std::size_t kMapBytes = 256 * sizeof(float);
  constexpr std::size_t kGridBytes = quant::kGridPoints;
  constexpr std::size_t kPartialBytes = kNormBlocks * sizeof(double);
  memory_ = allocate_device_memory(kPartialBytes + 2 * (kMapBytes + kGridBytes));
  auto* at = static_cast<std::byte*>(memory_.get());
  partial = reinterpret_cast<double*>(at);
  at += kPartialBytes;
  const auto send = [&](const void* from, std::size_t bytes) {
    copy_to_device(at, from, bytes, stream);
    at += bytes;
    return at - bytes;
  };
  codes = host;
  codes.signed_map = reinterpret_cast<const float*>(send(host.signed_map, kMapBytes));
  codes.unsigned_map = reinterpret_cast<const float*>(send(host.unsigned_map, kMapBytes));
  codes.signed_grid = reinterpret_cast<const std::uint8_t*>(send(host.signed_grid, kGridBytes));
  codes.unsigned_grid = reinterpret_cast<const std::uint8_t*>(send(host.unsigned_grid, kGridBytes));
}

}  // namespace medvqa::cuda
