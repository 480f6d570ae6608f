
/*
 * The keys that tokens are signed with: read from their files, and asked
 * whether a signature is theirs.
 *
 * DESIGN.  A key that could not be safe is refused with the configuration:
 * too short, of another curve than its algorithm's, a private one where a
 * public one belongs, a public one where a secret belongs.  So what is left at
 * run time is arithmetic, which is OpenSSL's: HMAC and a comparison in
 * constant time, or EVP_DigestVerify().  ES256 needs one thing more, as OpenSSL
 * takes r and s in DER, and a JWT has them side by side.
 *
 * A secret is wiped when its key is freed.  OpenSSL's error queue is left
 * empty, as nginx would report what lies there as an error of some connection.
 * Keys do not change once they are added: any thread may check by them.
 */


#include "jwt_keys.h"

#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


#define LLM_JWT_HS256       0
#define LLM_JWT_RS256       1
#define LLM_JWT_ES256       2

#define LLM_JWT_SECRET_MIN  32          /* RFC 7518, 3.2: as long as the MAC */
#define LLM_JWT_MAC         32          /* of HS256, bytes */
#define LLM_JWT_SCALAR      32          /* r and s of ES256 */

/* two INTEGERs of a scalar, a sign byte and a head, in a SEQUENCE */

#define LLM_JWT_DER_MAX     (2 + 2 * (LLM_JWT_SCALAR + 3))


static int llm_jwt_key_secret(llm_jwt_key_t *key, const char *text, size_t len,
    char *err);
static int llm_jwt_key_public(llm_jwt_key_t *key, const char *text, size_t len,
    char *err);
static int llm_jwt_key_fits(const llm_jwt_key_t *key, char *err);
static int llm_jwt_no_passphrase(char *buf, int size, int rwflag, void *arg);
static int llm_jwt_key_names(llm_jwt_key_t *key, const llm_jwt_rule_t *rule);
static void llm_jwt_key_free(llm_jwt_key_t *key);
static int llm_jwt_hmac(const llm_jwt_key_t *key, const llm_jwt_str_t *text,
    const uint8_t *signature, size_t len);
static int llm_jwt_der(const uint8_t *raw, uint8_t *der, size_t *len);
static size_t llm_jwt_der_integer(const uint8_t *raw, uint8_t *der);
static int llm_jwt_error(char *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));


static const char *const  llm_jwt_algs[] = { "HS256", "RS256", "ES256" };

#define LLM_JWT_ALGS  (int) (sizeof(llm_jwt_algs) / sizeof(llm_jwt_algs[0]))


llm_jwt_keys_t *
llm_jwt_keys_create(void)
{
    return calloc(1, sizeof(llm_jwt_keys_t));
}


void
llm_jwt_keys_free(llm_jwt_keys_t *keys)
{
    llm_jwt_key_t  *key;

    if (keys == NULL) {
        return;
    }

    while (keys->first) {
        key = keys->first;
        keys->first = key->next;
        llm_jwt_key_free(key);
    }

    free(keys);
}


static void
llm_jwt_key_free(llm_jwt_key_t *key)
{
    if (key->secret) {
        OPENSSL_cleanse(key->secret, key->secret_len);
    }

    EVP_PKEY_free(key->pkey);
    free(key->secret);
    free(key->kid);
    free(key->iss);
    free(key->aud);
    free(key);
}


int
llm_jwt_keys_add(llm_jwt_keys_t *keys, const llm_jwt_rule_t *rule,
    const char *text, size_t len, char *err)
{
    int             rv;
    llm_jwt_key_t  *key;

    if (rule->kid[0] == '\0') {
        return llm_jwt_error(err, "its name is empty");
    }

    for (key = keys->first; key; key = key->next) {
        if (strcmp(key->kid, rule->kid) == 0) {
            return llm_jwt_error(err, "there is a key of this name already");
        }
    }

    if (keys->count == LLM_JWT_KEYS_MAX) {
        return llm_jwt_error(err, "there are more than %d keys",
                             LLM_JWT_KEYS_MAX);
    }

    key = calloc(1, sizeof(llm_jwt_key_t));

    if (key == NULL || llm_jwt_key_names(key, rule) < 0) {
        rv = llm_jwt_error(err, "out of memory");

    } else if (key->alg == LLM_JWT_ALGS) {
        rv = llm_jwt_error(err, "its algorithm must be HS256, RS256 or ES256");

    } else if (len > LLM_JWT_FILE_MAX) {
        rv = llm_jwt_error(err, "it is longer than %d bytes",
                           LLM_JWT_FILE_MAX);

    } else if (key->alg == LLM_JWT_HS256) {
        rv = llm_jwt_key_secret(key, text, len, err);

    } else {
        rv = llm_jwt_key_public(key, text, len, err);
    }

    ERR_clear_error();

    if (rv < 0) {
        if (key) {
            llm_jwt_key_free(key);
        }

        return -1;
    }

    key->next = keys->first;
    keys->first = key;
    keys->count++;

    return 0;
}


