#include "tests/bench/linear_cases.h"

#include <fmt/format.h>

#include "medvqa/nn/linear.h"
#include "medvqa/ops/scratch.h"
#include "medvqa/quant/nf4.h"

namespace medvqa::bench {

namespace {

using autograd::TapeOptions;

constexpr std::int64_t kRank = 16;

// One 4-bit weight with nested maxima, whatever is asked for.
class RandomNf4 : public nn::WeightSource {
 public:
  RandomNf4(std::int64_t out, std::int64_t in)
      : out_(out),
        in_(in),
        packed_(random_bytes(static_cast<std::size_t>(out * in / 2))),
        absmax_(random_bytes(static_cast<std::size_t>(out * in / quant::kNf4BlockSize))),
        nested_absmax_((absmax_.size() + 255) / 256, 0.03F),
        nested_map_(256, 0.5F) {}

  bool contains(const std::string&) const override { return true; }
  nn::HostTensor dense(const nn::TensorRequest& request) const override {
    MEDVQA_CHECK(false, request.name + " is not stored dense");
    return {};
  }
  std::optional<nn::HostNf4> nf4(const nn::TensorRequest&) const override {
    nn::HostNf4 w;
    w.out = out_;
    w.in = in_;
    w.packed = {DType::u8, {out_ * in_ / 2, 1}, packed_};
    w.absmax = {DType::u8, {static_cast<std::int64_t>(absmax_.size())}, absmax_};
    w.code = {DType::f32, {16}, std::as_bytes(std::span(quant::kNf4Code))};
    w.nested_absmax = {DType::f32,
                       {static_cast<std::int64_t>(nested_absmax_.size())},
                       std::as_bytes(std::span(nested_absmax_))};
    w.nested_map = {DType::f32, {256}, std::as_bytes(std::span(nested_map_))};
    w.nested = true;
    return w;
  }

  // Needs no adapter, and takes the source's one weight once more.
  ops::Nf4Weight upload(Bench& b) const {
    nn::Builder builder(b.backend(), *this, b.arena(), b.arena(), b.type(), {},
                        nn::QuantizeOnLoad::no);
    return *builder.nf4({"layer.weight", {out_, in_}, nn::TensorRole::linear, true});
  }

 private:
  std::int64_t out_, in_;
  std::vector<std::byte> packed_, absmax_;
  std::vector<float> nested_absmax_, nested_map_;
};

std::size_t stored_bytes(const ops::Nf4Weight& w) {
  return w.packed.bytes() + w.absmax.bytes() + w.nested_absmax.bytes();
}

}  // namespace

Result dequantize(Bench& b, std::int64_t out, std::int64_t in) {
  const Arena::Scope scope(b.arena());
  const ops::Nf4Weight w = RandomNf4(out, in).upload(b);
  const Tensor y = b.arena().allocate({out, in}, b.type());
  const double s = b.seconds([&] { b.backend().dequantize_nf4(w, y); });
  return {"nf4 dequantise", s, static_cast<double>(stored_bytes(w) + y.bytes()), true};
}

Result few_rows(Bench& b, std::int64_t rows, std::int64_t out, std::int64_t in,
                std::int64_t cold_bytes) {
  const Arena::Scope scope(b.arena());
  const RandomNf4 source(out, in);
  std::vector<ops::Nf4Product> products;
  const Tensor x = b.random({rows, in}, b.type());
  const Tensor y = b.arena().allocate({rows, out}, b.type());
  for (std::int64_t held = 0; held < cold_bytes || products.empty();) {
    products.push_back({.x_MI = x, .weight = source.upload(b), .y_MO = y});
    held += static_cast<std::int64_t>(stored_bytes(products.back().weight));
  }
  const ops::Nf4Product& first = products.front();
  std::size_t next = 0;
  const double s = b.seconds([&] {
    b.backend().nf4_product(products[next]);
    next = (next + 1) % products.size();
  });
  return {fmt::format("nf4_product M {} {} x {}", rows, out, in), s,
          static_cast<double>(stored_bytes(first.weight) + x.bytes() + y.bytes()), true,
          ops::fused(first, b.backend().traits()) ? "one kernel" : "dequantised first"};
}

std::vector<Result> linear_layer(Bench& b, std::int64_t tokens, std::int64_t out, std::int64_t in) {
  const Arena::Scope scope(b.arena());
  const RandomNf4 source(out, in);
  nn::LoraOptions lora;
  lora.r = kRank;
  lora.adapts = [](const std::string&, nn::LinearKind) { return true; };
  nn::Builder builder(b.backend(), source, b.arena(), b.arena(), b.type(), lora,
                      nn::QuantizeOnLoad::no);
  const nn::Linear layer(builder, "layer", {out, in}, nn::LinearKind::language_mlp);
  for (const nn::Parameter* p : {&builder.modules().front()->a, &builder.modules().front()->b}) {
    b.randomise(p->value);
    b.backend().fill(p->grad, 0);
  }
  const Tensor x = b.random({tokens, in}, b.type());
  const Tensor dy = b.random({tokens, out}, b.type());
  const Tensor dx = b.arena().allocate_like(x);
  const double forward = b.seconds([&] {
    const Arena::Scope block(b.arena());
    autograd::Tape tape(b.backend(), b.arena(), b.scratch(), {});
    layer(tape, tape.input(x));
  });
  const double both = b.seconds([&] {
    const Arena::Scope block(b.arena());
    autograd::Tape tape(b.backend(), b.arena(), b.scratch(), {.mode = TapeOptions::Mode::record});
    tape.backward(layer(tape, tape.input(x, {dx, false})), dy);
  });
  const std::string name = fmt::format("linear layer {} x {}", out, in);
  const double product =
      2 * static_cast<double>(tokens) * static_cast<double>(out) * static_cast<double>(in);
  return {{name, forward, product, false}, {name + " with backward", both, 2 * product, false}};
}

}  // namespace medvqa::bench
