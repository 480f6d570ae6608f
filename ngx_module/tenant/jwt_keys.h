
/*
 * The keys of jwt.h, as its two files see them; nobody else includes this.
 */


#ifndef LLM_JWT_KEYS_H_INCLUDED_
#define LLM_JWT_KEYS_H_INCLUDED_


#include "jwt.h"

#include <openssl/evp.h>


#define LLM_JWT_RSA_BITS_MIN   2048     /* RFC 7518, 3.3 */
#define LLM_JWT_RSA_BITS_MAX   8192     /* more would only cost time */
#define LLM_JWT_SIGNATURE_MAX  (LLM_JWT_RSA_BITS_MAX / 8)


typedef struct llm_jwt_key_s  llm_jwt_key_t;

struct llm_jwt_key_s {
    llm_jwt_key_t  *next;
    char           *kid;
    char           *iss;                /* NULL: any */
    char           *aud;                /* NULL: none */
    int64_t         leeway;
    int             alg;
    EVP_PKEY       *pkey;               /* of all but HS256 */
    size_t          secret_len;
    uint8_t        *secret;
};


struct llm_jwt_keys_s {
    llm_jwt_key_t  *first;
    uint32_t        count;
};


/* the key's algorithm as a header must name it */
const char *llm_jwt_key_alg(const llm_jwt_key_t *key);

/*
 * LLM_JWT_OK if signature, of len bytes, is the key's of text; else
 * LLM_JWT_SIGNATURE or LLM_JWT_MEMORY.
 */
int llm_jwt_key_check(const llm_jwt_key_t *key, const llm_jwt_str_t *text,
    const uint8_t *signature, size_t len);


#endif /* LLM_JWT_KEYS_H_INCLUDED_ */
