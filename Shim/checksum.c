// The Internet checksum (RFC 1071). Sums little-endian words and swaps once at the end: a one's complement sum
// does not mind the byte order (RFC 1071 §2 B). See pt_checksum.h.
#include "pt_checksum.h"

#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "written for little-endian machines"
#endif

static inline uint64_t add_carry(uint64_t a, uint64_t b) {
    uint64_t sum = a + b;
    return sum + (sum < b);
}

static inline uint64_t load64(const uint8_t *from) {
    uint64_t word;
    memcpy(&word, from, 8);
    return word;
}

// The last 0...7 bytes, padded by zeros behind.
static inline uint64_t load_tail(const uint8_t *from, size_t length) {
    uint64_t word = 0;
    if (length & 4) {
        uint32_t part;
        memcpy(&part, from, 4);
        word = part;
        from += 4;
    }
    if (length & 2) {
        uint16_t part;
        memcpy(&part, from, 2);
        word |= (uint64_t)part << (8 * (length & 4));
        from += 2;
    }
    if (length & 1) word |= (uint64_t)*from << (8 * (length & 6));
    return word;
}

static inline uint64_t sum_scalar(const uint8_t *at, size_t length) {
    uint64_t a = 0, b = 0;
    while (length >= 16) {
        a = add_carry(a, load64(at));
        b = add_carry(b, load64(at + 8));
        at += 16;
        length -= 16;
    }
    if (length >= 8) {
        a = add_carry(a, load64(at));
        at += 8;
        length -= 8;
    }
    if (length) b = add_carry(b, load_tail(at, length));
    return add_carry(a, b);
}

#if defined(__x86_64__)
// Each 64-bit lane takes the low and the high half of its words: 2^31 additions before one could overflow.
__attribute__((target("avx2"))) static uint64_t sum_avx2(const uint8_t *at, size_t length) {
    const __m256i low = _mm256_set1_epi64x(0xffffffff);
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    while (length >= 64) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)at);
        __m256i w = _mm256_loadu_si256((const __m256i *)(const void *)(at + 32));
        a = _mm256_add_epi64(a, _mm256_and_si256(v, low));
        b = _mm256_add_epi64(b, _mm256_srli_epi64(v, 32));
        c = _mm256_add_epi64(c, _mm256_and_si256(w, low));
        d = _mm256_add_epi64(d, _mm256_srli_epi64(w, 32));
        at += 64;
        length -= 64;
    }
    a = _mm256_add_epi64(_mm256_add_epi64(a, b), _mm256_add_epi64(c, d));
    __m128i half = _mm_add_epi64(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    uint64_t sum = (uint64_t)_mm_cvtsi128_si64(half) + (uint64_t)_mm_extract_epi64(half, 1);
    return add_carry(sum, sum_scalar(at, length));
}
#endif

uint64_t pt_checksum_add(uint64_t initial, const void *data, size_t length) {
    uint64_t sum;
#if defined(__x86_64__)
    if (length >= 128 && __builtin_cpu_supports("avx2")) {
        sum = sum_avx2(data, length);
    } else
#endif
    {
        sum = sum_scalar(data, length);
    }
    return add_carry(initial, __builtin_bswap16(pt_checksum_fold(sum)));
}

uint64_t pt_checksum_add_scalar(uint64_t initial, const void *data, size_t length) {
    return add_carry(initial, __builtin_bswap16(pt_checksum_fold(sum_scalar(data, length))));
}
