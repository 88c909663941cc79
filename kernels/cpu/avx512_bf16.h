// For functions written in AVX-512 BF16 intrinsics: compiled for that processor whatever the
// program is compiled for, and called only where multiplies_pairs() has said so.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__)
#define MEDVQA_AVX512_BF16 1

#include <cpuid.h>

// gcc 12 takes the operand that an intrinsic leaves open on purpose for a mistake (its bug 105593).
#if !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif

#define MEDVQA_TARGET_AVX512_BF16 \
  [[gnu::target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,bmi2")]]

namespace medvqa::cpu {

// sums[i] + a[2 i] b[2 i] + a[2 i + 1] b[2 i + 1]
MEDVQA_TARGET_AVX512_BF16 [[gnu::always_inline]] inline __m512 dot_pairs(__m512 sums, __m512i a,
                                                                         __m512i b) {
  return _mm512_dpbf16_ps(sums, (__m512bh)a, (__m512bh)b);
}

}  // namespace medvqa::cpu

#else
#define MEDVQA_AVX512_BF16 0
#endif
