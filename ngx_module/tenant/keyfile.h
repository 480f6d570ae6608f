
/*
 * A key file: who may use the server, by the SHA-256 of a key.  Plain C; it
 * knows no nginx, so that it can be fuzzed and tested alone.
 *
 *     # SHA-256 of the key, in hex   id      tenant  [expires=] [models=]
 *     9f86d081884c7d659a2f...        prod-1  acme    expires=2027-01-31
 *     60303ae22b998861bce3...        ci      acme    models=small,large
 *
 * Words are separated by spaces or tabs, a line is a key; empty lines and
 * those that begin with # are comments.  expires is a day, or a time as in
 * 2027-01-31T12:00:00Z, from which on the key is refused; both are UTC.
 *
 * A key itself is nowhere in it: what is read here opens nothing.
 */


#ifndef LLM_KEYFILE_H_INCLUDED_
#define LLM_KEYFILE_H_INCLUDED_


#include <stddef.h>
#include <stdint.h>


#define LLM_KEY_DIGEST    32            /* bytes: SHA-256 */
#define LLM_KEY_NAME_MAX  64            /* of an id or a tenant, bytes */
#define LLM_KEY_LINE_MAX  4096
#define LLM_KEYS_MAX      (1 << 20)
#define LLM_KEYFILE_ERR   192


typedef struct llm_key_s {
    uint8_t      digest[LLM_KEY_DIGEST];
    int64_t      expires;               /* unix seconds; 0: never */
    const char  *id;                    /* 0-terminated, as the others */
    const char  *tenant;
    const char  *models;                /* "small,large"; NULL: all */
    uint32_t     line;
} llm_key_t;


typedef struct llm_keyfile_s  llm_keyfile_t;


/* NULL when out of memory; llm_keyfile_free() takes NULL too */
llm_keyfile_t *llm_keyfile_create(void);
void llm_keyfile_free(llm_keyfile_t *kf);

/*
 * The next len bytes of the file, which may come in pieces of any size: a
 * caller in an event loop reads a large file a piece a turn.  llm_keyfile_end()
 * follows the last one.  0, or -1 and in err (LLM_KEYFILE_ERR bytes) a sentence
 * that begins with the line's number; then the table is only good for
 * llm_keyfile_free().
 */
int llm_keyfile_feed(llm_keyfile_t *kf, const char *text, size_t len,
    char *err);
int llm_keyfile_end(llm_keyfile_t *kf, char *err);

/*
 * The key whose SHA-256 digest is, or NULL.  How long it takes says nothing
 * about keys that exist: a digest's first bytes are compared as a number to
 * find the row, and cannot be chosen by who does not know the key; the whole
 * is compared in constant time.
 */
const llm_key_t *llm_keyfile_find(const llm_keyfile_t *kf,
    const uint8_t digest[LLM_KEY_DIGEST]);

/* rows in the order of the file, from 0 to llm_keyfile_count() - 1 */
uint32_t llm_keyfile_count(const llm_keyfile_t *kf);
const llm_key_t *llm_keyfile_row(const llm_keyfile_t *kf, uint32_t i);

/* is the model of this name (len bytes) among those that key may use? */
int llm_key_model(const llm_key_t *key, const char *name, size_t len);

/* letters, digits, "_", "-", ".", ":"; from 1 to LLM_KEY_NAME_MAX bytes */
int llm_key_name_ok(const char *name, size_t len);


#endif /* LLM_KEYFILE_H_INCLUDED_ */
