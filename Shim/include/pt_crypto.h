// BoringSSL (as swift-crypto carries it) behind our own names. Session calls these, Engine calls seal and open.
#ifndef PT_CRYPTO_H
#define PT_CRYPTO_H

#include <stddef.h>
#include <stdint.h>

// Bytes of one AEAD context; the caller provides the memory (locked, see pt_memory.h), 64-byte aligned.
#define PT_AEAD_CONTEXT_SIZE 1024
#define PT_AEAD_TAG_SIZE 16

// AES-256-GCM, 12-byte nonce, 16-byte tag. 0 or -EINVAL.
int32_t pt_aead_init(void *context, const uint8_t key[32]);
// Wipes the context.
void pt_aead_wipe(void *context);
// Encrypts `length` bytes at `text` in place and writes 16 tag bytes right after them. 0 or -EINVAL.
int32_t pt_aead_seal(const void *context, const uint8_t nonce[12], const uint8_t *associated,
                     size_t associated_length, uint8_t *text, size_t length);
// The same from `text` to `sealed`, which holds `length` + 16 bytes and is `text` itself or far from it.
int32_t pt_aead_seal_to(const void *context, const uint8_t nonce[12], const uint8_t *associated,
                        size_t associated_length, const uint8_t *text, uint8_t *sealed, size_t length);
// Decrypts `length` bytes at `text` in place; the tag stands right after them. 0 or -EBADMSG (text is then undefined).
int32_t pt_aead_open(const void *context, const uint8_t nonce[12], const uint8_t *associated,
                     size_t associated_length, uint8_t *text, size_t length);

void pt_ed25519_from_seed(const uint8_t seed[32], uint8_t public_key[32], uint8_t private_key[64]);
int32_t pt_ed25519_sign(const uint8_t private_key[64], const uint8_t *message, size_t length, uint8_t signature[64]);
// 0 or -EBADMSG.
int32_t pt_ed25519_verify(const uint8_t public_key[32], const uint8_t *message, size_t length,
                          const uint8_t signature[64]);
void pt_x25519_public(const uint8_t private_key[32], uint8_t public_key[32]);
// 0, or -EBADMSG when the shared secret is all zero.
int32_t pt_x25519(const uint8_t private_key[32], const uint8_t peer[32], uint8_t shared[32]);
// HKDF-SHA-256. 0 or -EINVAL.
int32_t pt_hkdf_sha256(const uint8_t *secret, size_t secret_length, const uint8_t *salt, size_t salt_length,
                       const uint8_t *info, size_t info_length, uint8_t *out, size_t out_length);
void pt_sha256(const uint8_t *message, size_t length, uint8_t digest[32]);
// The same in pieces.
typedef struct pt_sha256_state {
    uint64_t opaque[16];
} pt_sha256_state;
void pt_sha256_begin(pt_sha256_state *state);
void pt_sha256_add(pt_sha256_state *state, const uint8_t *bytes, size_t length);
void pt_sha256_end(pt_sha256_state *state, uint8_t digest[32]);
// Fills from getrandom(2); 0 or -errno.
int32_t pt_random(uint8_t *out, size_t length);

#endif
