
/*
 * The reader and the table of a key file.
 *
 * DESIGN.  Rows are appended to one array; two open tables of row numbers
 * (linear probing, never more than half full) find them, by digest and by id,
 * the second only to refuse an id that is there already.  Text lies in chunks
 * that never move, as rows point to it.  So a file of a million keys is read
 * in pieces, at a cost that grows with the piece and, now and then, with a
 * doubling of the tables.
 *
 * The file is written by who runs the server, but perhaps by a script at the
 * moment that it is read: every length is bounded, and an error names the
 * line.  Any thread, no state outside of the table.
 */


#include "calendar.h"
#include "keyfile.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


#define LLM_KEY_CHUNK  65536            /* bytes of text at a time */
#define LLM_KEY_WORDS  5


typedef struct llm_key_chunk_s  llm_key_chunk_t;

struct llm_key_chunk_s {
    llm_key_chunk_t  *next;
    size_t            used;
    char              data[LLM_KEY_CHUNK];
};


struct llm_keyfile_s {
    llm_key_t        *rows;
    uint32_t          count;
    uint32_t          slots;            /* of each table, a power of two */
    uint32_t         *by_digest;        /* row + 1; 0 is empty */
    uint32_t         *by_id;
    llm_key_chunk_t  *chunks;

    uint32_t          line;
    size_t            len;              /* of the line begun */
    char              text[LLM_KEY_LINE_MAX + 1];
};


typedef struct {
    const char  *data;
    size_t       len;
} llm_key_word_t;


static int llm_key_line(llm_keyfile_t *kf, char *err);
static int llm_key_option(llm_keyfile_t *kf, llm_key_t *key,
    llm_key_word_t *word, char *err);
static int llm_key_digest(const llm_key_word_t *word, uint8_t *digest);
static int llm_key_time(const llm_key_word_t *word, int64_t *seconds);
static int llm_key_digits(const char *p, int n, int *value);
static int llm_key_models_ok(const char *p, size_t len);
static int llm_key_insert(llm_keyfile_t *kf, const llm_key_t *key, char *err);
static int llm_key_grow(llm_keyfile_t *kf);
static char *llm_key_keep(llm_keyfile_t *kf, const llm_key_word_t *word);
static int llm_key_error(llm_keyfile_t *kf, char *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));


llm_keyfile_t *
llm_keyfile_create(void)
{
    llm_keyfile_t  *kf;

    kf = calloc(1, sizeof(llm_keyfile_t));

    if (kf && llm_key_grow(kf) < 0) {
        free(kf);
        return NULL;
    }

    return kf;
}


void
llm_keyfile_free(llm_keyfile_t *kf)
{
    llm_key_chunk_t  *chunk;

    if (kf == NULL) {
        return;
    }

    while (kf->chunks) {
        chunk = kf->chunks;
        kf->chunks = chunk->next;
        free(chunk);
    }

    free(kf->rows);
    free(kf->by_digest);
    free(kf->by_id);
    free(kf);
}


int
llm_keyfile_feed(llm_keyfile_t *kf, const char *text, size_t len, char *err)
{
    size_t       n;
    const char  *end;

    while (len) {

        end = memchr(text, '\n', len);
        n = end ? (size_t) (end - text) : len;

        if (n > LLM_KEY_LINE_MAX - kf->len) {
            kf->line++;
            return llm_key_error(kf, err, "it is longer than %d bytes",
                                 LLM_KEY_LINE_MAX);
        }

        memcpy(kf->text + kf->len, text, n);
        kf->len += n;

        if (end == NULL) {
            return 0;
        }

        if (llm_key_line(kf, err) < 0) {
            return -1;
        }

        text += n + 1;
        len -= n + 1;
    }

    return 0;
}


int
llm_keyfile_end(llm_keyfile_t *kf, char *err)
{
    return kf->len ? llm_key_line(kf, err) : 0;
}


/* the line that is in kf->text */

