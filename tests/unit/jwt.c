/*
 * Catches: a forged token that opens the API: by its alg, its kid, a key of
 * its own, a signature that is none, a second spelling of a good one, a claim
 * of the wrong type or there twice, a second too late; a good token that does
 * not; a key file that is taken although it is none, or a public key taken for
 * a secret; a claim that could break a header or a log line.
 */
#include "jwt.h"

#include <inttypes.h>
#include <jansson.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NOW    1800000000
#define SECRET "0123456789abcdef0123456789abcdef"
#define GOOD   "{\"exp\":1800000100,\"tenant\":\"acme\"}"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

enum { HS, RS, ES, ALGS };

static const char *const ALG[] = {"HS256", "RS256", "ES256"};
static const char *const HEADER[] = {"{\"alg\":\"HS256\",\"kid\":\"hs\"}",
    "{\"alg\":\"RS256\",\"kid\":\"rs\"}", "{\"alg\":\"ES256\",\"kid\":\"es\"}"};

static EVP_PKEY *rsa, *ec;    /* made anew for each run */
static char *pem_of[ALGS];    /* their public files; HS: the secret */
static llm_jwt_keys_t *keys;  /* hs, rs, es, and default, which is es */
static char token[64 * 1024]; /* what token_of() has made */
static char spare[sizeof(token)];


/* --- making tokens, without the code under test ------------------------- */

static size_t
encode(char *out, const void *data, size_t len)
{
    static const char set[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const uint8_t *p = data;
    uint32_t v;
    size_t i, n = 0, left;

    for (i = 0; i < len; i += 3) {
        left = len - i;
        v = (uint32_t) p[i] << 16 | (left > 1 ? (uint32_t) p[i + 1] << 8 : 0)
            | (left > 2 ? p[i + 2] : 0u);
        out[n++] = set[v >> 18];
        out[n++] = set[v >> 12 & 63];
        if (left > 1) {
            out[n++] = set[v >> 6 & 63];
        }
        if (left > 2) {
            out[n++] = set[v & 63];
        }
    }
    out[n] = '\0';
    return n;
}


static size_t
decode(uint8_t *out, const char *text)
{
    static const char set[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    uint32_t v = 0;
    size_t n = 0, bits = 0;

    for (; *text; text++) {
        v = v << 6 | (uint32_t) (strchr(set, *text) - set);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            out[n++] = (uint8_t) (v >> bits);
        }
    }
    return n;
}


static size_t
hmac(const char *secret, size_t secret_len, const char *text, uint8_t *out)
{
    unsigned n = 0;

    assert_non_null(HMAC(EVP_sha256(), secret, (int) secret_len,
        (const uint8_t *) text, strlen(text), out, &n));
    return n;
}


/* The signature of text as a JWT has it. */
static size_t
sign(int alg, const char *text, uint8_t *out)
{
    EVP_MD_CTX *md;
    ECDSA_SIG *sig;
    const uint8_t *p = out;
    size_t len = 1024;

    if (alg == HS) {
        return hmac(SECRET, 32, text, out);
    }
    md = EVP_MD_CTX_new();
    assert_int_equal(
        EVP_DigestSignInit(md, NULL, EVP_sha256(), NULL, alg == RS ? rsa : ec),
        1);
    assert_int_equal(
        EVP_DigestSign(md, out, &len, (const uint8_t *) text, strlen(text)), 1);
    EVP_MD_CTX_free(md);
    if (alg == ES) {
        sig = d2i_ECDSA_SIG(NULL, &p, (long) len);
        assert_non_null(sig);
        BN_bn2binpad(ECDSA_SIG_get0_r(sig), out, 32);
        BN_bn2binpad(ECDSA_SIG_get0_s(sig), out + 32, 32);
        ECDSA_SIG_free(sig);
        len = 64;
    }
    return len;
}


/* Header and claims in token; the signature of len bytes goes behind it. */
static size_t
begin(const char *header, size_t header_len, const char *claims, size_t len)
{
    size_t n = encode(token, header, header_len);

    token[n++] = '.';
    n += encode(token + n, claims, len);
    return n;
}


static void
end(const uint8_t *signature, size_t len)
{
    size_t n = strlen(token);

    token[n++] = '.';
    encode(token + n, signature, len);
}


static char *
token_of(int alg, const char *header, const char *claims)
{
    uint8_t signature[1024];

    begin(header, strlen(header), claims, strlen(claims));
    end(signature, sign(alg, token, signature));
    return token;
}


/* What the code says, which reads memory of exactly the token's size. */
static int
verdict_of(const llm_jwt_keys_t *with, const char *text, size_t len,
    int64_t now, json_t **claims)
{
    char *copy = malloc(len ? len : 1);
    int rc;

    assert_non_null(copy);
    memcpy(copy, text, len);
    rc = llm_jwt_verify(with, copy, len, now, claims);
    free(copy);
    assert_int_equal(rc == LLM_JWT_OK, *claims != NULL);
    assert_int_equal(ERR_peek_error(), 0);
    return rc;
}


static int
verdict(const char *text)
{
    json_t *claims;
    int rc = verdict_of(keys, text, strlen(text), NOW, &claims);

    llm_jwt_free(claims);
    return rc;
}


static char *
pem(EVP_PKEY *key)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *data, *copy;
    long len;

    assert_int_equal(PEM_write_bio_PUBKEY(bio, key), 1);
    len = BIO_get_mem_data(bio, &data);
    copy = calloc(1, (size_t) len + 1);
    memcpy(copy, data, (size_t) len);
    BIO_free(bio);
    return copy;
}


static void
add(llm_jwt_keys_t *to, const char *kid, int alg, const char *text,
    const char *iss, const char *aud)
{
    llm_jwt_rule_t rule = {kid, ALG[alg], iss, aud, 60};
    char err[LLM_JWT_ERR] = "";

    if (llm_jwt_keys_add(to, &rule, text, strlen(text), err) < 0) {
        fail_msg("%s: %s", kid, err);
    }
}


