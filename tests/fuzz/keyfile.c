/*
 * Would catch: a key file that makes the reader of ngx_module/tenant/keyfile.c
 * read outside what it was given, a table in which a row cannot be found or is
 * there twice, or text whose meaning depends on how it was cut.
 *
 * The first byte says in pieces of how many bytes the rest is read, a second
 * time whole.
 */
#include "keyfile.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


/* What must hold, also where assert() is compiled out. */
static void
must(int holds)
{
    if (!holds) {
        abort();
    }
}


/* NULL and err if it is refused. */
static llm_keyfile_t *
read_by(const uint8_t *text, size_t size, size_t step, char *err)
{
    llm_keyfile_t *kf = llm_keyfile_create();
    size_t at, n;
    char *piece;
    int rv = 0;

    must(kf != NULL);
    for (at = 0; at < size && rv == 0; at += n) {
        n = size - at < step ? size - at : step;
        piece = malloc(n); /* so that the sanitizer sees each byte too far */
        must(piece != NULL);
        memcpy(piece, text + at, n);
        rv = llm_keyfile_feed(kf, piece, n, err);
        free(piece);
    }
    if (rv < 0 || llm_keyfile_end(kf, err) < 0) {
        must(strncmp(err, "line ", 5) == 0 && strlen(err) < LLM_KEYFILE_ERR);
        llm_keyfile_free(kf);
        return NULL;
    }
    return kf;
}


static void
look(const llm_keyfile_t *kf)
{
    const llm_key_t *key;
    uint32_t i, j;

    for (i = 0; i < llm_keyfile_count(kf); i++) {
        key = llm_keyfile_row(kf, i);
        must(llm_keyfile_find(kf, key->digest) == key);
        must(llm_key_name_ok(key->id, strlen(key->id)));
        must(llm_key_name_ok(key->tenant, strlen(key->tenant)));
        must(key->models == NULL
             || llm_key_model(key, key->models, strcspn(key->models, ",")));
        for (j = 0; j < i; j++) {
            must(strcmp(llm_keyfile_row(kf, j)->id, key->id) != 0);
        }
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char err_whole[LLM_KEYFILE_ERR], err_cut[LLM_KEYFILE_ERR];
    llm_keyfile_t *whole, *cut;

    if (size == 0) {
        return 0;
    }

    whole = read_by(data + 1, size - 1, size, err_whole);
    cut = read_by(data + 1, size - 1, data[0] + 1u, err_cut);
    must(!whole == !cut);

    if (whole) {
        must(llm_keyfile_count(whole) == llm_keyfile_count(cut));
        look(whole);
        look(cut);
    } else {
        must(strcmp(err_whole, err_cut) == 0);
    }

    llm_keyfile_free(whole);
    llm_keyfile_free(cut);
    return 0;
}
