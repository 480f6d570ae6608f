/*
 * GGUF reader: maps a file and makes two sorted tables, keys and tensors.
 *
 *      "GGUF" | version u32 | tensors u64 | pairs u64
 *      pairs:    key string | type u32 | value
 *      tensors:  name string | dims u32 | dim u64 ... | type u32 | offset u64
 *      padding to the alignment
 *      data:     at data + offset, each offset a multiple of the alignment
 *
 * A string is a length (u64) and bytes; an array is a type (u32), a count
 * (u64) and its elements.
 *
 * DESIGN.  The file is input: its author may be hostile.  Opening walks it
 * once with one cursor that compares every length with what is left of the
 * file, before it is used or added to anything.  What the walk has passed is
 * what the accessors may rely on; they check nothing again.  Counts are held
 * against the file's size and a cap before memory is allocated for them, so
 * the tables cost a few MiB at worst.  Arrays of arrays are refused: no model
 * has them, and so there is no recursion.
 *
 * Numbers are read by memcpy because nothing in the header is aligned.  The
 * format is little-endian, and so must the machine be.
 *
 * The mapping and the tables belong to the gguf_t; strings, arrays and
 * tensors are borrowed from it.  Read-only after opening: any thread may look.
 * The file must not shrink while it is mapped (the kernel would send SIGBUS).
 */
#include "gguf.h"
#include "gguf_file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF byte order");

/* Far above any real model, far below what would hurt. */
#define PAIRS_MAX 65536
#define KEY_MAX   65535 /* of keys, by the format */
#define TNAME_MAX 255   /* of tensors: the format says 64 */
#define ALIGN_MAX 65536

#define HEADER_SIZE 24 /* magic to counts */
#define PAIR_MIN    14 /* key 9, type 4, value 1 */
#define TENSOR_MIN  41 /* name 9, dims 4, a dim 8, type 4, offset 8, data 8 */

/* Bytes of a value; strings and arrays have none of their own. */
static const uint8_t value_size[GGUF_TYPES] = {
    [GGUF_U8] = 1,
    [GGUF_I8] = 1,
    [GGUF_U16] = 2,
    [GGUF_I16] = 2,
    [GGUF_U32] = 4,
    [GGUF_I32] = 4,
    [GGUF_F32] = 4,
    [GGUF_BOOL] = 1,
    [GGUF_U64] = 8,
    [GGUF_I64] = 8,
    [GGUF_F64] = 8,
};

/*
 * Small, because a file may be little else than pairs.  An array's type and
 * count are the twelve bytes before its elements.
 */
struct gguf_pair_s {
    const char *key;
    const uint8_t *value; /* a scalar's, a string's, an array's own bytes */
    uint64_t size : 44;   /* of them */
    uint64_t key_len : 16;
    uint64_t type : 4;
};

#define LEN_MAX  (1ull << 44)
#define ARR_HEAD 12

_Static_assert(sizeof(gguf_pair_t) < 2 * PAIR_MIN, "twice the file's bytes");
_Static_assert(KEY_MAX < 1 << 16 && GGUF_TYPES <= 1 << 4, "fields of a pair");

/* Where the walk is; err is set when a function of it fails. */
typedef struct {
    const gguf_t *g;
    size_t at;
    char *err;
    size_t errlen;
} cursor_t;

/* "PATH: sentence"; returns 0, which means failure everywhere here. */
__attribute__((format(printf, 2, 3))) static int
fail(cursor_t *c, const char *fmt, ...)
{
    int n;
    va_list ap;

    n = snprintf(c->err, c->errlen, "%s: ", c->g->name);

    if (n >= 0 && (size_t) n < c->errlen) {
        va_start(ap, fmt);
        vsnprintf(c->err + n, c->errlen - (size_t) n, fmt, ap);
        va_end(ap);
    }

    return 0;
}