static int
set_up(void **state)
{
    (void) state;
    rsa = EVP_RSA_gen(2048);
    ec = EVP_EC_gen("P-256");
    if (rsa == NULL || ec == NULL) {
        return -1;
    }
    pem_of[HS] = strdup(SECRET "\n");
    pem_of[RS] = pem(rsa);
    pem_of[ES] = pem(ec);
    keys = llm_jwt_keys_create();
    add(keys, "hs", HS, pem_of[HS], NULL, NULL);
    add(keys, "rs", RS, pem_of[RS], NULL, NULL);
    add(keys, "es", ES, pem_of[ES], NULL, NULL);
    add(keys, "default", ES, pem_of[ES], NULL, NULL);
    return 0;
}


static int
tear_down(void **state)
{
    int i;

    (void) state;
    llm_jwt_keys_free(keys);
    llm_jwt_keys_free(NULL);
    EVP_PKEY_free(rsa);
    EVP_PKEY_free(ec);
    for (i = 0; i < ALGS; i++) {
        free(pem_of[i]);
    }
    return 0;
}


/* --- RFC 7515, appendix A: tokens and keys of others -------------------- */

#define RFC_CLAIMS                                                             \
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt"         \
    "cGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
#define RFC_HS "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." RFC_CLAIMS "."
#define RFC_RS "eyJhbGciOiJSUzI1NiJ9." RFC_CLAIMS "."
#define RFC_ES "eyJhbGciOiJFUzI1NiJ9." RFC_CLAIMS "."

static const char *const RFC[ALGS] = {RFC_HS
    "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    RFC_RS "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7"
           "AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4"
           "BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K"
           "0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqv"
           "hJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrB"
           "p0igcN_IoypGlUPQGe77Rw",
    RFC_ES "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSA"
           "pmWQxfKTUJqPP3-Kg6NU1Q"};

static const char RFC_K[] =
    "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUu"
    "TwjAzZr1Z9CAow";
static const char RFC_N[] =
    "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qP"
    "CJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47s"
    "oMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2"
    "R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoud"
    "F8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
static const char RFC_X[] = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
static const char RFC_Y[] = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";


static EVP_PKEY *
from_params(const char *type, OSSL_PARAM_BLD *bld)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(bld);
    EVP_PKEY *key = NULL;

    assert_int_equal(EVP_PKEY_fromdata_init(ctx), 1);
    assert_int_equal(
        EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params), 1);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(bld);
    EVP_PKEY_CTX_free(ctx);
    return key;
}


/* The RFC's key as the file that we would read. */
static char *
rfc_file(int alg, size_t *len)
{
    OSSL_PARAM_BLD *bld = OSSL_PARAM_BLD_new();
    uint8_t bin[512];
    EVP_PKEY *key;
    BIGNUM *n, *e;
    char *text;

    if (alg == HS) {
        OSSL_PARAM_BLD_free(bld);
        *len = decode(bin, RFC_K);
        text = malloc(*len);
        memcpy(text, bin, *len);
        return text;
    }
    if (alg == RS) {
        n = BN_bin2bn(bin, (int) decode(bin, RFC_N), NULL);
        e = BN_new();
        BN_set_word(e, 65537);
        OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_N, n);
        OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_E, e);
        key = from_params("RSA", bld);
        BN_free(n);
        BN_free(e);
    } else {
        bin[0] = 4;
        decode(bin + 1, RFC_X);
        decode(bin + 33, RFC_Y);
        OSSL_PARAM_BLD_push_utf8_string(
            bld, OSSL_PKEY_PARAM_GROUP_NAME, "P-256", 0);
        OSSL_PARAM_BLD_push_octet_string(bld, OSSL_PKEY_PARAM_PUB_KEY, bin, 65);
        key = from_params("EC", bld);
    }
    text = pem(key);
    *len = strlen(text);
    EVP_PKEY_free(key);
    return text;
}


static void
rfc_vectors(void **state)
{
    llm_jwt_str_t iss = {"iss", 3}, value;
    char err[LLM_JWT_ERR], num[LLM_JWT_INT], *file;
    llm_jwt_keys_t *with;
    json_t *claims;
    size_t len;
    int alg;

    (void) state;
    for (alg = 0; alg < ALGS; alg++) {
        llm_jwt_rule_t rule = {"default", ALG[alg], "joe", NULL, 0};

        with = llm_jwt_keys_create();
        file = rfc_file(alg, &len);
        assert_int_equal(llm_jwt_keys_add(with, &rule, file, len, err), 0);
        free(file);
        len = strlen(RFC[alg]);
        assert_int_equal(
            verdict_of(with, RFC[alg], len, 1300819379, &claims), LLM_JWT_OK);
        assert_int_equal(llm_jwt_claim(claims, &iss, 1, num, &value), 0);
        assert_int_equal(value.len, 3);
        assert_memory_equal(value.data, "joe", 3);
        llm_jwt_free(claims);
        assert_int_equal(verdict_of(with, RFC[alg], len, 1300819380, &claims),
            LLM_JWT_EXPIRED);
        llm_jwt_keys_free(with);
    }
}


/* --- who signed it ------------------------------------------------------ */

/* Every key against every alg in the header and every way to sign. */
static void
algorithms(void **state)
{
    char header[64];
    int key, alg, how, rc;
    static const char *const kid[] = {"hs", "rs", "es"};

    (void) state;
    for (key = 0; key < ALGS; key++) {
        for (alg = 0; alg < ALGS; alg++) {
            for (how = 0; how < ALGS; how++) {
                snprintf(header, sizeof(header),
                    "{\"alg\":\"%s\",\"kid\":\"%s\"}", ALG[alg], kid[key]);
                rc = verdict(token_of(how, header, GOOD));
                assert_int_equal(rc, alg != key   ? LLM_JWT_ALG
                                     : how != key ? LLM_JWT_SIGNATURE
                                                  : LLM_JWT_OK);
            }
        }
    }
}


