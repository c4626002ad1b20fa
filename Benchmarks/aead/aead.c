// Nanoseconds per packet of the two candidates for the session's AEAD, AES-256-GCM in place with 4 bytes of associated
// data: BoringSSL as the program calls it (Shim/crypto.c), and OpenSSL's EVP with a context kept per key.
// Slices of both alternate, so that a slow phase of the machine hits both. Built and run by ./run.
#include <openssl/evp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "pt_crypto.h"

enum { SLICES = 25, LARGEST = 16384, TAG = PT_AEAD_TAG_SIZE };

static uint8_t buffer[LARGEST + TAG], nonce[12], associated[4], key[32];
static void *boring;
static EVP_CIPHER_CTX *sealer, *opener;
static uint64_t counter;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return t.tv_sec * 1e9 + t.tv_nsec;
}

static void next_nonce(void) {
  counter++;
  memcpy(nonce + 4, &counter, 8);
}

static void fail(const char *what) {
  fprintf(stderr, "%s failed\n", what);
  exit(1);
}

static void boring_seal(size_t size) {
  if (pt_aead_seal(boring, nonce, associated, sizeof associated, buffer, size) != 0) fail("seal");
}

static void boring_open(size_t size) {
  if (pt_aead_open(boring, nonce, associated, sizeof associated, buffer, size) != 0) fail("open");
}

static void open_ssl_seal(size_t size) {
  int length;
  if (EVP_EncryptInit_ex(sealer, NULL, NULL, NULL, nonce) != 1 ||
      EVP_EncryptUpdate(sealer, NULL, &length, associated, sizeof associated) != 1 ||
      EVP_EncryptUpdate(sealer, buffer, &length, buffer, (int)size) != 1 ||
      EVP_EncryptFinal_ex(sealer, buffer + size, &length) != 1 ||
      EVP_CIPHER_CTX_ctrl(sealer, EVP_CTRL_GCM_GET_TAG, TAG, buffer + size) != 1)
    fail("EVP seal");
}

static void open_ssl_open(size_t size) {
  int length;
  if (EVP_DecryptInit_ex(opener, NULL, NULL, NULL, nonce) != 1 ||
      EVP_DecryptUpdate(opener, NULL, &length, associated, sizeof associated) != 1 ||
      EVP_DecryptUpdate(opener, buffer, &length, buffer, (int)size) != 1 ||
      EVP_CIPHER_CTX_ctrl(opener, EVP_CTRL_GCM_SET_TAG, TAG, buffer + size) != 1 ||
      EVP_DecryptFinal_ex(opener, buffer + size, &length) != 1)
    fail("EVP open");
}

typedef void (*operation)(size_t);

// Times sealing and opening apart: each packet is sealed, then opened, a nonce of its own each.
static void slice(operation seal, operation open, size_t size, int packets, double *sealed, double *opened) {
  double in_seal = 0, in_open = 0;
  enum { GROUP = 32 };
  static uint8_t saved[GROUP][LARGEST + TAG];
  for (int done = 0; done < packets; done += GROUP) {
    uint64_t first = counter;
    double began = now();
    for (int i = 0; i < GROUP; i++) {
      next_nonce();
      seal(size);
      memcpy(saved[i], buffer, size + TAG);
    }
    in_seal += now() - began;
    counter = first;
    began = now();
    for (int i = 0; i < GROUP; i++) {
      next_nonce();
      memcpy(buffer, saved[i], size + TAG);
      open(size);
    }
    in_open += now() - began;
  }
  *sealed = in_seal / packets;
  *opened = in_open / packets;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

int main(void) {
  for (int i = 0; i < 32; i++) key[i] = (uint8_t)i;
  boring = aligned_alloc(64, PT_AEAD_CONTEXT_SIZE);
  sealer = EVP_CIPHER_CTX_new();
  opener = EVP_CIPHER_CTX_new();
  if (pt_aead_init(boring, key) != 0) fail("init");
  if (EVP_EncryptInit_ex(sealer, EVP_aes_256_gcm(), NULL, key, NULL) != 1 ||
      EVP_DecryptInit_ex(opener, EVP_aes_256_gcm(), NULL, key, NULL) != 1)
    fail("EVP init");
  // Both must give the same bytes, or the numbers compare nothing.
  next_nonce();
  memset(buffer, 7, 1400);
  boring_seal(1400);
  open_ssl_open(1400);
  for (int i = 0; i < 1400; i++)
    if (buffer[i] != 7) fail("agreement of the two");

  const struct { const char *name; operation seal, open; } candidates[] = {
      {"BoringSSL (the program's)", boring_seal, boring_open}, {"OpenSSL EVP", open_ssl_seal, open_ssl_open}};
  const size_t sizes[] = {64, 1400, LARGEST};
  printf("%s; ns per packet, minimum / median of %d slices; one copy of the packet included\n",
         OpenSSL_version(OPENSSL_VERSION), SLICES);
  for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
    double sealed[2][SLICES], opened[2][SLICES];
    int packets = sizes[s] > 8000 ? 1024 : 8192;
    for (int round = 0; round < SLICES; round++)
      for (int c = 0; c < 2; c++)
        slice(candidates[c].seal, candidates[c].open, sizes[s], packets, &sealed[c][round], &opened[c][round]);
    for (int c = 0; c < 2; c++) {
      qsort(sealed[c], SLICES, sizeof(double), ascending);
      qsort(opened[c], SLICES, sizeof(double), ascending);
      printf("%-26s %6zu B  seal %7.0f / %7.0f   open %7.0f / %7.0f\n", candidates[c].name, sizes[s], sealed[c][0],
             sealed[c][SLICES / 2], opened[c][0], opened[c][SLICES / 2]);
    }
  }
  pt_aead_wipe(boring);
  return 0;
}