/* Moves over n bytes. 1, or 0 when the file has fewer left. */
static int
skip(cursor_t *c, uint64_t n, const char *what)
{
    assert(c->at <= c->g->len);

    if (n > c->g->len - c->at) {
        return fail(c, "%s at byte %zu: expected %llu bytes, found %zu", what,
            c->at, (unsigned long long) n, c->g->len - c->at);
    }

    c->at += n;
    return 1;
}

static int
take(cursor_t *c, void *v, size_t n, const char *what)
{
    const uint8_t *p = c->g->p + c->at;

    if (!skip(c, n, what)) {
        return 0;
    }

    memcpy(v, p, n);
    return 1;
}

static int
take_u32(cursor_t *c, uint32_t *v, const char *what)
{
    return take(c, v, sizeof(*v), what);
}

static int
take_u64(cursor_t *c, uint64_t *v, const char *what)
{
    return take(c, v, sizeof(*v), what);
}

static int
take_str(cursor_t *c, gguf_str_t *v, const char *what)
{
    uint64_t n;

    if (!take_u64(c, &n, what)) {
        return 0;
    }

    v->s = (const char *) c->g->p + c->at;

    if (!skip(c, n, what)) {
        return 0;
    }

    v->len = (size_t) n;
    return 1;
}

/* A key or a tensor's name: not empty, not absurd, no 0 byte in it. */
static int
take_name(cursor_t *c, gguf_str_t *v, size_t max, const char *what)
{
    size_t at = c->at;

    if (!take_str(c, v, what)) {
        return 0;
    }

    if (v->len == 0 || v->len > max) {
        return fail(c, "%s at byte %zu: expected 1 to %zu bytes, found %zu",
            what, at, max, v->len);
    }

    if (memchr(v->s, 0, v->len) != NULL) {
        return fail(
            c, "%s at byte %zu: expected text, found a 0 byte in it", what, at);
    }

    return 1;
}

static int
take_arr(cursor_t *c, gguf_str_t key, gguf_arr_t *a)
{
    uint64_t i;
    gguf_str_t s;

    if (!take_u32(c, &a->type, "array's type")
        || !take_u64(c, &a->n, "array's count")) {
        return 0;
    }

    if (a->type >= GGUF_TYPES || a->type == GGUF_ARR) {
        return fail(c,
            "array \"%s\": expected elements of a plain type, "
            "found type %u",
            tensor_shown(key).s, a->type);
    }

    a->data = c->g->p + c->at;

    if (a->type == GGUF_STR) {
        /* every string takes 8 bytes at least, so the file ends the loop */
        for (i = 0; i < a->n; i++) {
            if (!take_str(c, &s, "string of an array")) {
                return 0;
            }
        }
    } else {
        if (a->n > UINT64_MAX / 8
            || !skip(c, a->n * value_size[a->type], "array's elements")) {
            return fail(c,
                "array \"%s\": expected %llu elements, but the file ends "
                "before them",
                tensor_shown(key).s, (unsigned long long) a->n);
        }
    }

    assert(c->g->p + c->at >= a->data);
    a->size = (uint64_t) (c->g->p + c->at - a->data);
    return 1;
}

static int
take_pair(cursor_t *c, gguf_pair_t *pair)
{
    int ok;
    uint32_t type;
    gguf_str_t key, str;
    gguf_arr_t a;

    if (!take_name(c, &key, KEY_MAX, "key")
        || !take_u32(c, &type, "value's type")) {
        return 0;
    }

    if (type >= GGUF_TYPES) {
        return fail(c, "key \"%s\": expected a type below %d, found %u",
            tensor_shown(key).s, GGUF_TYPES, type);
    }

    if (type == GGUF_STR) {
        ok = take_str(c, &str, "string value");
        a.data = (const uint8_t *) str.s;
        a.size = str.len;
    } else if (type == GGUF_ARR) {
        ok = take_arr(c, key, &a);
    } else {
        a.data = c->g->p + c->at;
        a.size = value_size[type];
        ok = skip(c, a.size, "value");
    }

    if (!ok) {
        return 0;
    }

    assert(a.size < LEN_MAX && key.len <= KEY_MAX);
    pair->key = key.s;
    pair->key_len = key.len & KEY_MAX;
    pair->type = type & 15;
    pair->value = a.data;
    pair->size = a.size & (LEN_MAX - 1);
    return 1;
}