/* The public key, which everybody has, as the secret of an HMAC. */
static void
confusion(void **state)
{
    static const char *const header[] = {"{\"alg\":\"HS256\",\"kid\":\"rs\"}",
        "{\"alg\":\"RS256\",\"kid\":\"rs\"}",
        "{\"alg\":\"HS256\",\"kid\":\"es\"}", "{\"alg\":\"HS256\"}",
        "{\"alg\":\"HS256\",\"kid\":\"hs\"}"};
    static const int want[] = {LLM_JWT_ALG, LLM_JWT_SIGNATURE, LLM_JWT_ALG,
        LLM_JWT_ALG, LLM_JWT_SIGNATURE};
    uint8_t mac[64];
    size_t i, n;
    int alg;

    (void) state;
    for (alg = RS; alg <= ES; alg++) {
        for (i = 0; i < COUNT(header); i++) {
            begin(header[i], strlen(header[i]), GOOD, strlen(GOOD));
            n = hmac(pem_of[alg], strlen(pem_of[alg]), token, mac);
            end(mac, n);
            assert_int_equal(verdict(token), want[i]);
        }
    }
}


static const struct {
    const char *header;
    int rc; /* signed by es, whatever it says */
} HEADERS[] = {{"{\"alg\":\"ES256\",\"kid\":\"es\"}", LLM_JWT_OK},
    {"{\"alg\":\"ES256\"}", LLM_JWT_OK},
    {" {\t\"alg\" : \"ES256\",\r\n \"typ\":\"JWT\"} ", LLM_JWT_OK},
    {"{\"alg\":\"\\u0045S256\"}", LLM_JWT_OK},
    {"{\"alg\":\"ES256\",\"kid\":\"default\"}", LLM_JWT_OK},
    /* nothing but kid says which key it is */
    {"{\"alg\":\"ES256\",\"jku\":\"https://evil/\",\"jwk\":{}}", LLM_JWT_OK},
    {"{\"alg\":\"none\"}", LLM_JWT_ALG}, {"{\"alg\":\"None\"}", LLM_JWT_ALG},
    {"{\"alg\":\"none\",\"kid\":\"hs\"}", LLM_JWT_ALG},
    {"{\"alg\":\"\"}", LLM_JWT_ALG}, {"{\"alg\":\"es256\"}", LLM_JWT_ALG},
    {"{\"alg\":\"ES256 \"}", LLM_JWT_ALG}, {"{\"alg\":\"ES384\"}", LLM_JWT_ALG},
    {"{\"alg\":\"ES256K\"}", LLM_JWT_ALG}, {"{\"alg\":\"ES25\"}", LLM_JWT_ALG},
    {"{}", LLM_JWT_HEADER}, {"{\"alg\":null}", LLM_JWT_HEADER},
    {"{\"alg\":256}", LLM_JWT_HEADER},
    {"{\"alg\":[\"ES256\"]}", LLM_JWT_HEADER},
    {"{\"Alg\":\"ES256\"}", LLM_JWT_HEADER},
    {"{\"alg\":\"ES256\\u0000\"}", LLM_JWT_HEADER},
    {"{\"alg\":\"none\",\"alg\":\"ES256\"}", LLM_JWT_HEADER},
    {"{\"alg\":\"ES256\",\"alg\":\"ES256\"}", LLM_JWT_HEADER},
    {"{\"alg\":\"none\",\"\\u0061lg\":\"ES256\"}", LLM_JWT_HEADER},
    {"[\"ES256\"]", LLM_JWT_HEADER}, {"\"ES256\"", LLM_JWT_HEADER},
    {"{\"alg\":\"ES256\"}x", LLM_JWT_HEADER},
    {"{\"alg\":\"ES256\"}{}", LLM_JWT_HEADER},
    {"{\"alg\":\"ES256\",}", LLM_JWT_HEADER},
    {"{\"alg\":\"ES256\"", LLM_JWT_HEADER},
    {"\xef\xbb\xbf{\"alg\":\"ES256\"}", LLM_JWT_HEADER},
    {"{\"alg\":\"ES256\",\"x\":\"\xff\"}", LLM_JWT_HEADER},
    {"{\"alg\":\"ES256\",\"kid\":1}", LLM_JWT_HEADER},
    {"{\"alg\":\"ES256\",\"kid\":null}", LLM_JWT_HEADER},
    {"{\"alg\":\"ES256\",\"kid\":[\"es\"]}", LLM_JWT_HEADER},
    {"{\"alg\":\"ES256\",\"kid\":\"\"}", LLM_JWT_NO_KEY},
    {"{\"alg\":\"ES256\",\"kid\":\"ES\"}", LLM_JWT_NO_KEY},
    {"{\"alg\":\"ES256\",\"kid\":\"es \"}", LLM_JWT_NO_KEY},
    {"{\"alg\":\"ES256\",\"kid\":\"e\"}", LLM_JWT_NO_KEY},
    {"{\"alg\":\"ES256\",\"kid\":\"../es\"}", LLM_JWT_NO_KEY},
    {"{\"alg\":\"ES256\",\"crit\":[\"b64\"],\"b64\":false}", LLM_JWT_CRIT},
    {"{\"alg\":\"ES256\",\"crit\":[]}", LLM_JWT_CRIT},
    {"{\"alg\":\"ES256\",\"crit\":null}", LLM_JWT_CRIT}};

