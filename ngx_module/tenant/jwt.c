
/*
 * Is a token what one of the configured keys has signed, and still good?
 *
 * DESIGN.  Base64url and the order of the checks are here, JSON is jansson's,
 * all arithmetic on secrets and signatures OpenSSL's, which nginx is linked
 * with anyway.  Debian's libjwt (1.10 in bookworm, 1.17 in trixie) was read
 * and left out: it takes the algorithm from the token, so that an RSA public
 * key serves as an HMAC secret unless the caller looks first; "none" passes
 * where no key is given; claims are parsed before the signature is known, of
 * equal names the last one counts, and base64 is taken in two spellings; a PEM
 * file is parsed for each token.  What it would spare is the hundred lines of
 * jwt_keys.c that call OpenSSL.
 *
 * The order is the defence.  Each step sees only what the former has passed:
 *
 *     form, length > base64url of all parts > header > kid gives the key >
 *     alg is that of the key > signature > claims > iss, aud > exp, nbf
 *
 * - A key has one algorithm, and the header's alg must be that one before any
 *   cryptography: so "none", and HS256 against a public key, end there.
 *   Nothing else of the header is believed: no jwk, x5c, jku.
 * - One token has one spelling: base64url without padding, unused bits zero.
 * - Names are unique in header and claims.  What crit lists is understood by
 *   nobody here, so a token that has it is refused.
 * - exp must be there: a token that opens for ever cannot be called back.  A
 *   time is any JSON number, fractions too (RFC 7519, NumericDate); one beyond
 *   64 bits or a double is no JSON that jansson takes.
 * - A token with an aud is for those it names (RFC 7519, 4.1.3), so a key
 *   without an aud of its own takes none that has one.
 *
 * Sizes: a token of at most 8 KB, decoded on the stack; nesting is bounded by
 * its length and by jansson.  Claims belong to the caller.  Any thread, no
 * state.  Keys and signatures are in jwt_keys.c.
 */


#include "jwt_keys.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>


typedef struct {
    llm_jwt_str_t   header;
    llm_jwt_str_t   claims;
    llm_jwt_str_t   signature;
    llm_jwt_str_t   signed_text;
} llm_jwt_parts_t;


static int llm_jwt_split(const char *token, size_t len,
    llm_jwt_parts_t *parts);
static int llm_jwt_decode(const llm_jwt_str_t *part, uint8_t *out, size_t max,
    size_t *len);
static int llm_jwt_json(const uint8_t *text, size_t len, int bad,
    json_t **root);
static int llm_jwt_header(const llm_jwt_keys_t *keys, const json_t *header,
    const llm_jwt_key_t **key);
static int llm_jwt_party(const llm_jwt_key_t *key, const json_t *claims);
static int llm_jwt_times(const llm_jwt_key_t *key, const json_t *claims,
    int64_t now);
static int llm_jwt_at_most(const json_t *number, int64_t seconds);


static const struct {
    const char  *log;
    const char  *client;
} llm_jwt_words[] = {

    { NULL, NULL },

#define X(name, log, client) { log, client },

    LLM_JWT_LIST(X)

#undef X
};


int
llm_jwt_verify(const llm_jwt_keys_t *keys, const char *token, size_t len,
    int64_t now, json_t **claims)
{
    int                   rc;
    size_t                header_len, claims_len, signature_len;
    json_t               *root;
    uint8_t               header[LLM_JWT_HEADER_MAX];
    uint8_t               text[LLM_JWT_MAX];
    uint8_t               signature[LLM_JWT_SIGNATURE_MAX];
    llm_jwt_parts_t       parts;
    const llm_jwt_key_t  *key;

    key = NULL;
    *claims = NULL;

    if (!llm_jwt_split(token, len, &parts)) {
        return LLM_JWT_FORM;
    }

    if (len > LLM_JWT_MAX || parts.header.len * 3 / 4 > LLM_JWT_HEADER_MAX) {
        return LLM_JWT_LONG;
    }

    /* a signature that does not fit is none of any key here */

    if (parts.signature.len * 3 / 4 > LLM_JWT_SIGNATURE_MAX) {
        return LLM_JWT_SIGNATURE;
    }

    if (llm_jwt_decode(&parts.header, header, sizeof(header), &header_len) < 0
        || llm_jwt_decode(&parts.claims, text, sizeof(text), &claims_len) < 0
        || llm_jwt_decode(&parts.signature, signature, sizeof(signature),
                          &signature_len)
           < 0)
    {
        return LLM_JWT_BASE64;
    }

    rc = llm_jwt_json(header, header_len, LLM_JWT_HEADER, &root);

    if (rc == LLM_JWT_OK) {
        rc = llm_jwt_header(keys, root, &key);
        json_decref(root);
    }

    if (rc == LLM_JWT_OK) {
        rc = llm_jwt_key_check(key, &parts.signed_text, signature,
                               signature_len);
    }

    if (rc == LLM_JWT_OK) {
        rc = llm_jwt_json(text, claims_len, LLM_JWT_CLAIMS, &root);
    }

    if (rc != LLM_JWT_OK) {
        return rc;
    }

    rc = llm_jwt_party(key, root);

    if (rc == LLM_JWT_OK) {
        rc = llm_jwt_times(key, root, now);
    }

    if (rc != LLM_JWT_OK) {
        json_decref(root);
        return rc;
    }

    *claims = root;

    return LLM_JWT_OK;
}