static gguf_str_t
key_of(const gguf_pair_t *pair)
{
    gguf_str_t key = {pair->key, pair->key_len};

    return key;
}

static int
by_str(gguf_str_t a, gguf_str_t b)
{
    int r;

    r = memcmp(a.s, b.s, a.len < b.len ? a.len : b.len);
    return r != 0 ? r : (a.len > b.len) - (a.len < b.len);
}

static int
by_key(const void *a, const void *b)
{
    return by_str(key_of(a), key_of(b));
}

static int
by_place(const void *a, const void *b)
{
    const tensor_t *x = a, *y = b;

    return (x->data > y->data) - (x->data < y->data);
}

/* All pairs, sorted; then the alignment that one of them may give. */
static int
read_pairs(cursor_t *c, gguf_t *g)
{
    uint32_t i, align;

    for (i = 0; i < g->pairs_n; i++) {
        if (!take_pair(c, &g->pairs[i])) {
            return 0;
        }
    }

    qsort(g->pairs, g->pairs_n, sizeof(gguf_pair_t), by_key);

    for (i = 1; i < g->pairs_n; i++) {
        if (by_key(&g->pairs[i - 1], &g->pairs[i]) == 0) {
            return fail(c, "key \"%s\": expected once, found twice",
                tensor_shown(key_of(&g->pairs[i])).s);
        }
    }

    g->align = 32;

    if (gguf_u32(g, "general.alignment", &align)) {
        if (align < 8 || align > ALIGN_MAX || (align & (align - 1)) != 0) {
            return fail(c,
                "general.alignment: expected a power of two from 8 to %d, "
                "found %u",
                ALIGN_MAX, align);
        }

        g->align = align;
    }

    return 1;
}

/*
 * One tensor's row of the table.  Where its data lies is not known before the
 * table's end: offset goes to *offset.
 */
static int
take_tensor(cursor_t *c, tensor_t *t, uint64_t *offset)
{
    uint32_t i;
    uint64_t elems;

    if (!take_name(c, &t->name, TNAME_MAX, "tensor's name")
        || !take_u32(c, &t->dims_n, "tensor's dimensions")) {
        return 0;
    }

    if (t->dims_n < 1 || t->dims_n > TENSOR_DIMS_MAX) {
        return fail(c, "tensor \"%s\": expected 1 to %d dimensions, found %u",
            tensor_shown(t->name).s, TENSOR_DIMS_MAX, t->dims_n);
    }

    elems = 1;

    for (i = 0; i < TENSOR_DIMS_MAX; i++) {
        t->dims[i] = 1;

        if (i < t->dims_n && !take_u64(c, &t->dims[i], "tensor's dimension")) {
            return 0;
        }

        if (t->dims[i] == 0 || t->dims[i] > INT64_MAX
            || __builtin_mul_overflow(elems, t->dims[i], &elems)) {
            return fail(c,
                "tensor \"%s\": expected a size that can be, "
                "found dimension %u to be %llu",
                tensor_shown(t->name).s, i, (unsigned long long) t->dims[i]);
        }
    }

    if (!take_u32(c, &t->type, "tensor's type")
        || !take_u64(c, offset, "tensor's offset")) {
        return 0;
    }

    if (t->type >= TENSOR_OWN || tensor_type_name(t->type) == NULL) {
        return fail(c, "tensor \"%s\": expected a known type, found type %u",
            tensor_shown(t->name).s, t->type);
    }

    if (t->dims[0] % tensor_block_elems(t->type) != 0) {
        return fail(c,
            "tensor \"%s\": expected rows of a multiple of %u elements "
            "for %s, found %llu",
            tensor_shown(t->name).s, tensor_block_elems(t->type),
            tensor_type_name(t->type), (unsigned long long) t->dims[0]);
    }

    if (!tensor_set_size(t)) {
        return fail(c,
            "tensor \"%s\": expected a size that can be, found %llu elements",
            tensor_shown(t->name).s, (unsigned long long) elems);
    }

    return 1;
}