static void
headers(void **state)
{
    size_t i;

    (void) state;
    for (i = 0; i < COUNT(HEADERS); i++) {
        if (verdict(token_of(ES, HEADERS[i].header, GOOD)) != HEADERS[i].rc) {
            fail_msg("%s: %d", HEADERS[i].header, verdict(token));
        }
    }
}


static void
no_default(void **state)
{
    llm_jwt_keys_t *with = llm_jwt_keys_create();
    json_t *claims;

    (void) state;
    token_of(HS, "{\"alg\":\"HS256\"}", GOOD);
    assert_int_equal(
        verdict_of(with, token, strlen(token), NOW, &claims), LLM_JWT_NO_KEY);
    add(with, "hs", HS, pem_of[HS], NULL, NULL);
    assert_int_equal(
        verdict_of(with, token, strlen(token), NOW, &claims), LLM_JWT_NO_KEY);
    llm_jwt_keys_free(with);
}


/* --- the signature ------------------------------------------------------ */

static void
flipped_bits(void **state)
{
    uint8_t signature[1024];
    size_t i, n, signed_len;
    int alg;

    (void) state;
    for (alg = 0; alg < ALGS; alg++) {
        signed_len =
            begin(HEADER[alg], strlen(HEADER[alg]), GOOD, strlen(GOOD));
        n = sign(alg, token, signature);
        for (i = 0; i < n * 8; i++) {
            signature[i / 8] ^= (uint8_t) (1 << i % 8);
            token[signed_len] = '\0';
            end(signature, n);
            assert_int_equal(verdict(token), LLM_JWT_SIGNATURE);
            signature[i / 8] ^= (uint8_t) (1 << i % 8);
        }
        token[signed_len] = '\0';
        end(signature, n);
        assert_int_equal(verdict(token), LLM_JWT_OK);

        /* any other length, zeros in front or behind included */
        memset(signature + n, 0, sizeof(signature) - n);
        for (i = 0; i < 600; i++) {
            token[signed_len] = '\0';
            end(signature, i);
            assert_int_equal(
                verdict(token), i == n ? LLM_JWT_OK : LLM_JWT_SIGNATURE);
        }
        memmove(signature + 1, signature, n);
        signature[0] = 0;
        token[signed_len] = '\0';
        end(signature, n + 1);
        assert_int_equal(verdict(token), LLM_JWT_SIGNATURE);
    }
}


/* Another text under a good signature. */
static void
other_text(void **state)
{
    char signature[1024];
    int alg;

    (void) state;
    for (alg = 0; alg < ALGS; alg++) {
        token_of(alg, HEADER[alg], GOOD);
        snprintf(signature, sizeof(signature), "%s", strrchr(token, '.'));
        token_of(alg, HEADER[alg], "{\"exp\":1800000100,\"tenant\":\"other\"}");
        snprintf(strrchr(token, '.'), sizeof(signature), "%s", signature);
        assert_int_equal(verdict(token), LLM_JWT_SIGNATURE);
    }
}


/* r and s at the edges; of the curve's order n, both must be below it. */
static void
scalars(void **state)
{
    static const char order[] =
        "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551";
    uint8_t edge[6][32], good[64], signature[64], der[128], *p;
    size_t i, j, signed_len;
    ECDSA_SIG *sig;
    BIGNUM *n = NULL;
    int len;

    (void) state;
    BN_hex2bn(&n, order);
    memset(edge, 0, sizeof(edge));
    memset(edge[1], 0xff, 32);
    edge[2][31] = 1;
    BN_bn2binpad(n, edge[3], 32);
    BN_sub_word(n, 1);
    BN_bn2binpad(n, edge[4], 32);
    edge[5][0] = 0x80;
    BN_free(n);

    signed_len = begin(HEADER[ES], strlen(HEADER[ES]), GOOD, strlen(GOOD));
    sign(ES, token, good);
    for (i = 0; i <= 6; i++) {
        for (j = 0; j <= 6; j++) {
            memcpy(signature, i < 6 ? edge[i] : good, 32);
            memcpy(signature + 32, j < 6 ? edge[j] : good + 32, 32);
            token[signed_len] = '\0';
            end(signature, 64);
            assert_int_equal(verdict(token),
                i == 6 && j == 6 ? LLM_JWT_OK : LLM_JWT_SIGNATURE);
        }
    }

    /* OpenSSL's own form of it is not a JWT's */
    sig = ECDSA_SIG_new();
    ECDSA_SIG_set0(
        sig, BN_bin2bn(good, 32, NULL), BN_bin2bn(good + 32, 32, NULL));
    p = der;
    len = i2d_ECDSA_SIG(sig, &p);
    ECDSA_SIG_free(sig);
    token[signed_len] = '\0';
    end(der, (size_t) len);
    assert_int_equal(verdict(token), LLM_JWT_SIGNATURE);
}


/* Short r and s, so that the code pads and strips: a few hundred of them. */
static void
many_signatures(void **state)
{
    char claims[100];
    int i, alg;

    (void) state;
    for (i = 0; i < 600; i++) {
        alg = i < 500 ? ES : HS;
        snprintf(claims, sizeof(claims), "{\"exp\":1800000100,\"i\":%d}", i);
        assert_int_equal(
            verdict(token_of(alg, HEADER[alg], claims)), LLM_JWT_OK);
    }
}


/* --- the form ----------------------------------------------------------- */