void
llm_jwt_free(json_t *claims)
{
    json_decref(claims);
}


/* the six bits of a base64url character, or -1 */

static inline int
llm_jwt_sextet(char ch)
{
    if (ch >= 'A' && ch <= 'Z') {
        return ch - 'A';
    }

    if (ch >= 'a' && ch <= 'z') {
        return ch - 'a' + 26;
    }

    if (ch >= '0' && ch <= '9') {
        return ch - '0' + 52;
    }

    return ch == '-' ? 62 : ch == '_' ? 63 : -1;
}


/*
 * Two dots, and nothing but base64url around them.  An empty signature still
 * has the form: such a token is to be refused as one, not looked up as a key.
 */

static int
llm_jwt_split(const char *token, size_t len, llm_jwt_parts_t *parts)
{
    size_t  i, n, dot[2];

    n = 0;

    for (i = 0; i < len; i++) {

        if (token[i] == '.') {

            if (n == 2) {
                return 0;
            }

            dot[n++] = i;

        } else if (llm_jwt_sextet(token[i]) < 0) {
            return 0;
        }
    }

    if (n != 2 || dot[0] == 0 || dot[1] == dot[0] + 1) {
        return 0;
    }

    parts->header.data = token;
    parts->header.len = dot[0];
    parts->claims.data = token + dot[0] + 1;
    parts->claims.len = dot[1] - dot[0] - 1;
    parts->signature.data = token + dot[1] + 1;
    parts->signature.len = len - dot[1] - 1;
    parts->signed_text.data = token;
    parts->signed_text.len = dot[1];

    return 1;
}


static int
llm_jwt_decode(const llm_jwt_str_t *part, uint8_t *out, size_t max,
    size_t *len)
{
    int       v;
    size_t    i, n;
    uint32_t  bits, have;

    n = 0;
    bits = 0;
    have = 0;

    for (i = 0; i < part->len; i++) {

        v = llm_jwt_sextet(part->data[i]);
        if (v < 0) {
            return -1;
        }

        bits = bits << 6 | (uint32_t) v;
        have += 6;

        if (have >= 8) {

            if (n == max) {
                return -1;
            }

            have -= 8;
            out[n++] = (uint8_t) (bits >> have);
            bits &= (1u << have) - 1;
        }
    }

    /* a character too many, or bits that would give a second spelling */

    if (have == 6 || bits) {
        return -1;
    }

    *len = n;

    return 0;
}


static int
llm_jwt_json(const uint8_t *text, size_t len, int bad, json_t **root)
{
    json_error_t  error;

    *root = json_loadb((const char *) text, len, JSON_REJECT_DUPLICATES,
                       &error);

    if (*root == NULL) {
        return json_error_code(&error) == json_error_out_of_memory
               ? LLM_JWT_MEMORY : bad;
    }

    if (!json_is_object(*root)) {
        json_decref(*root);
        return bad;
    }

    return LLM_JWT_OK;
}