static int
llm_key_line(llm_keyfile_t *kf, char *err)
{
    size_t           n;
    char            *p, *last;
    llm_key_t        key;
    llm_key_word_t   word[LLM_KEY_WORDS];

    p = kf->text;
    last = p + kf->len;
    *last = '\0';

    kf->len = 0;
    kf->line++;

    if (memchr(p, '\0', last - p)) {
        return llm_key_error(kf, err, "it holds a zero byte");
    }

    for (n = 0; ; n++) {

        p += strspn(p, " \t\r");

        if (*p == '\0' || (n == 0 && *p == '#')) {
            break;
        }

        if (n == LLM_KEY_WORDS) {
            return llm_key_error(kf, err, "it has more than %d words",
                                 LLM_KEY_WORDS);
        }

        word[n].data = p;
        word[n].len = strcspn(p, " \t\r");
        p += word[n].len;
    }

    if (n == 0) {
        return 0;
    }

    if (n < 3) {
        return llm_key_error(kf, err, "a key's digest, its id and a tenant "
                             "are expected");
    }

    memset(&key, 0, sizeof(llm_key_t));

    key.line = kf->line;

    if (llm_key_digest(&word[0], key.digest) < 0) {
        return llm_key_error(kf, err, "the first word is not a SHA-256: 64 "
                             "hexadecimal digits");
    }

    if (!llm_key_name_ok(word[1].data, word[1].len)
        || !llm_key_name_ok(word[2].data, word[2].len))
    {
        return llm_key_error(kf, err, "an id or a tenant has from 1 to %d "
                             "letters, digits, \"_\", \"-\", \".\" and \":\"",
                             LLM_KEY_NAME_MAX);
    }

    key.id = llm_key_keep(kf, &word[1]);
    key.tenant = llm_key_keep(kf, &word[2]);

    if (key.id == NULL || key.tenant == NULL) {
        return llm_key_error(kf, err, "out of memory");
    }

    while (n > 3) {
        if (llm_key_option(kf, &key, &word[--n], err) < 0) {
            return -1;
        }
    }

    return llm_key_insert(kf, &key, err);
}


static int
llm_key_option(llm_keyfile_t *kf, llm_key_t *key, llm_key_word_t *word,
    char *err)
{
    llm_key_word_t  value;

    if (word->len > 8 && memcmp(word->data, "expires=", 8) == 0
        && key->expires == 0)
    {
        value.data = word->data + 8;
        value.len = word->len - 8;

        if (llm_key_time(&value, &key->expires) < 0) {
            return llm_key_error(kf, err, "expires is not a day as in "
                                 "2027-01-31, or a time as in "
                                 "2027-01-31T12:00:00Z");
        }

        return 0;
    }

    if (word->len > 7 && memcmp(word->data, "models=", 7) == 0
        && key->models == NULL)
    {
        value.data = word->data + 7;
        value.len = word->len - 7;

        if (!llm_key_models_ok(value.data, value.len)) {
            return llm_key_error(kf, err, "models has an empty name");
        }

        key->models = llm_key_keep(kf, &value);

        if (key->models == NULL) {
            return llm_key_error(kf, err, "out of memory");
        }

        return 0;
    }

    return llm_key_error(kf, err, "behind the tenant there may be one "
                         "expires= and one models=, with a value");
}


static int
llm_key_digest(const llm_key_word_t *word, uint8_t *digest)
{
    char      ch;
    size_t    i;
    uint8_t   v;

    if (word->len != 2 * LLM_KEY_DIGEST) {
        return -1;
    }

    for (i = 0; i < word->len; i++) {
        ch = word->data[i];

        if (ch >= '0' && ch <= '9') {
            v = ch - '0';

        } else if ((ch | 0x20) >= 'a' && (ch | 0x20) <= 'f') {
            v = (ch | 0x20) - 'a' + 10;

        } else {
            return -1;
        }

        digest[i / 2] = (uint8_t) (digest[i / 2] << 4 | v);
    }

    return 0;
}