static void
forms(void **state)
{
    static const char *const none[] = {"", ".", "..", "...", "a", "a.b", "a..c",
        ".b.c", "a.b.c.d", "a.b.c.", "sk-abc", " a.b.c", "a.b.c ", "a.b.c\n",
        "a.b.c=", "a=.b.c", "a+b.c.d", "a/b.c.d", "a.b.c\x80", "a b.c.d",
        "\"a.b.c\""};
    size_t i, n, dot;
    json_t *claims;
    char ch;

    (void) state;
    for (i = 0; i < COUNT(none); i++) {
        assert_int_equal(verdict(none[i]), LLM_JWT_FORM);
    }
    assert_int_equal(verdict_of(keys, "a.b.\0", 5, NOW, &claims), LLM_JWT_FORM);
    assert_int_equal(verdict("a.b.c"), LLM_JWT_BASE64);
    assert_int_equal(verdict("AAAAA.AAAA.AAAA"), LLM_JWT_BASE64);
    assert_int_equal(verdict("ab.ab.abcde"), LLM_JWT_BASE64);

    /* cut anywhere, and with anything put in anywhere */
    token_of(HS, HEADER[HS], GOOD);
    n = strlen(token);
    assert_int_equal(verdict(token), LLM_JWT_OK);
    for (i = 0; i < n; i++) {
        assert_int_not_equal(
            verdict_of(keys, token, i, NOW, &claims), LLM_JWT_OK);
        for (ch = 1; ch > 0 && ch < 127; ch = (char) (ch + 3)) {
            memcpy(spare, token, i);
            spare[i] = ch;
            memcpy(spare + i + 1, token + i, n - i + 1);
            assert_int_not_equal(verdict(spare), LLM_JWT_OK);
        }
    }

    /* a second spelling: 32 bytes leave two bits of 43 characters unused */
    dot = (size_t) (strrchr(token, '.') - token);
    assert_int_equal(n - dot - 1, 43);
    ch = token[n - 1];
    assert_non_null(strchr("AEIMQUYcgkosw048", ch));
    token[n - 1] = (char) (ch == '8' ? '9' : ch == '4' ? '5' : ch + 1);
    assert_int_equal(verdict(token), LLM_JWT_BASE64);
    token[n - 1] = ch;
    memcpy(spare, token, n);
    memcpy(spare + n, "=", 2);
    assert_int_equal(verdict(spare), LLM_JWT_FORM);

    /* of an algorithm that is none, with no signature */
    begin("{\"alg\":\"none\"}", 14, GOOD, strlen(GOOD));
    end((const uint8_t *) "", 0);
    assert_int_equal(verdict(token), LLM_JWT_ALG);
    begin(HEADER[HS], strlen(HEADER[HS]), GOOD, strlen(GOOD));
    end((const uint8_t *) "", 0);
    assert_int_equal(verdict(token), LLM_JWT_SIGNATURE);
}


/* Of exactly len bytes: s with spaces in front of its last one. */
static char *
padded(const char *s, size_t len)
{
    size_t n = strlen(s);

    memset(spare, ' ', len);
    memcpy(spare, s, n - 1);
    spare[len - 1] = s[n - 1];
    spare[len] = '\0';
    return spare;
}


static void
sizes(void **state)
{
    size_t n, len;

    (void) state;
    for (n = LLM_JWT_HEADER_MAX - 4; n < LLM_JWT_HEADER_MAX + 4; n++) {
        assert_int_equal(
            verdict(token_of(
                HS, padded("{\"alg\":\"HS256\",\"kid\":\"hs\"}", n), GOOD)),
            n <= LLM_JWT_HEADER_MAX ? LLM_JWT_OK : LLM_JWT_LONG);
    }
    for (n = 6000; n < 6144; n++) {
        len = strlen(token_of(HS, HEADER[HS], padded(GOOD, n)));
        assert_int_equal(
            verdict(token), len <= LLM_JWT_MAX ? LLM_JWT_OK : LLM_JWT_LONG);
    }
    assert_true(len > LLM_JWT_MAX);
    memset(spare, 'A', sizeof(spare) - 1);
    spare[10] = spare[20] = '.';
    spare[sizeof(spare) - 1] = '\0';
    assert_int_equal(verdict(spare), LLM_JWT_LONG);
    spare[8000] = '\0';
    assert_int_equal(verdict(spare), LLM_JWT_SIGNATURE);
}


/* --- the claims --------------------------------------------------------- */