/* Puts t at offset of the data section, which begins at byte start. */
static int
place_tensor(cursor_t *c, tensor_t *t, uint64_t start, uint64_t offset)
{
    const gguf_t *g = c->g;
    uint64_t room;

    if (offset % g->align != 0) {
        return fail(c,
            "tensor \"%s\": expected an offset that is a multiple of %llu, "
            "found %llu",
            tensor_shown(t->name).s, (unsigned long long) g->align,
            (unsigned long long) offset);
    }

    room = start <= g->len ? g->len - start : 0;

    if (offset > room || t->size > room - offset) {
        return fail(c,
            "tensor \"%s\": expected %llu bytes at offset %llu, "
            "found %llu bytes of data in the file",
            tensor_shown(t->name).s, (unsigned long long) t->size,
            (unsigned long long) offset, (unsigned long long) room);
    }

    t->data = g->p + start + offset;
    assert(t->data + t->size <= g->p + g->len);
    return 1;
}

/* By name, and each name once. */
static int
sort_names(cursor_t *c, gguf_t *g)
{
    uint32_t i;
    tensor_t *t = g->tensors;

    assert(g->tensors_n <= GGUF_TENSORS_MAX);
    qsort(t, g->tensors_n, sizeof(*t), tensor_by_name);

    for (i = 1; i < g->tensors_n; i++) {
        if (tensor_by_name(&t[i - 1], &t[i]) == 0) {
            return fail(c, "tensor \"%s\": expected once, found twice",
                tensor_shown(t[i].name).s);
        }
    }

    return 1;
}

int
gguf_file_sort(gguf_t *g, char *err, size_t errlen)
{
    cursor_t c = {.g = g, .err = err, .errlen = errlen};

    return sort_names(&c, g);
}

/* Sorts the tensors and refuses doubles and overlaps. */
static int
sort_tensors(cursor_t *c, gguf_t *g)
{
    uint32_t i;
    tensor_t *t = g->tensors;

    qsort(t, g->tensors_n, sizeof(*t), by_place);

    for (i = 1; i < g->tensors_n; i++) {
        if (t[i - 1].data + t[i - 1].size > t[i].data) {
            return fail(c,
                "tensor \"%s\": expected bytes of its own, "
                "found them shared with \"%s\"",
                tensor_shown(t[i].name).s, tensor_shown(t[i - 1].name).s);
        }
    }

    return sort_names(c, g);
}

static int
read_tensors(cursor_t *c, gguf_t *g)
{
    int ok = 0;
    uint32_t i;
    uint64_t start, *offsets;

    offsets = calloc(g->tensors_n + 1, sizeof(*offsets));

    if (offsets == NULL) {
        return fail(c, "tensor table: not enough memory");
    }

    for (i = 0; i < g->tensors_n; i++) {
        if (!take_tensor(c, &g->tensors[i], &offsets[i])) {
            goto done;
        }
    }

    start = (c->at + g->align - 1) & ~(g->align - 1);

    for (i = 0; i < g->tensors_n; i++) {
        if (!place_tensor(c, &g->tensors[i], start, offsets[i])) {
            goto done;
        }
    }

    ok = sort_tensors(c, g);

done:

    free(offsets);
    return ok;
}

