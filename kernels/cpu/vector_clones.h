// Functions over rows of elements that are worth a second compilation for AVX-512.
#pragma once

// Compiles a function for AVX-512 as well as for the target's own instructions (AVX2 on x86); the
// loader chooses. What it calls must be inlined. Sums that the compiler cuts into lanes are cut
// differently, so the last bits of a result belong to a kind of processor. Only gcc makes the
// program; a sanitizer's functions do not exist yet when the loader asks.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
#define MEDVQA_VECTOR_CLONES [[gnu::target_clones("arch=x86-64-v4", "default")]]
#else
#define MEDVQA_VECTOR_CLONES
#endif