static const struct {
    const char *claims;
    int rc; /* at NOW, with a leeway of 60 s */
} CLAIMS[] = {{GOOD, LLM_JWT_OK}, {"{}", LLM_JWT_TIMES},
    {"{\"tenant\":\"a\"}", LLM_JWT_TIMES}, {"[]", LLM_JWT_CLAIMS},
    {"null", LLM_JWT_CLAIMS}, {"1800000100", LLM_JWT_CLAIMS},
    {" {\"exp\":1800000100}\r\n", LLM_JWT_OK},
    {"{\"exp\":1800000100}x", LLM_JWT_CLAIMS},
    {"{\"exp\":1800000100} {}", LLM_JWT_CLAIMS},
    {"{\"exp\":1800000100", LLM_JWT_CLAIMS},
    {"{\"exp\":1800000100,\"a\":\"\\u0000\"}", LLM_JWT_CLAIMS},
    {"{\"exp\":1800000100,\"a\\u0000\":1}", LLM_JWT_CLAIMS},
    {"{\"exp\":1800000100,\"a\":\"\xc0\xaf\"}", LLM_JWT_CLAIMS},
    {"{\"exp\":1,\"exp\":1800000100}", LLM_JWT_CLAIMS},
    {"{\"exp\":1800000100,\"a\":{\"b\":1,\"b\":1}}", LLM_JWT_CLAIMS},
    {"{\"exp\":1800000100,\"tenant\":\"a\",\"t\\u0065nant\":\"b\"}",
        LLM_JWT_CLAIMS},
    /* exp: from it on it is refused, the leeway later */
    {"{\"exp\":1799999941}", LLM_JWT_OK},
    {"{\"exp\":1799999940}", LLM_JWT_EXPIRED},
    {"{\"exp\":1799999940.5}", LLM_JWT_OK},
    {"{\"exp\":1799999940.0}", LLM_JWT_EXPIRED},
    {"{\"exp\":1799999939.9}", LLM_JWT_EXPIRED},
    {"{\"exp\":1.8000001e9}", LLM_JWT_OK}, {"{\"exp\":0}", LLM_JWT_EXPIRED},
    {"{\"exp\":-1}", LLM_JWT_EXPIRED}, {"{\"exp\":-1e300}", LLM_JWT_EXPIRED},
    {"{\"exp\":-9223372036854775808}", LLM_JWT_EXPIRED},
    {"{\"exp\":9223372036854775807}", LLM_JWT_OK},
    {"{\"exp\":1e300}", LLM_JWT_OK},
    {"{\"exp\":9223372036854775808}", LLM_JWT_CLAIMS},
    {"{\"exp\":-9223372036854775809}", LLM_JWT_CLAIMS},
    {"{\"exp\":1e999}", LLM_JWT_CLAIMS}, {"{\"exp\":NaN}", LLM_JWT_CLAIMS},
    {"{\"exp\":Infinity}", LLM_JWT_CLAIMS},
    {"{\"exp\":0x7fffffff}", LLM_JWT_CLAIMS},
    {"{\"exp\":\"1800000100\"}", LLM_JWT_TIMES},
    {"{\"exp\":null}", LLM_JWT_TIMES}, {"{\"exp\":true}", LLM_JWT_TIMES},
    {"{\"exp\":[1800000100]}", LLM_JWT_TIMES}, {"{\"exp\":{}}", LLM_JWT_TIMES},
    {"{\"EXP\":1800000100}", LLM_JWT_TIMES},
    /* nbf: from it on it is good, the leeway earlier */
    {"{\"exp\":1800000100,\"nbf\":1800000060}", LLM_JWT_OK},
    {"{\"exp\":1800000100,\"nbf\":1800000061}", LLM_JWT_EARLY},
    {"{\"exp\":1800000100,\"nbf\":1800000060.5}", LLM_JWT_EARLY},
    {"{\"exp\":1800000100,\"nbf\":-5}", LLM_JWT_OK},
    {"{\"exp\":1800000100,\"nbf\":1e300}", LLM_JWT_EARLY},
    {"{\"exp\":1800000100,\"nbf\":9223372036854775807}", LLM_JWT_EARLY},
    {"{\"exp\":1800000100,\"nbf\":\"0\"}", LLM_JWT_TIMES},
    {"{\"exp\":1800000100,\"nbf\":null}", LLM_JWT_TIMES},
    {"{\"exp\":1,\"nbf\":false}", LLM_JWT_TIMES},
    {"{\"exp\":1,\"nbf\":1900000000}", LLM_JWT_EXPIRED},
    /* a token for somebody */
    {"{\"exp\":1800000100,\"aud\":\"api\"}", LLM_JWT_AUD},
    {"{\"exp\":1800000100,\"aud\":[]}", LLM_JWT_AUD},
    {"{\"exp\":1800000100,\"iss\":\"anybody\"}", LLM_JWT_OK}};

static void
claims_table(void **state)
{
    size_t i;
    int alg;

    (void) state;
    for (alg = 0; alg < ALGS; alg++) {
        for (i = 0; i < COUNT(CLAIMS); i++) {
            if (verdict(token_of(alg, HEADER[alg], CLAIMS[i].claims))
                != CLAIMS[i].rc) {
                fail_msg("%s: %d", CLAIMS[i].claims, verdict(token));
            }
        }
    }
}


/* More levels than a parser that calls itself should go into. */
static void
nesting(void **state)
{
    char claims[6001] = "{\"exp\":1800000100,\"a\":";
    size_t depth, n = strlen(claims);

    (void) state;
    for (depth = 1000; depth < 2970; depth += 985) {
        memset(claims + n, '[', depth);
        memset(claims + n + depth, ']', depth);
        strcpy(claims + n + 2 * depth, "}");
        assert_int_equal(verdict(token_of(HS, HEADER[HS], claims)),
            depth < 2048 ? LLM_JWT_OK : LLM_JWT_CLAIMS);
    }
}


static const struct {
    const char *claims;
    int rc; /* of a key with iss=me and aud=api */
} PARTIES[] = {{"\"iss\":\"me\",\"aud\":\"api\"", LLM_JWT_OK},
    {"\"iss\":\"me\",\"aud\":[\"api\"]", LLM_JWT_OK},
    {"\"iss\":\"me\",\"aud\":[\"x\",\"api\",\"y\"]", LLM_JWT_OK},
    {"\"aud\":\"api\"", LLM_JWT_ISS},
    {"\"iss\":null,\"aud\":\"api\"", LLM_JWT_ISS},
    {"\"iss\":\"Me\",\"aud\":\"api\"", LLM_JWT_ISS},
    {"\"iss\":\"me/\",\"aud\":\"api\"", LLM_JWT_ISS},
    {"\"iss\":\"m\",\"aud\":\"api\"", LLM_JWT_ISS},
    {"\"iss\":\"\",\"aud\":\"api\"", LLM_JWT_ISS},
    {"\"iss\":[\"me\"],\"aud\":\"api\"", LLM_JWT_ISS},
    {"\"iss\":{\"me\":1},\"aud\":\"api\"", LLM_JWT_ISS},
    {"\"iss\":\"me\"", LLM_JWT_AUD},
    {"\"iss\":\"me\",\"aud\":null", LLM_JWT_AUD},
    {"\"iss\":\"me\",\"aud\":\"apis\"", LLM_JWT_AUD},
    {"\"iss\":\"me\",\"aud\":\"api,x\"", LLM_JWT_AUD},
    {"\"iss\":\"me\",\"aud\":[]", LLM_JWT_AUD},
    {"\"iss\":\"me\",\"aud\":[\"x\"]", LLM_JWT_AUD},
    {"\"iss\":\"me\",\"aud\":[[\"api\"]]", LLM_JWT_AUD},
    {"\"iss\":\"me\",\"aud\":[\"api\",1]", LLM_JWT_AUD},
    {"\"iss\":\"me\",\"aud\":[null,\"api\"]", LLM_JWT_AUD},
    {"\"iss\":\"me\",\"aud\":{\"api\":\"api\"}", LLM_JWT_AUD},
    {"\"iss\":\"me\",\"aud\":7", LLM_JWT_AUD},
    {"\"iss\":\"me\",\"aud\":true", LLM_JWT_AUD}};

