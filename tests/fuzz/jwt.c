/*
 * Would catch: a token or a key file that makes ngx_module/tenant/jwt.c read
 * outside what it was given or leave an error in OpenSSL's queue; a token that
 * is accepted without a signature of ours, with one bit changed, or without
 * the claims that it must have.
 *
 * The first byte says what the rest is: a token as it stands; header, newline
 * and claims of a token that is signed here; or a key file.
 */
#include "jwt.h"

#include <jansson.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOW    1800000000
#define LEEWAY 60
#define SECRET "a secret of the fuzz target's own"

static const char PUBLIC[] =
    "-----BEGIN PUBLIC KEY-----\n"
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV7\n"
    "6e8Tus9uPHvRVEXH8UTNG72bfocs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==\n"
    "-----END PUBLIC KEY-----\n";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


/* What must hold, also where assert() is compiled out. */
static void
must(int holds)
{
    if (!holds) {
        abort();
    }
}


static llm_jwt_keys_t *
keys(void)
{
    static llm_jwt_keys_t *all;
    llm_jwt_rule_t hs = {"default", "HS256", NULL, NULL, LEEWAY};
    llm_jwt_rule_t party = {"party", "HS256", "me", "api", LEEWAY};
    llm_jwt_rule_t es = {"es", "ES256", NULL, NULL, LEEWAY};
    char err[LLM_JWT_ERR];

    if (all == NULL) {
        all = llm_jwt_keys_create();
        must(all != NULL);
        must(!llm_jwt_keys_add(all, &hs, SECRET, strlen(SECRET), err));
        must(!llm_jwt_keys_add(all, &party, SECRET, strlen(SECRET), err));
        must(!llm_jwt_keys_add(all, &es, PUBLIC, strlen(PUBLIC), err));
    }
    return all;
}


static int
verify(const char *token, size_t len, json_t **claims)
{
    char *copy = malloc(len ? len : 1); /* exact, for the sanitizer */
    int rc;

    must(copy != NULL);
    memcpy(copy, token, len);
    rc = llm_jwt_verify(keys(), copy, len, NOW, claims);
    free(copy);
    must((rc == LLM_JWT_OK) == (*claims != NULL));
    must(rc == LLM_JWT_OK || llm_jwt_reason(rc) != NULL);
    must(ERR_peek_error() == 0);
    return rc;
}


static size_t
encode(char *out, const uint8_t *p, size_t len)
{
    static const char set[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    uint32_t v = 0;
    size_t i, n = 0, bits = 0;

    for (i = 0; i < len; i++) {
        v = v << 8 | p[i];
        for (bits += 8; bits >= 6; bits -= 6) {
            out[n++] = set[v >> (bits - 6) & 63];
        }
    }
    if (bits) {
        out[n++] = set[v << (6 - bits) & 63];
    }
    return n;
}


static void
look(const json_t *claims)
{
    char num[LLM_JWT_INT];
    llm_jwt_str_t path[2], value;
    const json_t *exp = json_object_get(claims, "exp");
    const json_t *nbf = json_object_get(claims, "nbf");
    const char *name;
    json_t *v;
    size_t i;

    must(json_is_number(exp) && json_number_value(exp) > NOW - LEEWAY - 1);
    must(!nbf
         || (json_is_number(nbf) && json_number_value(nbf) < NOW + LEEWAY + 1));

    json_object_foreach((json_t *) claims, name, v)
    {
        path[0].data = name;
        path[0].len = strlen(name);
        path[1] = path[0];
        (void) llm_jwt_claim(claims, path, 2, num, &value);
        if (llm_jwt_claim(claims, path, 1, num, &value) == 0) {
            must(json_is_string(v) || json_is_integer(v));
            must(value.len > 0);
            for (i = 0; i < value.len; i++) {
                must((uint8_t) value.data[i] >= 0x20);
            }
        }
    }
}


/* A token of ours with any one bit of the signature changed is none. */
static void
changed(char *token, size_t len)
{
    json_t *claims;
    size_t i;

    for (i = 0; i < 7; i++) {
        token[len - 1 - i] ^= (char) (1 << i);
        must(verify(token, len, &claims) != LLM_JWT_OK);
        token[len - 1 - i] ^= (char) (1 << i);
    }
}


static void
signed_token(const uint8_t *data, size_t size)
{
    const uint8_t *nl = size ? memchr(data, '\n', size) : NULL;
    char *token = malloc(size * 2 + 64);
    uint8_t mac[EVP_MAX_MD_SIZE];
    json_t *claims;
    unsigned n;
    size_t len;

    must(token != NULL);
    if (nl) {
        len = encode(token, data, (size_t) (nl - data));
        token[len++] = '.';
        len += encode(token + len, nl + 1, (size_t) (data + size - nl - 1));
        must(HMAC(EVP_sha256(), SECRET, (int) strlen(SECRET),
                 (const uint8_t *) token, len, mac, &n)
             != NULL);
        token[len++] = '.';
        len += encode(token + len, mac, n);
        if (verify(token, len, &claims) == LLM_JWT_OK) {
            look(claims);
            llm_jwt_free(claims);
            changed(token, len);
        }
    }
    free(token);
}


static void
key_file(const uint8_t *data, size_t size)
{
    static const char *const alg[] = {"HS256", "RS256", "ES256"};
    char err[LLM_JWT_ERR] = "", *copy = malloc(size ? size : 1);
    llm_jwt_keys_t *to = llm_jwt_keys_create();
    size_t i;
    int rv;

    must(to != NULL && copy != NULL);
    memcpy(copy, data, size);
    for (i = 0; i < 3; i++) {
        llm_jwt_rule_t rule = {alg[i], alg[i], NULL, NULL, 0};

        rv = llm_jwt_keys_add(to, &rule, copy, size, err);
        must(rv == 0 || (strlen(err) > 0 && strlen(err) < LLM_JWT_ERR));
        must(ERR_peek_error() == 0);
    }
    free(copy);
    llm_jwt_keys_free(to);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *claims;

    if (size == 0) {
        return 0;
    }
    switch (data[0]) {
    case 's':
        signed_token(data + 1, size - 1);
        break;
    case 'k':
        key_file(data + 1, size - 1);
        break;
    default:
        /* nobody here knows the secret */
        must(verify((const char *) data + 1, size - 1, &claims) != LLM_JWT_OK);
    }
    return 0;
}