static int
llm_key_time(const llm_key_word_t *word, int64_t *seconds)
{
    int          year, month, day, hour, min, sec;
    const char  *p;

    static const uint8_t  days[12] =
        { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };

    p = word->data;
    hour = min = sec = 0;

    if (word->len != sizeof("2027-01-31") - 1
        && word->len != sizeof("2027-01-31T12:00:00Z") - 1)
    {
        return -1;
    }

    if (llm_key_digits(p, 4, &year) < 0 || p[4] != '-'
        || llm_key_digits(p + 5, 2, &month) < 0 || p[7] != '-'
        || llm_key_digits(p + 8, 2, &day) < 0)
    {
        return -1;
    }

    if (word->len > 10
        && (p[10] != 'T' || llm_key_digits(p + 11, 2, &hour) < 0
            || p[13] != ':' || llm_key_digits(p + 14, 2, &min) < 0
            || p[16] != ':' || llm_key_digits(p + 17, 2, &sec) < 0
            || p[19] != 'Z'))
    {
        return -1;
    }

    if (year < 1971 || month < 1 || month > 12 || day < 1
        || day > days[month - 1] + (month == 2 && year % 4 == 0
                                    && (year % 100 != 0 || year % 400 == 0))
        || hour > 23 || min > 59 || sec > 59)
    {
        return -1;
    }

    *seconds = llm_days(year, month, day) * 86400 + hour * 3600 + min * 60
               + sec;

    return 0;
}


static int
llm_key_digits(const char *p, int n, int *value)
{
    *value = 0;

    while (n--) {
        if (*p < '0' || *p > '9') {
            return -1;
        }

        *value = *value * 10 + (*p++ - '0');
    }

    return 0;
}


static int
llm_key_models_ok(const char *p, size_t len)
{
    size_t  i, begin;

    begin = 0;

    for (i = 0; i <= len; i++) {
        if (i == len || p[i] == ',') {
            if (i == begin) {
                return 0;
            }

            begin = i + 1;
        }
    }

    return 1;
}