static void
parties(void **state)
{
    llm_jwt_keys_t *with = llm_jwt_keys_create();
    char text[200];
    json_t *claims;
    size_t i;
    int rc;

    (void) state;
    add(with, "hs", HS, pem_of[HS], "me", "api");
    for (i = 0; i < COUNT(PARTIES); i++) {
        snprintf(
            text, sizeof(text), "{\"exp\":1800000100,%s}", PARTIES[i].claims);
        token_of(HS, HEADER[HS], text);
        rc = verdict_of(with, token, strlen(token), NOW, &claims);
        llm_jwt_free(claims);
        if (rc != PARTIES[i].rc) {
            fail_msg("%s: %d", text, rc);
        }
    }

    /* that it has expired is told only of a token for us */
    token_of(HS, HEADER[HS], "{\"exp\":1,\"iss\":\"me\",\"aud\":\"x\"}");
    assert_int_equal(
        verdict_of(with, token, strlen(token), NOW, &claims), LLM_JWT_AUD);
    llm_jwt_keys_free(with);
}


static const struct {
    const char *path; /* names between slashes */
    const char *value;
} VALUES[] = {{"s", "acme"}, {"S", "Acme"}, {"i", "42"}, {"neg", "-1"},
    {"zero", "0"}, {"min", "-9223372036854775808"},
    {"max", "9223372036854775807"}, {"utf8", "Z\xc3\xbcrich"}, {"o/s", "inner"},
    {"o/o/i", "7"}, {"https:##x.test#t", "url"}, {"none", NULL}, {"", NULL},
    {"f", NULL}, {"yes", NULL}, {"null", NULL}, {"a", NULL}, {"o", NULL},
    {"o/none", NULL}, {"s/s", NULL}, {"a/0", NULL}, {"empty", NULL},
    {"nl", NULL}, {"cr", NULL}, {"esc", NULL}, {"del", NULL},
    {"s\\u0000", NULL}};

static void
values(void **state)
{
    static const char text[] =
        "{\"exp\":1800000100,\"s\":\"acme\",\"S\":\"Acme\",\"i\":42,"
        "\"neg\":-1,\"zero\":0,\"min\":-9223372036854775808,"
        "\"max\":9223372036854775807,\"utf8\":\"Z\xc3\xbcrich\","
        "\"o\":{\"s\":\"inner\",\"o\":{\"i\":7}},\"https://x.test/t\":\"url\","
        "\"f\":1.5,\"yes\":true,\"null\":null,\"a\":[\"s\"],\"empty\":\"\","
        "\"nl\":\"a\\nb\",\"cr\":\"a\\r\",\"esc\":\"\\u001b[0m\","
        "\"del\":\"\x7f\"}";
    char num[LLM_JWT_INT], path[100], *p, *next;
    llm_jwt_str_t step[4], value;
    json_t *claims;
    size_t i, n;
    int rc;

    (void) state;
    token_of(ES, HEADER[ES], text);
    assert_int_equal(
        verdict_of(keys, token, strlen(token), NOW, &claims), LLM_JWT_OK);
    for (i = 0; i < COUNT(VALUES); i++) {
        snprintf(path, sizeof(path), "%s", VALUES[i].path);
        for (p = path, n = 0; p; p = next) {
            next = strchr(p, '/');
            if (next) {
                *next++ = '\0';
            }
            step[n].data = p;
            step[n++].len = strlen(p);
            while (strchr(p, '#')) {
                *strchr(p, '#') = '/';
            }
        }
        rc = llm_jwt_claim(claims, step, n, num, &value);
        assert_int_equal(rc, VALUES[i].value ? 0 : -1);
        if (rc == 0) {
            assert_int_equal(value.len, strlen(VALUES[i].value));
            assert_memory_equal(value.data, VALUES[i].value, value.len);
        }
    }
    assert_int_equal(llm_jwt_claim(claims, step, 0, num, &value), -1);
    llm_jwt_free(claims);
}


/* --- key files ---------------------------------------------------------- */

static void
refused(const char *alg, const char *text, size_t len, const char *like)
{
    llm_jwt_keys_t *to = llm_jwt_keys_create();
    llm_jwt_rule_t rule = {"k", alg, NULL, NULL, 0};
    char err[LLM_JWT_ERR] = "";
    char *copy = malloc(len ? len : 1);

    memcpy(copy, text, len);
    assert_int_equal(llm_jwt_keys_add(to, &rule, copy, len, err), -1);
    free(copy);
    assert_int_equal(ERR_peek_error(), 0);
    if (!strstr(err, like)) {
        fail_msg("%s: %s", like, err);
    }
    llm_jwt_keys_free(to);
}


static void
other_keys(void)
{
    EVP_PKEY *small = EVP_RSA_gen(1024);
    EVP_PKEY *p384 = EVP_EC_gen("P-384");
    EVP_PKEY *k256 = EVP_EC_gen("secp256k1");
    EVP_PKEY *ed = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    EVP_PKEY *all[] = {small, p384, k256, ed};
    static const char *const rs[] = {
        "1024 bits", "needs an RSA", "needs an RSA", "needs an RSA"};
    char *text;
    size_t i;

    for (i = 0; i < COUNT(all); i++) {
        assert_non_null(all[i]);
        text = pem(all[i]);
        refused("RS256", text, strlen(text), rs[i]);
        refused("ES256", text, strlen(text), "curve P-256");
        free(text);
        EVP_PKEY_free(all[i]);
    }
}


