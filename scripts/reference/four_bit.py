"""4-bit linears of the reference: what their weights are, and products with exactly those weights.

Two facts about bitsandbytes 0.50.2 on a CPU make this file necessary.

1. Its AVX-512 kernel that dequantises NF4 takes blocks by row: with 16 | in_features but not
   64 | in_features it reads the wrong absmax (and past its end). The format itself is flat: block
   i / 64 belongs to element i. So weights are dequantised here, and compared bit for bit with
   bitsandbytes wherever its kernel is right.
2. Its forward product dequantises straight to the type of the input, its backward product rounds
   to quant_state.dtype first. Under f32 these are two different matrices, 2^-9 apart. The
   reference here is one matrix, rounded to quant_state.dtype, in both directions ("rounded");
   "stack" leaves bitsandbytes' own products in place. Under bf16 with bf16 files they agree.
"""

import bitsandbytes
import torch
from bitsandbytes import functional

BLOCK = 64  # elements that share an absmax


class Unreliable(Exception):
    """bitsandbytes' own products are wrong on this machine for a layer of this shape."""


def exact_on_cpu(in_features: int) -> bool:
    """Whether bitsandbytes' CPU kernel dequantises rows of this length correctly."""
    return in_features % 16 != 0 or in_features % BLOCK == 0


def dequantised(linear: bitsandbytes.nn.Linear4bit) -> torch.Tensor:
    """code[q] * absmax in f32, rounded to quant_state.dtype; [out, in]."""
    state = linear.weight.quant_state
    absmax = state.absmax
    if state.nested:
        nested = state.state2
        codes = nested.code[absmax.long()]
        scale = nested.absmax.repeat_interleave(nested.blocksize)[:codes.numel()]
        absmax = codes * scale + state.offset
    packed = linear.weight.data.flatten()
    codes = torch.stack([packed >> 4, packed & 15], 1).flatten().long()
    count = state.shape.numel()
    values = state.code[codes[:count]] * absmax.float().repeat_interleave(BLOCK)[:count]
    return values.to(state.dtype).reshape(state.shape)


def fix_products(model: torch.nn.Module, compute: torch.dtype, weights: str) -> None:
    """Sets the compute dtype of every 4-bit linear, and under "rounded" its product."""
    for name, module in model.named_modules():
        if not isinstance(module, bitsandbytes.nn.Linear4bit):
            continue
        module.compute_dtype, module.compute_type_is_set = compute, True
        if module.bias is not None:
            module.bias.data = module.bias.data.to(compute)
        exact = exact_on_cpu(module.in_features)
        weight = dequantised(module)
        if exact:
            theirs = functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            assert torch.equal(theirs, weight), f"{name}: not bitsandbytes' dequantised weight"
        if weights == "rounded":
            module.forward = _product(weight.to(compute), module.bias)
        elif not exact:
            raise Unreliable(f"{name}: bitsandbytes' CPU kernel is wrong for in_features "
                             f"{module.in_features}; use rounded weights")


def _product(weight: torch.Tensor, bias: torch.Tensor | None):
    """x -> x W' + bias in the weight's dtype, returned in x's; W is frozen."""
    def forward(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x.to(weight.dtype), weight, bias).to(x.dtype)
    return forward
