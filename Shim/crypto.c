// BoringSSL as swift-crypto 4.5.2 carries it (symbols prefixed CCryptoBoringSSL_). See pt_crypto.h.
//
// Its headers are no product of that package, so the prototypes used here are declared by hand. When the pinned
// version in Package.swift changes: compare them with aead.h, curve25519.h, hkdf.h and sha2.h of the new one and run
// the known-answer tests (LinkIOTests, SessionTests).
#define _GNU_SOURCE
#include "pt_crypto.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

typedef struct evp_aead_st EVP_AEAD;
typedef struct env_md_st EVP_MD;

// aead.h, struct evp_aead_ctx_st: pointer, 560 opaque bytes aligned to 8, one byte of tag length.
typedef struct {
    const EVP_AEAD *aead;
    union {
        uint8_t opaque[560];
        uint64_t alignment;
    } state;
    uint8_t tag_length;
} aead_context;
_Static_assert(sizeof(aead_context) <= PT_AEAD_CONTEXT_SIZE, "the context fits the memory callers give");

const EVP_AEAD *CCryptoBoringSSL_EVP_aead_aes_256_gcm(void);
int CCryptoBoringSSL_EVP_AEAD_CTX_init(aead_context *context, const EVP_AEAD *aead, const uint8_t *key,
                                       size_t key_length, size_t tag_length, void *engine);
void CCryptoBoringSSL_EVP_AEAD_CTX_cleanup(aead_context *context);
int CCryptoBoringSSL_EVP_AEAD_CTX_seal_scatter(const aead_context *context, uint8_t *out, uint8_t *out_tag,
                                               size_t *out_tag_length, size_t max_out_tag_length,
                                               const uint8_t *nonce, size_t nonce_length, const uint8_t *in,
                                               size_t in_length, const uint8_t *extra_in, size_t extra_in_length,
                                               const uint8_t *ad, size_t ad_length);
int CCryptoBoringSSL_EVP_AEAD_CTX_open_gather(const aead_context *context, uint8_t *out, const uint8_t *nonce,
                                              size_t nonce_length, const uint8_t *in, size_t in_length,
                                              const uint8_t *in_tag, size_t in_tag_length, const uint8_t *ad,
                                              size_t ad_length);
void CCryptoBoringSSL_ED25519_keypair_from_seed(uint8_t public_key[32], uint8_t private_key[64],
                                                const uint8_t seed[32]);
int CCryptoBoringSSL_ED25519_sign(uint8_t signature[64], const uint8_t *message, size_t length,
                                  const uint8_t private_key[64]);
int CCryptoBoringSSL_ED25519_verify(const uint8_t *message, size_t length, const uint8_t signature[64],
                                    const uint8_t public_key[32]);
void CCryptoBoringSSL_X25519_public_from_private(uint8_t public_key[32], const uint8_t private_key[32]);
int CCryptoBoringSSL_X25519(uint8_t shared[32], const uint8_t private_key[32], const uint8_t peer[32]);
const EVP_MD *CCryptoBoringSSL_EVP_sha256(void);
int CCryptoBoringSSL_HKDF(uint8_t *out, size_t out_length, const EVP_MD *digest, const uint8_t *secret,
                          size_t secret_length, const uint8_t *salt, size_t salt_length, const uint8_t *info,
                          size_t info_length);
uint8_t *CCryptoBoringSSL_SHA256(const uint8_t *message, size_t length, uint8_t digest[32]);
// SHA256_CTX: 32 + 8 + 64 + 8 bytes.
int CCryptoBoringSSL_SHA256_Init(void *state);
int CCryptoBoringSSL_SHA256_Update(void *state, const void *bytes, size_t length);
int CCryptoBoringSSL_SHA256_Final(uint8_t digest[32], void *state);
void CCryptoBoringSSL_ERR_clear_error(void);

#define NONCE_LENGTH 12

int32_t pt_aead_init(void *context, const uint8_t key[32]) {
    memset(context, 0, PT_AEAD_CONTEXT_SIZE);
    const EVP_AEAD *aead = CCryptoBoringSSL_EVP_aead_aes_256_gcm();
    if (CCryptoBoringSSL_EVP_AEAD_CTX_init(context, aead, key, 32, PT_AEAD_TAG_SIZE, NULL) == 1) return 0;
    CCryptoBoringSSL_ERR_clear_error();
    return -EINVAL;
}

void pt_aead_wipe(void *context) {
    // AES-GCM keeps its key schedule inside the context and nothing on the heap; cleanup says so by doing nothing.
    CCryptoBoringSSL_EVP_AEAD_CTX_cleanup(context);
    explicit_bzero(context, PT_AEAD_CONTEXT_SIZE);
}