static void
key_files(void **state)
{
    static char big[LLM_JWT_FILE_MAX + 1];
    BIO *bio = BIO_new(BIO_s_mem());
    char *data, *text, twice[2000];
    long len;

    (void) state;
    refused("RS256", "", 0, "one public key");
    refused("RS256", "hello\n", 6, "one public key");
    refused("ES256", pem_of[RS], strlen(pem_of[RS]), "curve P-256");
    refused("RS256", pem_of[ES], strlen(pem_of[ES]), "needs an RSA key");
    refused("HS256", pem_of[RS], strlen(pem_of[RS]), "holds PEM");
    refused("HS512", SECRET, 32, "must be HS256, RS256 or ES256");
    refused("none", "", 0, "must be HS256, RS256 or ES256");
    refused("hs256", SECRET, 32, "must be HS256, RS256 or ES256");
    refused("HS256", "", 0, "has 0 bytes");
    refused("HS256", "\n", 1, "has 0 bytes");
    refused("HS256", SECRET, 31, "has 31 bytes, fewer than 32");
    refused("HS256", "0123456789abcdef0123456789abcde\r\n", 33, "has 31 bytes");
    refused("HS256", big, sizeof(big), "longer than 65536 bytes");
    refused("RS256", pem_of[RS], strlen(pem_of[RS]) / 2, "cannot be read");

    snprintf(twice, sizeof(twice), "%s%s", pem_of[RS], pem_of[RS]);
    refused("RS256", twice, strlen(twice), "one public key");
    snprintf(twice, sizeof(twice), "%s", pem_of[RS]);
    text = strchr(twice, '\n');
    memcpy(
        text + 1, "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n", 49);
    refused("RS256", twice, strlen(twice), "cannot be read");

    assert_int_equal(
        PEM_write_bio_PrivateKey(bio, ec, NULL, NULL, 0, NULL, NULL), 1);
    len = BIO_get_mem_data(bio, &data);
    refused("ES256", data, (size_t) len, "private key");
    refused("HS256", data, (size_t) len, "holds PEM");
    BIO_free(bio);
    other_keys();
}


/* The end of a secret's line is none of it; all other bytes are. */
static void
secrets(void **state)
{
    static const char *const file[] = {SECRET, SECRET "\n", SECRET "\r\n",
        SECRET "\n\n", " " SECRET, SECRET " "};
    llm_jwt_keys_t *with;
    json_t *claims;
    size_t i;
    int rc;

    (void) state;
    for (i = 0; i < COUNT(file); i++) {
        with = llm_jwt_keys_create();
        add(with, "hs", HS, file[i], NULL, NULL);
        token_of(HS, HEADER[HS], GOOD);
        rc = verdict_of(with, token, strlen(token), NOW, &claims);
        llm_jwt_free(claims);
        assert_int_equal(rc, i < 3 ? LLM_JWT_OK : LLM_JWT_SIGNATURE);
        llm_jwt_keys_free(with);
    }
}


static void
key_names(void **state)
{
    llm_jwt_keys_t *to = llm_jwt_keys_create();
    llm_jwt_rule_t rule = {"", "HS256", NULL, NULL, 0};
    char err[LLM_JWT_ERR], kid[20];
    int i;

    (void) state;
    assert_int_equal(llm_jwt_keys_add(to, &rule, SECRET, 32, err), -1);
    assert_string_equal(err, "its name is empty");
    rule.kid = kid;
    for (i = 0; i < LLM_JWT_KEYS_MAX; i++) {
        snprintf(kid, sizeof(kid), "k%d", i);
        assert_int_equal(llm_jwt_keys_add(to, &rule, SECRET, 32, err), 0);
    }
    assert_int_equal(llm_jwt_keys_add(to, &rule, SECRET, 32, err), -1);
    assert_string_equal(err, "there is a key of this name already");
    rule.kid = "one more";
    assert_int_equal(llm_jwt_keys_add(to, &rule, SECRET, 32, err), -1);
    assert_string_equal(err, "there are more than 1024 keys");
    llm_jwt_keys_free(to);
}


static void
words(void **state)
{
    int rc;

    (void) state;
    assert_null(llm_jwt_reason(LLM_JWT_OK));
    assert_null(llm_jwt_reason(LLM_JWT_END));
    assert_null(llm_jwt_told(-1));
    assert_null(llm_jwt_told(LLM_JWT_FORM));
    for (rc = LLM_JWT_OK + 1; rc < LLM_JWT_END; rc++) {
        assert_non_null(llm_jwt_reason(rc));
    }
    assert_string_equal(
        llm_jwt_told(LLM_JWT_EXPIRED), "The token has expired.");
    assert_string_equal(
        llm_jwt_told(LLM_JWT_SIGNATURE), llm_jwt_told(LLM_JWT_NO_KEY));
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rfc_vectors),
        cmocka_unit_test(algorithms),
        cmocka_unit_test(confusion),
        cmocka_unit_test(headers),
        cmocka_unit_test(no_default),
        cmocka_unit_test(flipped_bits),
        cmocka_unit_test(other_text),
        cmocka_unit_test(scalars),
        cmocka_unit_test(many_signatures),
        cmocka_unit_test(forms),
        cmocka_unit_test(sizes),
        cmocka_unit_test(claims_table),
        cmocka_unit_test(nesting),
        cmocka_unit_test(parties),
        cmocka_unit_test(values),
        cmocka_unit_test(key_files),
        cmocka_unit_test(secrets),
        cmocka_unit_test(key_names),
        cmocka_unit_test(words),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