int
llm_key_name_ok(const char *name, size_t len)
{
    char    ch;
    size_t  i;

    if (len == 0 || len > LLM_KEY_NAME_MAX) {
        return 0;
    }

    for (i = 0; i < len; i++) {
        ch = name[i];

        if (!((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z')
              || (ch >= '0' && ch <= '9')
              || ch == '_' || ch == '-' || ch == '.' || ch == ':'))
        {
            return 0;
        }
    }

    return 1;
}


static inline uint32_t
llm_key_hash_digest(const uint8_t *digest)
{
    uint32_t  h;

    memcpy(&h, digest, sizeof(uint32_t));

    return h;
}


/* FNV-1a; ids are the administrator's, and are looked up only here */

static inline uint32_t
llm_key_hash_id(const char *id)
{
    uint32_t  h;

    for (h = 2166136261u; *id; id++) {
        h = (h ^ (uint8_t) *id) * 16777619u;
    }

    return h;
}


/* without a branch on what the bytes are */

static inline int
llm_key_differ(const uint8_t *a, const uint8_t *b)
{
    size_t             i;
    volatile uint8_t   d;

    d = 0;

    for (i = 0; i < LLM_KEY_DIGEST; i++) {
        d = (uint8_t) (d | (a[i] ^ b[i]));
    }

    return d;
}


static int
llm_key_insert(llm_keyfile_t *kf, const llm_key_t *key, char *err)
{
    uint32_t          i;
    const llm_key_t  *row;

    row = llm_keyfile_find(kf, key->digest);

    if (row) {
        return llm_key_error(kf, err, "the same key is on line %u",
                             row->line);
    }

    if (kf->count == LLM_KEYS_MAX) {
        return llm_key_error(kf, err, "there are more than %d keys",
                             LLM_KEYS_MAX);
    }

    if (kf->count == kf->slots / 2 && llm_key_grow(kf) < 0) {
        return llm_key_error(kf, err, "out of memory");
    }

    i = llm_key_hash_id(key->id) & (kf->slots - 1);

    while (kf->by_id[i]) {
        row = &kf->rows[kf->by_id[i] - 1];

        if (strcmp(row->id, key->id) == 0) {
            return llm_key_error(kf, err, "the id \"%s\" is on line %u",
                                 key->id, row->line);
        }

        i = (i + 1) & (kf->slots - 1);
    }

    kf->rows[kf->count++] = *key;
    kf->by_id[i] = kf->count;

    i = llm_key_hash_digest(key->digest) & (kf->slots - 1);

    while (kf->by_digest[i]) {
        i = (i + 1) & (kf->slots - 1);
    }

    kf->by_digest[i] = kf->count;

    return 0;
}


/* twice the room, and both tables anew; nothing has changed if it fails */

static int
llm_key_grow(llm_keyfile_t *kf)
{
    uint32_t    i, n, at, slots, *by_digest, *by_id;
    llm_key_t  *rows;

    slots = kf->slots ? kf->slots * 2 : 64;

    rows = realloc(kf->rows, slots / 2 * sizeof(llm_key_t));

    if (rows == NULL) {
        return -1;
    }

    kf->rows = rows;

    by_digest = calloc(slots, sizeof(uint32_t));
    by_id = calloc(slots, sizeof(uint32_t));

    if (by_digest == NULL || by_id == NULL) {
        free(by_digest);
        free(by_id);
        return -1;
    }

    for (n = 0; n < kf->count; n++) {

        i = llm_key_hash_digest(rows[n].digest);
        at = llm_key_hash_id(rows[n].id);

        while (by_digest[i & (slots - 1)]) {
            i++;
        }

        while (by_id[at & (slots - 1)]) {
            at++;
        }

        by_digest[i & (slots - 1)] = n + 1;
        by_id[at & (slots - 1)] = n + 1;
    }

    free(kf->by_digest);
    free(kf->by_id);

    kf->by_digest = by_digest;
    kf->by_id = by_id;
    kf->slots = slots;

    return 0;
}


static char *
llm_key_keep(llm_keyfile_t *kf, const llm_key_word_t *word)
{
    char             *p;
    llm_key_chunk_t  *chunk;

    chunk = kf->chunks;

    if (chunk == NULL || word->len + 1 > LLM_KEY_CHUNK - chunk->used) {

        chunk = malloc(sizeof(llm_key_chunk_t));
        if (chunk == NULL) {
            return NULL;
        }

        chunk->next = kf->chunks;
        chunk->used = 0;
        kf->chunks = chunk;
    }

    p = chunk->data + chunk->used;
    chunk->used += word->len + 1;

    memcpy(p, word->data, word->len);
    p[word->len] = '\0';

    return p;
}


const llm_key_t *
llm_keyfile_find(const llm_keyfile_t *kf, const uint8_t digest[LLM_KEY_DIGEST])
{
    uint32_t          i, hash;
    const llm_key_t  *row;

    hash = llm_key_hash_digest(digest);

    for (i = hash & (kf->slots - 1); kf->by_digest[i];
         i = (i + 1) & (kf->slots - 1))
    {
        row = &kf->rows[kf->by_digest[i] - 1];

        if (llm_key_hash_digest(row->digest) == hash
            && !llm_key_differ(row->digest, digest))
        {
            return row;
        }
    }

    return NULL;
}


uint32_t
llm_keyfile_count(const llm_keyfile_t *kf)
{
    return kf->count;
}


const llm_key_t *
llm_keyfile_row(const llm_keyfile_t *kf, uint32_t i)
{
    return &kf->rows[i];
}


int
llm_key_model(const llm_key_t *key, const char *name, size_t len)
{
    size_t       n;
    const char  *p;

    if (key->models == NULL) {
        return 1;
    }

    for (p = key->models; ; p += n + 1) {

        n = strcspn(p, ",");

        if (n == len && memcmp(p, name, len) == 0) {
            return 1;
        }

        if (p[n] == '\0') {
            return 0;
        }
    }
}


static int
llm_key_error(llm_keyfile_t *kf, char *err, const char *fmt, ...)
{
    int      n;
    va_list  args;

    n = snprintf(err, LLM_KEYFILE_ERR, "line %u: ", kf->line);

    va_start(args, fmt);
    vsnprintf(err + n, LLM_KEYFILE_ERR - n, fmt, args);
    va_end(args);

    return -1;
}