int32_t pt_aead_seal(const void *context, const uint8_t nonce[12], const uint8_t *associated,
                     size_t associated_length, uint8_t *text, size_t length) {
    return pt_aead_seal_to(context, nonce, associated, associated_length, text, text, length);
}

int32_t pt_aead_seal_to(const void *context, const uint8_t nonce[12], const uint8_t *associated,
                        size_t associated_length, const uint8_t *text, uint8_t *sealed, size_t length) {
    size_t tag_length = 0;
    if (((const aead_context *)context)->aead == NULL) return -EINVAL;
    int done = CCryptoBoringSSL_EVP_AEAD_CTX_seal_scatter(
        context, sealed, sealed + length, &tag_length, PT_AEAD_TAG_SIZE, nonce, NONCE_LENGTH, text, length, NULL, 0,
        associated, associated_length);
    if (done == 1 && tag_length == PT_AEAD_TAG_SIZE) return 0;
    CCryptoBoringSSL_ERR_clear_error();
    return -EINVAL;
}

int32_t pt_aead_open(const void *context, const uint8_t nonce[12], const uint8_t *associated,
                     size_t associated_length, uint8_t *text, size_t length) {
    if (((const aead_context *)context)->aead == NULL) return -EBADMSG;
    int done = CCryptoBoringSSL_EVP_AEAD_CTX_open_gather(context, text, nonce, NONCE_LENGTH, text, length,
                                                         text + length, PT_AEAD_TAG_SIZE, associated,
                                                         associated_length);
    if (done == 1) return 0;
    // The error queue is per thread and bounded, but nobody reads it.
    CCryptoBoringSSL_ERR_clear_error();
    return -EBADMSG;
}

void pt_ed25519_from_seed(const uint8_t seed[32], uint8_t public_key[32], uint8_t private_key[64]) {
    CCryptoBoringSSL_ED25519_keypair_from_seed(public_key, private_key, seed);
}

int32_t pt_ed25519_sign(const uint8_t private_key[64], const uint8_t *message, size_t length, uint8_t signature[64]) {
    return CCryptoBoringSSL_ED25519_sign(signature, message, length, private_key) == 1 ? 0 : -EINVAL;
}

int32_t pt_ed25519_verify(const uint8_t public_key[32], const uint8_t *message, size_t length,
                          const uint8_t signature[64]) {
    if (CCryptoBoringSSL_ED25519_verify(message, length, signature, public_key) == 1) return 0;
    CCryptoBoringSSL_ERR_clear_error();
    return -EBADMSG;
}

void pt_x25519_public(const uint8_t private_key[32], uint8_t public_key[32]) {
    CCryptoBoringSSL_X25519_public_from_private(public_key, private_key);
}

int32_t pt_x25519(const uint8_t private_key[32], const uint8_t peer[32], uint8_t shared[32]) {
    return CCryptoBoringSSL_X25519(shared, private_key, peer) == 1 ? 0 : -EBADMSG;
}

int32_t pt_hkdf_sha256(const uint8_t *secret, size_t secret_length, const uint8_t *salt, size_t salt_length,
                       const uint8_t *info, size_t info_length, uint8_t *out, size_t out_length) {
    int done = CCryptoBoringSSL_HKDF(out, out_length, CCryptoBoringSSL_EVP_sha256(), secret, secret_length, salt,
                                     salt_length, info, info_length);
    if (done == 1) return 0;
    CCryptoBoringSSL_ERR_clear_error();
    return -EINVAL;
}

void pt_sha256(const uint8_t *message, size_t length, uint8_t digest[32]) {
    CCryptoBoringSSL_SHA256(message, length, digest);
}

_Static_assert(sizeof(pt_sha256_state) >= 112, "the state of SHA-256 does not fit");

void pt_sha256_begin(pt_sha256_state *state) { CCryptoBoringSSL_SHA256_Init(state); }

void pt_sha256_add(pt_sha256_state *state, const uint8_t *bytes, size_t length) {
    CCryptoBoringSSL_SHA256_Update(state, bytes, length);
}

void pt_sha256_end(pt_sha256_state *state, uint8_t digest[32]) { CCryptoBoringSSL_SHA256_Final(digest, state); }

int32_t pt_random(uint8_t *out, size_t length) {
    while (length > 0) {
        ssize_t count = getrandom(out, length, 0);
        if (count < 0) {
            if (errno == EINTR) continue;
            return -errno;
        }
        out += count;
        length -= (size_t)count;
    }
    return 0;
}