/* Holds a count against its cap and against what is left of the file. */
static int
count_fits(
    cursor_t *c, uint64_t n, uint64_t max, uint64_t least, const char *what)
{
    if (n > max) {
        return fail(c, "count of %s: expected at most %llu, found %llu", what,
            (unsigned long long) max, (unsigned long long) n);
    }

    if (n > 0 && (n - 1) * least >= c->g->len - c->at) {
        return fail(c,
            "count of %s: expected as many as %zu bytes can hold, found %llu",
            what, c->g->len - c->at, (unsigned long long) n);
    }

    return 1;
}

static int
read_header(cursor_t *c, gguf_t *g)
{
    uint32_t version;
    uint64_t tensors, pairs;

    if (g->len >= LEN_MAX) {
        return fail(c, "file: expected less than %llu bytes, found %zu",
            LEN_MAX, g->len);
    }

    if (g->len < HEADER_SIZE) {
        return fail(c, "header: expected at least %d bytes, found %zu",
            HEADER_SIZE, g->len);
    }

    if (memcmp(g->p, "GGUF", 4) != 0) {
        return fail(c,
            "magic: expected 47 47 55 46 (GGUF), found %02x %02x %02x %02x",
            g->p[0], g->p[1], g->p[2], g->p[3]);
    }

    c->at = 4;

    if (!take_u32(c, &version, "version")
        || !take_u64(c, &tensors, "count of tensors")
        || !take_u64(c, &pairs, "count of keys")) {
        return 0;
    }

    if (version != 2 && version != 3) {
        return fail(c, "version: expected 2 or 3, found %u%s", version,
            (version & 0xffff) == 0 && version != 0 ? " (a big-endian file?)"
                                                    : "");
    }

    if (!count_fits(c, tensors, GGUF_TENSORS_MAX, TENSOR_MIN, "tensors")
        || !count_fits(c, pairs, PAIRS_MAX, PAIR_MIN, "keys")) {
        return 0;
    }

    g->tensors_n = (uint32_t) tensors;
    g->pairs_n = (uint32_t) pairs;
    return 1;
}

/* Everything but the file itself. */
static int
read_all(gguf_t *g, char *err, size_t errlen)
{
    cursor_t c = {.g = g, .err = err, .errlen = errlen};

    if (!read_header(&c, g)) {
        return 0;
    }

    g->pairs = calloc(g->pairs_n + 1, sizeof(*g->pairs));
    g->tensors = calloc(g->tensors_n + 1, sizeof(*g->tensors));

    if (g->pairs == NULL || g->tensors == NULL) {
        return fail(&c, "tables: not enough memory");
    }

    return read_pairs(&c, g) && read_tensors(&c, g);
}

/* The mapping of path, whole. */
static int
map_file(gguf_t *g, const char *path, char *err, size_t errlen)
{
    int fd, ok = 0;
    void *p;
    struct stat st;
    cursor_t c = {.g = g, .err = err, .errlen = errlen};

    /* O_NONBLOCK: a FIFO must not stop us before it is seen to be one */
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0) {
        return fail(&c, "open: expected a readable file, found \"%s\"",
            strerror(errno));
    }

    if (fstat(fd, &st) != 0) {
        fail(&c, "stat: expected a file, found \"%s\"", strerror(errno));
        goto done;
    }

    if (!S_ISREG(st.st_mode)) {
        fail(&c, "file: expected a regular file, found %s",
            S_ISDIR(st.st_mode) ? "a directory" : "something else");
        goto done;
    }

    if (st.st_size < HEADER_SIZE) {
        fail(&c, "header: expected at least %d bytes, found %lld", HEADER_SIZE,
            (long long) st.st_size);
        goto done;
    }

    p = mmap(NULL, (size_t) st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);

    if (p == MAP_FAILED) {
        fail(&c, "mmap: expected %lld bytes, found \"%s\"",
            (long long) st.st_size, strerror(errno));
        goto done;
    }

    g->p = p;
    g->len = (size_t) st.st_size;
    g->mapped = 1;
    g->mtime = st.st_mtime > 0 ? (uint64_t) st.st_mtime : 0;
    ok = 1;

