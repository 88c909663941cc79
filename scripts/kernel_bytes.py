"""Bytes that each kernel moves to and from device memory, by hand from its source, against the
least that its operation can: part of scripts/kernel_table.py."""

HEAD = """\
# CUDA kernels: registers, shared memory, occupancy, bytes

Written by `scripts/kernel_table.py` from what nvcc 13.0 makes of `kernels/cuda`; nothing on this
page was measured on a GPU. Threads are the launch's (every kernel is launched with its
`__launch_bounds__`), shared bytes those of the kernel and of its launch. For each architecture:
registers a thread, and occupancy, the resident warps over the most that the multiprocessor can
hold, from the documented limits of registers, shared memory, blocks and warps. What ptxas spills
stands beside it.

sm_75 has no tensor-core products and no cp.async for bf16: the bf16 kernels of attention's
fragments are never launched there (`fragments::serve`), and are empty."""

# operation, element, bytes read, bytes written, least, why more, or where the bound comes from
ROWS = [
    ("dequantize_nf4 to 16 bit, nested", "weight", "1/2 + 1/64 + 4/16384", "2", "2.516",
     "2.516", "a code, its block's absmax code, the absmax of 256 blocks; result once"),
    ("dequantize_nf4 to 16 bit", "weight", "1/2 + 4/64", "2", "2.563", "2.563", ""),
    ("quantize_nf4 from 16 bit", "weight", "2", "1/2 + 4/64", "2.563", "2.563", ""),
    ("nf4_product, up to 64 rows", "weight", "1/2 + 1/64 + 4/16384", "0", "0.516", "0.516",
     "rows of x and y besides: 2 rows/out and 2 rows/in a weight; x is read by every 16 outputs, "
     "from L2"),
    ("rms_norm, layer_norm", "x", "2", "2", "4", "4",
     "a row stays in registers; weights, mean and inverse are shared by a row or a column"),
    ("... rows of more than 8192 channels", "x", "4", "2", "6", "4",
     "what registers do not hold is read again, from L2 if it is still there"),
    ("rms_norm, layer_norm backward", "x", "4", "2", "6", "6", "2 more where it adds to dx"),
    ("rotary", "x", "2 + 4/heads", "2", "4 + 4/heads", "4 + 4/heads", "in place; cos and sin f32"),
    ("activation", "x", "2", "2", "4", "0",
     "a kernel after the product: cuBLASLt has only the tanh form of GELU as an epilogue"),
    ("activation backward", "x", "4", "2", "6", "6", ""),
    ("swiglu", "y", "4", "2", "6", "6", ""),
    ("swiglu backward", "y", "6", "4", "10", "10", "2 or 4 more where it adds"),
    ("dropout", "x", "2", "2", "4", "4", "the mask is drawn again, never stored"),
    ("copy, gather_rows, scatter_rows", "x", "2", "2", "4", "4", ""),
    ("scale_rows", "x", "2", "2", "4", "4", "2 more where it adds"),
    ("convert f32 to 16 bit", "x", "4", "2", "6", "6", ""),
    ("fill, 16 bit", "y", "0", "2", "2", "2", "one element a thread, not vectors"),
    ("linear_cross_entropy", "logit", "4 + 4", "4 + 2", "14", "0",
     "the product writes f32 logits of a chunk, the kernel reads them twice and writes dz; a "
     "product that keeps them on the chip would move none. 64 rows of 152,000 logits are 39 MB: "
     "they fit in the L2 of sm_90 (50 MB) and of sm_80 (40 MB), not of the others"),
    ("adamw, 8-bit state", "parameter", "4 + 4 + 2 + 8/256", "4 + 2 + 8/256", "16.06", "16.06",
     "gradient, value, two codes; a block's maxima"),
    ("adamw, f32 state", "parameter", "16", "12", "28", "28", ""),
    ("global_norm", "gradient", "4", "0", "4", "4", "one partial sum a block besides"),
    ("attention, fragments", "q", "2 + k", "2", "4 + k", "4 + k",
     "k = 4 S G / (T H): keys and values once from device memory; T queries, S keys, H, G heads; "
     "each tile of 64 queries reads them from L2, S/16 B an element (2 MB a head at D 80, S 6432)"),
    ("attention backward, fragments", "q", "4 + (4 + k) + (4 + k)", "2 + k", "14 + 3 k",
     "8 + 2 k", "delta reads y and dy; dq reads q and dy again, so does the kernel for dk and dv"),
]


def table() -> str:
    """The second half of the page."""
    lines = ["## Bytes a kernel moves, an element, in bf16", "",
             "By hand from the sources (`scripts/kernel_bytes.py`). \"Least\": what the operation",
             "as `include/medvqa/ops/params.h` states it must move if nothing stays on the chip",
             "between kernels; 0 where it could be part of the product before it.", "",
             "| operation | element of | read | written | moved | least | note |",
             "|---|---|---|---|---|---|---|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in ROWS])
