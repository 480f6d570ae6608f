
/*
 * JSON Web Tokens: signed ones (RFC 7515, 7519), checked by keys that the
 * configuration names.  Plain C; it knows no nginx, so that it can be fuzzed
 * and tested alone.
 *
 *     BASE64URL(header) "." BASE64URL(claims) "." BASE64URL(signature)
 *     {"alg":"ES256",       {"exp":1801353600,
 *      "kid":"2027-01"}      "tenant":"acme"}
 */


#ifndef LLM_JWT_H_INCLUDED_
#define LLM_JWT_H_INCLUDED_


#include <stddef.h>
#include <stdint.h>


#define LLM_JWT_MAX         8192        /* a token, bytes */
#define LLM_JWT_HEADER_MAX  1024        /* its header, decoded */
#define LLM_JWT_FILE_MAX    65536       /* a key's file, bytes */
#define LLM_JWT_KEYS_MAX    1024
#define LLM_JWT_ERR         192
#define LLM_JWT_INT         21          /* an int64_t in decimal, and its 0 */


/*
 * What llm_jwt_verify() may find.  X(name, for the log, for the client): the
 * client learns a reason only of a token that one of the keys has signed.
 */

#define LLM_JWT_LIST(X)                                                       \
    X(FORM, "it is not three parts of base64url", NULL)                       \
    X(LONG, "it is longer than 8192 bytes, or its header than 1024",          \
        "The token is not valid.")                                            \
    X(BASE64, "a part of it is not base64url as it must be written",          \
        "The token is not valid.")                                            \
    X(HEADER, "its header is not a JSON object, or not one of a JWT",         \
        "The token is not valid.")                                            \
    X(CRIT, "its header has extensions that must be understood",              \
        "The token is not valid.")                                            \
    X(NO_KEY, "its kid is not that of a key, or it has none and there is no " \
        "key \"default\"", "The token is not valid.")                         \
    X(ALG, "its alg is not that of the key", "The token is not valid.")       \
    X(SIGNATURE, "its signature is wrong", "The token is not valid.")         \
    X(CLAIMS, "its claims are not a JSON object, or one is there twice",      \
        "The token is not valid.")                                            \
    X(ISS, "its iss is not the one expected", "The token is not valid.")      \
    X(AUD, "its aud is not the one expected", "The token is not valid.")      \
    X(TIMES, "it has no exp, or exp or nbf is not a number",                  \
        "The token is not valid.")                                            \
    X(EXPIRED, "it has expired", "The token has expired.")                    \
    X(EARLY, "it is not valid yet", "The token is not valid yet.")            \
    X(MEMORY, "out of memory", NULL)

enum {
    LLM_JWT_OK = 0,
#define X(name, log, client) LLM_JWT_##name,
    LLM_JWT_LIST(X)
#undef X
    LLM_JWT_END
};


typedef struct llm_jwt_keys_s  llm_jwt_keys_t;

struct json_t;                          /* jansson's */


/* a key, and what tokens that it has signed must say; all 0-terminated */

typedef struct {
    const char  *kid;                   /* "default": tokens without one */
    const char  *alg;                   /* HS256, RS256 or ES256 */
    const char  *iss;                   /* NULL: any */
    const char  *aud;                   /* NULL: they may have none */
    int64_t      leeway;                /* of exp and nbf, seconds */
} llm_jwt_rule_t;


typedef struct {
    const char  *data;
    size_t       len;
} llm_jwt_str_t;


/* NULL when out of memory; llm_jwt_keys_free() takes NULL too */
llm_jwt_keys_t *llm_jwt_keys_create(void);
void llm_jwt_keys_free(llm_jwt_keys_t *keys);

/*
 * One more key.  text is its file: a public key as PEM, or of HS256 the secret
 * itself, at least 32 bytes, a newline at its end left out.  Everything is
 * copied.  0, or -1 and in err (LLM_JWT_ERR bytes) why not, a part of a
 * sentence without its full stop.
 */
int llm_jwt_keys_add(llm_jwt_keys_t *keys, const llm_jwt_rule_t *rule,
    const char *text, size_t len, char *err);

/*
 * Is the token good at the time now (unix seconds)?  LLM_JWT_OK with *claims,
 * which the caller gives back by llm_jwt_free(); or a reason of the list, and
 * NULL.  LLM_JWT_FORM says that it is no JWT at all, good or bad.
 */
int llm_jwt_verify(const llm_jwt_keys_t *keys, const char *token, size_t len,
    int64_t now, struct json_t **claims);
void llm_jwt_free(struct json_t *claims);

/*
 * The claim of a name, or of a path of n names into objects: 0 with *value, a
 * string in claims or an integer as decimal in num; -1 if it is not there, is
 * of another type, is empty, or holds control characters, which must get into
 * no header and no log.
 */
int llm_jwt_claim(const struct json_t *claims, const llm_jwt_str_t *path,
    size_t n, char num[LLM_JWT_INT], llm_jwt_str_t *value);

/* the list's words for the log and for the client; NULL: none */
const char *llm_jwt_reason(int rc);
const char *llm_jwt_told(int rc);


#endif /* LLM_JWT_H_INCLUDED_ */