static int
llm_jwt_header(const llm_jwt_keys_t *keys, const json_t *header,
    const llm_jwt_key_t **key)
{
    const char     *kid;
    const json_t   *value;
    llm_jwt_key_t  *k;

    if (!json_is_string(json_object_get(header, "alg"))) {
        return LLM_JWT_HEADER;
    }

    if (json_object_get(header, "crit")) {
        return LLM_JWT_CRIT;
    }

    value = json_object_get(header, "kid");

    if (value && !json_is_string(value)) {
        return LLM_JWT_HEADER;
    }

    /* jansson has refused strings with a NUL */

    kid = value ? json_string_value(value) : "default";

    for (k = keys->first; k; k = k->next) {
        if (strcmp(k->kid, kid) == 0) {
            break;
        }
    }

    if (k == NULL) {
        return LLM_JWT_NO_KEY;
    }

    if (strcmp(json_string_value(json_object_get(header, "alg")),
               llm_jwt_key_alg(k))
        != 0)
    {
        return LLM_JWT_ALG;
    }

    *key = k;

    return LLM_JWT_OK;
}


static inline int
llm_jwt_equal(const json_t *value, const char *text)
{
    return json_is_string(value)
           && strcmp(json_string_value(value), text) == 0;
}


/* who made the token, and for whom */

static int
llm_jwt_party(const llm_jwt_key_t *key, const json_t *claims)
{
    int            found;
    size_t         i;
    const json_t  *aud;

    if (key->iss && !llm_jwt_equal(json_object_get(claims, "iss"), key->iss)) {
        return LLM_JWT_ISS;
    }

    aud = json_object_get(claims, "aud");

    if (key->aud == NULL) {
        return aud ? LLM_JWT_AUD : LLM_JWT_OK;
    }

    if (!json_is_array(aud)) {
        return llm_jwt_equal(aud, key->aud) ? LLM_JWT_OK : LLM_JWT_AUD;
    }

    found = 0;

    for (i = 0; i < json_array_size(aud); i++) {

        if (!json_is_string(json_array_get(aud, i))) {
            return LLM_JWT_AUD;
        }

        found |= llm_jwt_equal(json_array_get(aud, i), key->aud);
    }

    return found ? LLM_JWT_OK : LLM_JWT_AUD;
}


static int
llm_jwt_times(const llm_jwt_key_t *key, const json_t *claims, int64_t now)
{
    const json_t  *exp, *nbf;

    exp = json_object_get(claims, "exp");
    nbf = json_object_get(claims, "nbf");

    if (!json_is_number(exp) || (nbf && !json_is_number(nbf))) {
        return LLM_JWT_TIMES;
    }

    /* from exp on it is refused, from nbf on it is good */

    if (llm_jwt_at_most(exp, now - key->leeway)) {
        return LLM_JWT_EXPIRED;
    }

    if (nbf && !llm_jwt_at_most(nbf, now + key->leeway)) {
        return LLM_JWT_EARLY;
    }

    return LLM_JWT_OK;
}


static int
llm_jwt_at_most(const json_t *number, int64_t seconds)
{
    if (json_is_integer(number)) {
        return json_integer_value(number) <= seconds;
    }

    /* seconds of this era are exact as a double */

    return json_real_value(number) <= (double) seconds;
}


int
llm_jwt_claim(const json_t *claims, const llm_jwt_str_t *path, size_t n,
    char num[LLM_JWT_INT], llm_jwt_str_t *value)
{
    size_t         i;
    const json_t  *v;

    v = claims;

    for (i = 0; i < n; i++) {
        v = json_object_getn(v, path[i].data, path[i].len);
    }

    if (json_is_integer(v)) {
        value->data = num;
        value->len = (size_t) snprintf(num, LLM_JWT_INT,
                                       "%" JSON_INTEGER_FORMAT,
                                       json_integer_value(v));
        return 0;
    }

    if (!json_is_string(v) || json_string_length(v) == 0) {
        return -1;
    }

    value->data = json_string_value(v);
    value->len = json_string_length(v);

    for (i = 0; i < value->len; i++) {
        if ((uint8_t) value->data[i] < 0x20 || value->data[i] == 0x7f) {
            return -1;
        }
    }

    return 0;
}


const char *
llm_jwt_reason(int rc)
{
    return rc > LLM_JWT_OK && rc < LLM_JWT_END ? llm_jwt_words[rc].log : NULL;
}


const char *
llm_jwt_told(int rc)
{
    return rc > LLM_JWT_OK && rc < LLM_JWT_END ? llm_jwt_words[rc].client
                                               : NULL;
}
