// Pillow's Image.resize for 8-bit RGB, bit for bit.
//
// Per axis, with scale = in / out and f = max(scale, 1): output i lies at c = (i + 1/2) scale and
// sums the inputs k within S f of c, weighted by filter((k - c + 1/2) / f) and normalised to 1;
// S = 1, 2, 3 for bilinear, bicubic, Lanczos. Weights are rounded to 22 fractional bits, sums to
// the nearest integer and clamped to 0..255. Between the passes lie bytes, so their order shows in
// the last bit: Pillow 13 takes the vertical one first where the height shrinks by more than twice
// the pixels the width does, earlier releases never.
#pragma once

#include "medvqa/image/decode.h"

namespace medvqa {

enum class ResampleFilter { bilinear, bicubic, lanczos };

// The picture at width x height pixels, both at least 1. An axis of unchanged length is copied.
Image resize(const Image& image, int width, int height, ResampleFilter filter);

}  // namespace medvqa