done:

    close(fd);
    return ok;
}

static gguf_t *
gguf_new(const char *name, char *err, size_t errlen)
{
    gguf_t *g;

    g = calloc(1, sizeof(*g));

    if (g != NULL) {
        g->name = strdup(name);
    }

    if (g == NULL || g->name == NULL) {
        snprintf(err, errlen, "%s: not enough memory", name);
        free(g);
        return NULL;
    }

    return g;
}

gguf_t *
gguf_file_open(const char *path, char *err, size_t errlen)
{
    gguf_t *g;

    assert(path != NULL && err != NULL && errlen > 0);

    g = gguf_new(path, err, errlen);

    if (g == NULL) {
        return NULL;
    }

    if (!map_file(g, path, err, errlen) || !read_all(g, err, errlen)) {
        gguf_close(g);
        return NULL;
    }

    return g;
}

/* Memory has no other files beside it. */
static int
is_whole(const gguf_t *g, char *err, size_t errlen)
{
    uint32_t n;
    cursor_t c = {.g = g, .err = err, .errlen = errlen};

    return !gguf_u32(g, "split.count", &n) || n <= 1
           || fail(&c,
               "key split.count: expected a whole model, found one of %u parts",
               n);
}

gguf_t *
gguf_open_mem(
    const uint8_t *p, size_t len, const char *name, char *err, size_t errlen)
{
    gguf_t *g;

    assert(err != NULL && errlen > 0 && (p != NULL || len == 0));

    g = gguf_new(name, err, errlen);

    if (g == NULL) {
        return NULL;
    }

    g->p = p;
    g->len = len;

    if (!read_all(g, err, errlen) || !is_whole(g, err, errlen)) {
        gguf_close(g);
        return NULL;
    }

    return g;
}

void
gguf_close(gguf_t *g)
{
    uint32_t i;

    if (g == NULL) {
        return;
    }

    for (i = 1; i < g->shards_n; i++) {
        gguf_close(g->shards[i]);
    }

    free(g->shards);

    if (g->mapped) {
        munmap((void *) (uintptr_t) g->p, g->len);
    }

    free(g->pairs);
    free(g->tensors);
    free(g->name);
    free(g);
}

const char *
gguf_name(const gguf_t *g)
{
    return g->name;
}

uint64_t
gguf_mtime(const gguf_t *g)
{
    return g->mtime;
}

static const gguf_pair_t *
find_pair(const gguf_t *g, const char *key)
{
    size_t len = strlen(key);
    gguf_pair_t want = {.key = key, .key_len = len & KEY_MAX};

    assert(len <= KEY_MAX);
    return bsearch(&want, g->pairs, g->pairs_n, sizeof(want), by_key);
}

static const gguf_pair_t *
find_typed(const gguf_t *g, const char *key, uint32_t type)
{
    const gguf_pair_t *pair = find_pair(g, key);

    return pair != NULL && pair->type == type ? pair : NULL;
}

int
gguf_has(const gguf_t *g, const char *key)
{
    return find_pair(g, key) != NULL;
}

/* An integer of any width at p: 0 unless it fits 32 unsigned bits. */
static int
read_u32(uint32_t type, const uint8_t *p, uint32_t *v)
{
    uint64_t u = 0;
    int64_t i;

    switch (type) {

    case GGUF_U8:
    case GGUF_U16:
    case GGUF_U32:
    case GGUF_U64:
        memcpy(&u, p, value_size[type]);
        break;

    case GGUF_I8:
        u = (uint64_t) (int64_t) (int8_t) p[0];
        break;

    case GGUF_I16:
        i = (int16_t) (p[0] | p[1] << 8);
        u = (uint64_t) i;
        break;

    case GGUF_I32:
        memcpy(&u, p, 4);
        u = (uint64_t) (int64_t) (int32_t) (uint32_t) u;
        break;

    case GGUF_I64:
        memcpy(&u, p, 8);
        break;

    default:
        return 0;
    }

    /* a negative number is a large one here */
    if (u > UINT32_MAX) {
        return 0;
    }

    *v = (uint32_t) u;
    return 1;
}