static int
llm_jwt_key_names(llm_jwt_key_t *key, const llm_jwt_rule_t *rule)
{
    for (key->alg = 0; key->alg < LLM_JWT_ALGS; key->alg++) {
        if (strcmp(rule->alg, llm_jwt_algs[key->alg]) == 0) {
            break;
        }
    }

    key->leeway = rule->leeway;
    key->kid = strdup(rule->kid);
    key->iss = rule->iss ? strdup(rule->iss) : NULL;
    key->aud = rule->aud ? strdup(rule->aud) : NULL;

    return key->kid && !key->iss == !rule->iss && !key->aud == !rule->aud
           ? 0 : -1;
}


/* how often word is in text, which is not 0-terminated */

static int
llm_jwt_count(const char *text, size_t len, const char *word)
{
    int     n;
    size_t  i, word_len;

    n = 0;
    word_len = strlen(word);

    for (i = 0; i + word_len <= len; i++) {
        if (memcmp(text + i, word, word_len) == 0) {
            n++;
        }
    }

    return n;
}


static int
llm_jwt_key_secret(llm_jwt_key_t *key, const char *text, size_t len, char *err)
{
    /* a public key in this place would be a secret that everybody has */

    if (llm_jwt_count(text, len, "-----BEGIN ")) {
        return llm_jwt_error(err, "it holds PEM, not a secret");
    }

    if (len && text[len - 1] == '\n') {
        len--;

        if (len && text[len - 1] == '\r') {
            len--;
        }
    }

    if (len < LLM_JWT_SECRET_MIN) {
        return llm_jwt_error(err, "its secret has %zu bytes, fewer than %d",
                             len, LLM_JWT_SECRET_MIN);
    }

    key->secret = malloc(len);
    if (key->secret == NULL) {
        return llm_jwt_error(err, "out of memory");
    }

    memcpy(key->secret, text, len);
    key->secret_len = len;

    return 0;
}


static int
llm_jwt_key_public(llm_jwt_key_t *key, const char *text, size_t len, char *err)
{
    BIO  *bio;

    if (llm_jwt_count(text, len, "PRIVATE KEY-----")) {
        return llm_jwt_error(err, "it holds a private key, which has no "
                             "business here");
    }

    if (llm_jwt_count(text, len, "-----BEGIN PUBLIC KEY-----") != 1) {
        return llm_jwt_error(err, "it does not hold one public key in PEM");
    }

    bio = BIO_new_mem_buf(text, (int) len);
    if (bio == NULL) {
        return llm_jwt_error(err, "out of memory");
    }

    key->pkey = PEM_read_bio_PUBKEY(bio, NULL, llm_jwt_no_passphrase, NULL);

    BIO_free(bio);

    if (key->pkey == NULL) {
        return llm_jwt_error(err, "its public key cannot be read");
    }

    return llm_jwt_key_fits(key, err);
}


/* OpenSSL would ask at the terminal */

static int
llm_jwt_no_passphrase(char *buf, int size, int rwflag, void *arg)
{
    (void) buf;
    (void) size;
    (void) rwflag;
    (void) arg;

    return -1;
}


static int
llm_jwt_key_fits(const llm_jwt_key_t *key, char *err)
{
    int     bits;
    char    group[32];
    size_t  len;

    if (key->alg == LLM_JWT_RS256) {

        if (EVP_PKEY_base_id(key->pkey) != EVP_PKEY_RSA) {
            return llm_jwt_error(err, "RS256 needs an RSA key");
        }

        bits = EVP_PKEY_bits(key->pkey);

        if (bits < LLM_JWT_RSA_BITS_MIN || bits > LLM_JWT_RSA_BITS_MAX) {
            return llm_jwt_error(err, "its key has %d bits, it must have from "
                                 "%d to %d", bits, LLM_JWT_RSA_BITS_MIN,
                                 LLM_JWT_RSA_BITS_MAX);
        }

        return 0;
    }

    if (EVP_PKEY_base_id(key->pkey) != EVP_PKEY_EC
        || EVP_PKEY_get_group_name(key->pkey, group, sizeof(group), &len) != 1
        || OBJ_txt2nid(group) != NID_X9_62_prime256v1)
    {
        return llm_jwt_error(err, "ES256 needs an EC key of the curve P-256");
    }

    return 0;
}


const char *
llm_jwt_key_alg(const llm_jwt_key_t *key)
{
    return llm_jwt_algs[key->alg];
}


int
llm_jwt_key_check(const llm_jwt_key_t *key, const llm_jwt_str_t *text,
    const uint8_t *signature, size_t len)
{
    int          rc;
    uint8_t      der[LLM_JWT_DER_MAX];
    EVP_MD_CTX  *md;

    if (key->alg == LLM_JWT_HS256) {
        return llm_jwt_hmac(key, text, signature, len);
    }

    if (key->alg == LLM_JWT_ES256) {

        if (len != 2 * LLM_JWT_SCALAR
            || llm_jwt_der(signature, der, &len) < 0)
        {
            return LLM_JWT_SIGNATURE;
        }

        signature = der;

    } else if (len != (size_t) EVP_PKEY_size(key->pkey)) {
        return LLM_JWT_SIGNATURE;
    }

    md = EVP_MD_CTX_new();
    if (md == NULL) {
        return LLM_JWT_MEMORY;
    }

    /* RSA: PKCS #1 v1.5 is the default, and what RS256 means */

    if (EVP_DigestVerifyInit(md, NULL, EVP_sha256(), NULL, key->pkey) != 1) {
        rc = LLM_JWT_MEMORY;

    } else {
        rc = EVP_DigestVerify(md, signature, len,
                              (const unsigned char *) text->data, text->len)
             == 1 ? LLM_JWT_OK : LLM_JWT_SIGNATURE;
    }

    EVP_MD_CTX_free(md);
    ERR_clear_error();

    return rc;
}


/* how long it takes says nothing about how much of the signature is right */

static int
llm_jwt_hmac(const llm_jwt_key_t *key, const llm_jwt_str_t *text,
    const uint8_t *signature, size_t len)
{
    unsigned  n;
    uint8_t   mac[EVP_MAX_MD_SIZE];

    if (HMAC(EVP_sha256(), key->secret, (int) key->secret_len,
             (const unsigned char *) text->data, text->len, mac, &n)
        == NULL)
    {
        ERR_clear_error();
        return LLM_JWT_MEMORY;
    }

    if (n != LLM_JWT_MAC || len != LLM_JWT_MAC
        || CRYPTO_memcmp(mac, signature, LLM_JWT_MAC) != 0)
    {
        return LLM_JWT_SIGNATURE;
    }

    return LLM_JWT_OK;
}


/*
 * r and s side by side (RFC 7518, 3.4) as the SEQUENCE that OpenSSL takes:
 *
 *     30 LEN  02 LEN r  02 LEN s
 *
 * -1 if one of them is zero, which a broken verifier may take for anything.
 */

static int
llm_jwt_der(const uint8_t *raw, uint8_t *der, size_t *len)
{
    size_t  r, s;

    r = llm_jwt_der_integer(raw, der + 2);
    s = llm_jwt_der_integer(raw + LLM_JWT_SCALAR, der + 2 + r);

    if (r == 0 || s == 0) {
        return -1;
    }

    der[0] = 0x30;
    der[1] = (uint8_t) (r + s);
    *len = 2 + r + s;

    return 0;
}


/* without leading zeros, but with one where the sign bit would be; its size */

static size_t
llm_jwt_der_integer(const uint8_t *raw, uint8_t *der)
{
    size_t  skip, sign, n;

    for (skip = 0; skip < LLM_JWT_SCALAR && raw[skip] == 0; skip++) {
        /* void */
    }

    if (skip == LLM_JWT_SCALAR) {
        return 0;
    }

    sign = raw[skip] >> 7;
    n = LLM_JWT_SCALAR - skip;

    der[0] = 0x02;
    der[1] = (uint8_t) (sign + n);
    der[2] = 0;
    memcpy(der + 2 + sign, raw + skip, n);

    return 2 + sign + n;
}


static int
llm_jwt_error(char *err, const char *fmt, ...)
{
    va_list  args;

    va_start(args, fmt);
    vsnprintf(err, LLM_JWT_ERR, fmt, args);
    va_end(args);

    return -1;
}