static int
read_f32(uint32_t type, const uint8_t *p, float *v)
{
    double d;

    if (type == GGUF_F32) {
        memcpy(v, p, sizeof(*v));
        return 1;
    }

    if (type == GGUF_F64) {
        memcpy(&d, p, sizeof(d));

        /* a finite number that no float can hold does not fit */
        if (isfinite(d) && fabs(d) > (double) 3.4028234e38f) {
            return 0;
        }

        *v = (float) d;
        return 1;
    }

    return 0;
}

int
gguf_u32(const gguf_t *g, const char *key, uint32_t *v)
{
    const gguf_pair_t *pair = find_pair(g, key);

    return pair != NULL && read_u32(pair->type, pair->value, v);
}

int
gguf_f32(const gguf_t *g, const char *key, float *v)
{
    const gguf_pair_t *pair = find_pair(g, key);

    return pair != NULL && read_f32(pair->type, pair->value, v);
}

int
gguf_bool(const gguf_t *g, const char *key, int *v)
{
    const gguf_pair_t *pair = find_typed(g, key, GGUF_BOOL);

    if (pair != NULL) {
        *v = pair->value[0] != 0;
    }

    return pair != NULL;
}

int
gguf_str(const gguf_t *g, const char *key, gguf_str_t *v)
{
    const gguf_pair_t *pair = find_typed(g, key, GGUF_STR);

    if (pair != NULL) {
        v->s = (const char *) pair->value;
        v->len = pair->size;
    }

    return pair != NULL;
}

int
gguf_arr(const gguf_t *g, const char *key, gguf_arr_t *v)
{
    const gguf_pair_t *pair = find_typed(g, key, GGUF_ARR);

    if (pair != NULL) {
        memcpy(&v->type, pair->value - ARR_HEAD, sizeof(v->type));
        memcpy(&v->n, pair->value - ARR_HEAD + 4, sizeof(v->n));
        v->data = pair->value;
        v->size = pair->size;
    }

    return pair != NULL;
}

int
gguf_arr_u32(const gguf_arr_t *a, uint64_t i, uint32_t *v)
{
    assert(a->type < GGUF_TYPES);

    return i < a->n && read_u32(a->type, a->data + i * value_size[a->type], v);
}

int
gguf_arr_f32(const gguf_arr_t *a, uint64_t i, float *v)
{
    assert(a->type < GGUF_TYPES);

    return i < a->n && read_f32(a->type, a->data + i * value_size[a->type], v);
}

int
gguf_arr_str(const gguf_arr_t *a, uint64_t *at, gguf_str_t *v)
{
    uint64_t n;

    if (a->type != GGUF_STR || *at >= a->size) {
        return 0;
    }

    /* the walk at opening has passed here */
    assert(a->size - *at >= sizeof(n));
    memcpy(&n, a->data + *at, sizeof(n));
    assert(n <= a->size - *at - sizeof(n));

    v->s = (const char *) a->data + *at + sizeof(n);
    v->len = (size_t) n;
    *at += sizeof(n) + n;
    return 1;
}

uint32_t
gguf_tensors_n(const gguf_t *g)
{
    return g->tensors_n;
}

const tensor_t *
gguf_tensor_at(const gguf_t *g, uint32_t i)
{
    assert(i < g->tensors_n);
    return &g->tensors[i];
}

const tensor_t *
gguf_tensor(const gguf_t *g, const char *name)
{
    return tensor_find(g->tensors, g->tensors_n, name);
}
