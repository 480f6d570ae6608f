/*
 * safetensors reader: maps files and makes one sorted table of their tensors.
 *
 *      length of the header, u64 | header, a JSON object | data
 *
 *      header:  {"NAME": {"dtype": "F32", "shape": [rows, columns],
 *                         "data_offsets": [begin, end]}, ...,
 *                "__metadata__": {"text": "text", ...}}
 *
 * The offsets count from the data's first byte; together they cover the data
 * without overlap and without gap.
 *
 * DESIGN.  The file is input: its author may be hostile.  The header is cut
 * into its members (json_cut.h) and jansson reads one small piece at a time,
 * so that the table is all the memory a header can cost: less than twice its
 * own size, however it is written.  What is odd but harmless is let pass
 * (unknown fields, tensors of types that nobody computes with: who needs such
 * a one refuses it by name); names with escapes are refused, since every name
 * in use is plain, and so names are borrowed from the mapping.
 *
 * A checkpoint of several files has an index, {"weight_map": {"NAME": "FILE"}}.
 * It must agree with the files in both directions: a tensor that is in another
 * file than the index says, or in two, or in none, belongs to a download that
 * was mixed up or cut short.
 *
 * Numbers are little-endian, and so must the machine be.  Data is not aligned:
 * old files have headers of any length.
 *
 * The mappings and the tables belong to the safetensors_t; tensors and their
 * names are borrowed from it.  Read-only after opening: any thread may look.
 * The files must not shrink while they are mapped (SIGBUS).
 */
#include "safetensors.h"
#include "json_cut.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(
    __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "safetensors byte order");

/* Far above any real checkpoint, far below what would hurt. */
#define HEADER_MAX  (100u << 20) /* the format's own limit */
#define TENSORS_MAX (1u << 20)
#define ENTRY_MAX   4096u /* a tensor's member of the header */
#define ENTRY_MIN   48u /* "a":{"dtype":"U8","shape":[],"data_offsets":[0,0]} */
#define TNAME_MAX   1024u
#define FILES_MAX   4096u
#define FNAME_MAX   255u

#define SINGLE "model.safetensors"
#define INDEX  "model.safetensors.index.json"

typedef struct {
    char *path;       /* owned */
    const uint8_t *p; /* [len] */
    size_t len;
    int mapped;        /* p is a mapping of ours */
    tensor_t *tensors; /* [n] by name, owned */
    uint32_t n;
} file_t;

struct safetensors_s {
    char *name;    /* owned */
    file_t *files; /* [files_n] owned */
    uint32_t files_n;
    tensor_t
        *tensors; /* [n] of all files, owned; the file's own if it is one */
    uint32_t n;
};

/* Where to write a sentence, and which file it is about. */
typedef struct {
    const char *file;
    char *err;
    size_t errlen;
} told_t;

/* "PATH: sentence"; returns 0, which means failure everywhere here. */
__attribute__((format(printf, 2, 3))) static int
fail(const told_t *o, const char *fmt, ...)
{
    int n;
    va_list ap;

    n = snprintf(o->err, o->errlen, "%s: ", o->file);

    if (n >= 0 && (size_t) n < o->errlen) {
        va_start(ap, fmt);
        vsnprintf(o->err + n, o->errlen - (size_t) n, fmt, ap);
        va_end(ap);
    }

    return 0;
}

static tensor_shown_t
shown(json_cut_piece_t name)
{
    tensor_name_t n = {name.s, name.len};

    return tensor_shown(n);
}


/* --- one tensor --------------------------------------------------------- */

/* A member's name: neither empty nor absurd, and plain. */
static int
check_name(const told_t *o, json_cut_piece_t name)
{
    size_t i;

    assert(name.s != NULL && name.s[name.len] == '"');

    if (name.len < 1 || name.len > TNAME_MAX) {
        return fail(o, "tensor's name: expected 1 to %u bytes, found %zu",
            TNAME_MAX, name.len);
    }

    for (i = 0; i < name.len; i++) {
        if (name.s[i] == '\\' || (unsigned char) name.s[i] < ' ') {
            return fail(o,
                "tensor \"%s\": expected a plain name, found an escape or "
                "a control character in it",
                shown(name).s);
        }
    }

    return 1;
}

/* The type that a file calls so; types with blocks are GGUF's alone. */
static int
take_type(const told_t *o, const json_t *dtype, tensor_t *t)
{
    int type = -1;
    const char *s = json_string_value(dtype);

    if (s != NULL) {
        type = tensor_type_find(s, json_string_length(dtype));
    }

    if (type >= 0 && type < TENSOR_OWN
        && tensor_block_elems((uint32_t) type) != 1) {
        type = -1;
    }

    if (type < 0) {
        return fail(o, "tensor \"%s\": expected a known dtype, found %.32s",
            tensor_shown(t->name).s, s != NULL ? s : "something else");
    }

    assert(tensor_type_name((uint32_t) type) != NULL);
    t->type = (uint32_t) type;
    return 1;
}

/* Dimensions from the row's length up, the other way round than the file's. */
static int
take_shape(const told_t *o, const json_t *shape, tensor_t *t)
{
    size_t i, n = json_array_size(shape);
    const json_t *v;

    if (!json_is_array(shape) || n > TENSOR_DIMS_MAX) {
        return fail(o,
            "tensor \"%s\": expected a shape of at most %d numbers, found %s",
            tensor_shown(t->name).s, TENSOR_DIMS_MAX,
            json_is_array(shape) ? "more" : "something else");
    }

    t->dims_n = (uint32_t) n;

    for (i = 0; i < TENSOR_DIMS_MAX; i++) {
        t->dims[i] = 1;

        if (i >= n) {
            continue;
        }

        v = json_array_get(shape, n - 1 - i);

        if (!json_is_integer(v) || json_integer_value(v) < 0) {
            return fail(o,
                "tensor \"%s\": expected a shape of whole numbers, "
                "found something else",
                tensor_shown(t->name).s);
        }

        t->dims[i] = (uint64_t) json_integer_value(v);
    }

    if (!tensor_set_size(t)) {
        return fail(o,
            "tensor \"%s\": expected a size that can be, found another shape",
            tensor_shown(t->name).s);
    }

    return 1;
}

/* Where a tensor's bytes lie: inside the file, and as many as its shape
 * says. */
static int
take_offsets(const told_t *o, const file_t *f, uint64_t start,
    const json_t *offsets, tensor_t *t)
{
    uint64_t begin, end, room = f->len - start;
    const json_t *b = json_array_get(offsets, 0);
    const json_t *e = json_array_get(offsets, 1);

    assert(start <= f->len);

    if (json_array_size(offsets) != 2 || !json_is_integer(b)
        || !json_is_integer(e) || json_integer_value(b) < 0
        || json_integer_value(e) < 0) {
        return fail(o,
            "tensor \"%s\": expected data_offsets of two whole numbers, "
            "found something else",
            tensor_shown(t->name).s);
    }

    begin = (uint64_t) json_integer_value(b);
    end = (uint64_t) json_integer_value(e);

    if (end < begin || end - begin != t->size) {
        return fail(o,
            "tensor \"%s\": expected %llu bytes for its shape, found offsets "
            "%llu to %llu",
            tensor_shown(t->name).s, (unsigned long long) t->size,
            (unsigned long long) begin, (unsigned long long) end);
    }

    if (end > room) {
        return fail(o,
            "tensor \"%s\": expected it to end within the file's %llu bytes "
            "of data, found byte %llu",
            tensor_shown(t->name).s, (unsigned long long) room,
            (unsigned long long) end);
    }

    t->data = f->p + start + begin;
    assert(t->data + t->size <= f->p + f->len);
    return 1;
}

/* Reads a tensor from its member of the header. */
static int
take_tensor(const told_t *o, const file_t *f, uint64_t start,
    json_cut_piece_t name, json_cut_piece_t value, tensor_t *t)
{
    int ok;
    json_t *j;

    if (!check_name(o, name)) {
        return 0;
    }

    t->name.s = name.s;
    t->name.len = name.len;
    j = value.len > ENTRY_MAX
            ? NULL
            : json_loadb(value.s, value.len, JSON_REJECT_DUPLICATES, NULL);

    if (!json_is_object(j)) {
        json_decref(j);
        return fail(o,
            "tensor \"%s\": expected an object of at most %u bytes, "
            "found something else",
            tensor_shown(t->name).s, ENTRY_MAX);
    }

    assert(value.len <= ENTRY_MAX && t->data == NULL);
    ok = take_type(o, json_object_get(j, "dtype"), t)
         && take_shape(o, json_object_get(j, "shape"), t)
         && take_offsets(o, f, start, json_object_get(j, "data_offsets"), t);
    json_decref(j);
    return ok;
}


/* --- one file ----------------------------------------------------------- */

/* What is beside the tensors is text and means nothing to us. */
static int
check_metadata(const told_t *o, json_cut_piece_t object)
{
    int r, text;
    json_t *j;
    json_cut_t c;
    json_cut_piece_t key, value;

    r = json_cut_open(&c, object.s, object.len) ? 1 : -1;

    while (r > 0 && (r = json_cut_next(&c, &key, &value)) > 0) {
        j = json_loadb(value.s, value.len, JSON_DECODE_ANY, NULL);
        text = value.s[0] == '"' && json_is_string(j);
        json_decref(j);
        r = text ? 1 : -1;
    }

    return (r == 0 && json_cut_done(&c))
           || fail(o,
               "__metadata__: expected an object of texts, found something "
               "else");
}

static int
by_place(const void *a, const void *b)
{
    const tensor_t *x = a, *y = b;

    if (x->data != y->data) {
        return x->data > y->data ? 1 : -1;
    }

    return (x->size > y->size) - (x->size < y->size);
}

/* The tensors cover the data, each byte once; then they are put in order. */
static int
check_places(const told_t *o, file_t *f, uint64_t start)
{
    uint32_t i;
    const tensor_t *t;
    const uint8_t *at = f->p + start;

    qsort(f->tensors, f->n, sizeof(*f->tensors), by_place);

    for (i = 0; i < f->n; i++) {
        t = &f->tensors[i];

        if (t->data != at) {
            return fail(o,
                "tensor \"%s\": expected offset %llu, where the one before "
                "it ends, found %llu",
                tensor_shown(t->name).s,
                (unsigned long long) (at - f->p - start),
                (unsigned long long) (t->data - f->p - start));
        }

        at += t->size;
        assert(at <= f->p + f->len);
    }

    if (at != f->p + f->len) {
        return fail(o,
            "data: expected %llu bytes, as the tensors are, found %llu",
            (unsigned long long) (at - f->p - start),
            (unsigned long long) (f->len - start));
    }

    qsort(f->tensors, f->n, sizeof(*f->tensors), tensor_by_name);

    for (i = 1; i < f->n; i++) {
        if (tensor_by_name(&f->tensors[i - 1], &f->tensors[i]) == 0) {
            return fail(o, "tensor \"%s\": expected once, found twice",
                tensor_shown(f->tensors[i].name).s);
        }
    }

    return 1;
}

/*
 * Room for as many tensors as the header has members, counted before they are
 * read: so that the table is exact, and no larger than twice the header that
 * it is made from.
 */
static int
make_room(const told_t *o, file_t *f, json_cut_t c, uint64_t len)
{
    uint64_t n = 0;
    json_cut_piece_t key, value;

    while (json_cut_next(&c, &key, &value) > 0) {
        n++;
    }

    if (n > TENSORS_MAX || (n > 1 && (n - 1) * ENTRY_MIN > len)) {
        return fail(o,
            "header: expected at most %u tensors and as many as its %llu bytes "
            "can describe, found %llu",
            TENSORS_MAX, (unsigned long long) len, (unsigned long long) n);
    }

    _Static_assert(sizeof(*f->tensors) <= 2 * ENTRY_MIN, "see above");
    f->tensors = malloc((n + 1) * sizeof(*f->tensors));

    return f->tensors != NULL || fail(o, "table: not enough memory");
}

/* The header's length, then its JSON, one tensor at a time: a tree of it all
 * would be many times the file. */
static int
read_header(const told_t *o, file_t *f, uint64_t *start)
{
    int r;
    uint64_t n;
    json_cut_t c;
    json_cut_piece_t key, value;

    if (f->len < sizeof(n)) {
        return fail(o, "header: expected at least 8 bytes, found %zu", f->len);
    }

    memcpy(&n, f->p, sizeof(n));

    if (n < 2 || n > HEADER_MAX || n > f->len - sizeof(n)) {
        return fail(o,
            "header: expected a length from 2 to %u and within the file's "
            "%zu bytes, found %llu",
            HEADER_MAX, f->len, (unsigned long long) n);
    }

    *start = sizeof(n) + n;
    assert(*start <= f->len);

    if (!json_cut_open(&c, (const char *) f->p + sizeof(n), n)) {
        return fail(o, "header: expected a JSON object, found something else");
    }

    if (!make_room(o, f, c, n)) {
        return 0;
    }

    while ((r = json_cut_next(&c, &key, &value)) > 0) {
        if (key.len == 12 && memcmp(key.s, "__metadata__", 12) == 0) {
            if (!check_metadata(o, value)) {
                return 0;
            }
            continue;
        }

        memset(&f->tensors[f->n], 0, sizeof(*f->tensors));

        if (!take_tensor(o, f, *start, key, value, &f->tensors[f->n])) {
            return 0;
        }

        f->n++;
    }

    if (r < 0 || !json_cut_done(&c)) {
        return fail(o, "header: expected a JSON object, found broken text");
    }

    return 1;
}

static int
read_file(const told_t *o, file_t *f)
{
    uint64_t start = 0;

    assert(f->tensors == NULL && f->n == 0);
    return read_header(o, f, &start) && check_places(o, f, start);
}

/* The mapping of path, whole; *p is NULL for an empty file. */
static int
map_file(const told_t *o, const char *path, const uint8_t **p, size_t *len)
{
    int fd, ok = 0;
    void *map;
    struct stat st;

    assert(path != NULL && path[0] != '\0');
    *p = NULL;
    *len = 0;

    /* O_NONBLOCK: a FIFO must not stop us before it is seen to be one */
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0) {
        return fail(
            o, "open: expected a readable file, found \"%s\"", strerror(errno));
    }

    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        fail(o, "file: expected a regular file, found something else");
        goto done;
    }

    if (st.st_size == 0) {
        ok = 1;
        goto done;
    }

    map = mmap(NULL, (size_t) st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);

    if (map == MAP_FAILED) {
        fail(o, "mmap: expected %lld bytes, found \"%s\"",
            (long long) st.st_size, strerror(errno));
        goto done;
    }

    *p = map;
    *len = (size_t) st.st_size;
    ok = 1;

done:

    close(fd);
    return ok;
}

/* Adds the file at path, and reads it. */
static int
add_file(safetensors_t *s, const char *path, char *err, size_t errlen)
{
    file_t *f = &s->files[s->files_n];
    told_t o = {path, err, errlen};

    assert(s->files_n < FILES_MAX && strchr(path, '/') != NULL);
    memset(f, 0, sizeof(*f));
    f->path = strdup(path);

    if (f->path == NULL) {
        return fail(&o, "path: not enough memory");
    }

    s->files_n++;
    f->mapped = 1;
    return map_file(&o, path, &f->p, &f->len) && read_file(&o, f);
}


/* --- several files ------------------------------------------------------ */

/* "DIR/NAME", owned by the caller */
static char *
join(const char *dir, const char *name, size_t len)
{
    char *path;

    return asprintf(&path, "%s/%.*s", dir, (int) len, name) < 0 ? NULL : path;
}

/* A file's name as the index may have it: of the same directory. */
static int
check_file_name(const told_t *o, json_cut_piece_t v)
{
    size_t i;
    static const char tail[] = ".safetensors";
    const size_t n = sizeof(tail) - 1;

    assert(v.s != NULL);

    /* with its quotes */
    if (v.len >= n + 3 && v.len <= FNAME_MAX + 2 && v.s[0] == '"'
        && v.s[1] != '.' && v.s[v.len - 1] == '"'
        && memcmp(v.s + v.len - 1 - n, tail, n) == 0) {
        for (i = 1; i < v.len - 1; i++) {
            if (v.s[i] == '/' || v.s[i] == '\\' || v.s[i] == '"'
                || (unsigned char) v.s[i] < ' ') {
                break;
            }
        }

        if (i == v.len - 1) {
            return 1;
        }
    }

    return fail(o,
        "weight_map: expected names of .safetensors files in the same "
        "directory, found %s",
        shown(v).s);
}

/* The file called so, opened if it is new; NULL with a sentence. */
static const file_t *
find_file(safetensors_t *s, const told_t *o, const char *dir,
    json_cut_piece_t name, file_t **last)
{
    uint32_t i;
    char *path;
    const char *base;
    int ok;

    for (i = 0; i <= s->files_n; i++) {
        /* neighbours in the index are mostly in one file */
        file_t *f = i == 0 ? *last : &s->files[i - 1];

        if (f == NULL) {
            continue;
        }

        base = strrchr(f->path, '/') + 1;
        assert(f->mapped);

        if (strlen(base) == name.len && memcmp(base, name.s, name.len) == 0) {
            *last = f;
            return f;
        }
    }

    if (s->files_n == FILES_MAX) {
        fail(o, "weight_map: expected at most %u files, found more", FILES_MAX);
        return NULL;
    }

    path = join(dir, name.s, name.len);

    if (path == NULL) {
        fail(o, "weight_map: not enough memory");
        return NULL;
    }

    ok = add_file(s, path, o->err, o->errlen);
    free(path);
    *last = ok ? &s->files[s->files_n - 1] : NULL;
    return *last;
}

/* The tensor is in the file that the index says; how many is it for that. */
static int
check_entry(
    safetensors_t *s, const told_t *o, const file_t *f, json_cut_piece_t name)
{
    uint32_t i;
    const char *where = "no file of it";
    tensor_t want = {.name = {name.s, name.len}};

    assert(f >= s->files && f < s->files + s->files_n);

    if (f->n > 0
        && bsearch(&want, f->tensors, f->n, sizeof(want), tensor_by_name)
               != NULL) {
        return 1;
    }

    for (i = 0; i < s->files_n; i++) {
        if (s->files[i].n > 0
            && bsearch(&want, s->files[i].tensors, s->files[i].n, sizeof(want),
                   tensor_by_name)
                   != NULL) {
            where = strrchr(s->files[i].path, '/') + 1;
        }
    }

    return fail(o, "tensor \"%s\": expected in %s, found in %s", shown(name).s,
        strrchr(f->path, '/') + 1, where);
}

/* Opens all files that the weight map names; *n counts its members. */
static int
read_map(safetensors_t *s, const told_t *o, const char *dir,
    json_cut_piece_t map, uint64_t *n)
{
    int r;
    json_cut_t c;
    file_t *last = NULL;
    const file_t *f;
    json_cut_piece_t key, value;

    if (!json_cut_open(&c, map.s, map.len)) {
        return fail(o, "weight_map: expected an object, found something else");
    }

    while ((r = json_cut_next(&c, &key, &value)) > 0) {
        while (value.len > 0 && strchr(" \t\r\n", value.s[value.len - 1])) {
            value.len--;
        }

        if (!check_file_name(o, value)) {
            return 0;
        }

        assert(value.len > 2);
        value.s++;
        value.len -= 2;
        f = find_file(s, o, dir, value, &last);

        if (f == NULL || !check_entry(s, o, f, key)) {
            return 0;
        }

        (*n)++;
    }

    return r == 0
           || fail(o, "weight_map: expected an object, found broken text");
}

/* One table of all files' tensors, and none of them twice. */
static int
merge(safetensors_t *s, const told_t *o, uint64_t named)
{
    uint32_t i;
    uint64_t n = 0;

    assert(s->tensors == NULL && s->n == 0);

    for (i = 0; i < s->files_n; i++) {
        n += s->files[i].n;
    }

    if (n > TENSORS_MAX || n != named) {
        return fail(o,
            "weight_map: expected as many tensors as are in its files, %llu, "
            "found %llu",
            (unsigned long long) n, (unsigned long long) named);
    }

    s->tensors = malloc((n + 1) * sizeof(*s->tensors));

    if (s->tensors == NULL) {
        return fail(o, "table: not enough memory");
    }

    for (i = 0; i < s->files_n; i++) {
        if (s->files[i].n > 0) {
            memcpy(s->tensors + s->n, s->files[i].tensors,
                s->files[i].n * sizeof(*s->tensors));
            s->n += s->files[i].n;
        }
    }

    assert(s->n == n && n == named);
    qsort(s->tensors, s->n, sizeof(*s->tensors), tensor_by_name);

    for (i = 1; i < s->n; i++) {
        if (tensor_by_name(&s->tensors[i - 1], &s->tensors[i]) == 0) {
            return fail(o, "tensor \"%s\": expected in one file, found in two",
                tensor_shown(s->tensors[i].name).s);
        }
    }

    return 1;
}

/* The text of an index: its weight map, and that there is one. */
static int
read_index(safetensors_t *s, const told_t *o, const char *dir,
    const uint8_t *text, size_t len)
{
    int r, maps = 0;
    uint64_t named = 0;
    json_cut_t c;
    json_cut_piece_t key, value;

    if (len > HEADER_MAX
        || !json_cut_open(&c, len > 0 ? (const char *) text : "", len)) {
        return fail(o,
            "index: expected a JSON object of at most %u bytes, "
            "found something else",
            HEADER_MAX);
    }

    while ((r = json_cut_next(&c, &key, &value)) > 0) {
        if (key.len == 10 && memcmp(key.s, "weight_map", 10) == 0
            && (maps++ > 0 || !read_map(s, o, dir, value, &named))) {
            return maps > 1 ? fail(o, "weight_map: expected once, found twice")
                            : 0;
        }
    }

    if (r < 0 || !json_cut_done(&c) || maps == 0) {
        return fail(o, "index: expected a JSON object with a weight_map, "
                       "found something else");
    }

    return merge(s, o, named);
}

/* The files that the index names, each once, and what each is to have. */
static int
open_index(safetensors_t *s, const char *dir, char *err, size_t errlen)
{
    int ok;
    size_t len;
    const uint8_t *p;
    told_t o = {s->name, err, errlen};

    s->files = calloc(FILES_MAX, sizeof(*s->files));

    if (s->files == NULL) {
        return fail(&o, "files: not enough memory");
    }

    if (!map_file(&o, s->name, &p, &len)) {
        return 0;
    }

    ok = read_index(s, &o, dir, p, len);

    if (p != NULL) {
        munmap((void *) (uintptr_t) p, len);
    }

    return ok;
}


/* --- opening ------------------------------------------------------------ */

/* name is taken over, NULL when there was no memory for it. */
static safetensors_t *
open_new(char *name, uint32_t files, char *err, size_t errlen)
{
    safetensors_t *s = calloc(1, sizeof(*s));

    if (s == NULL || name == NULL) {
        snprintf(err, errlen, "safetensors: not enough memory");
        free(name);
        free(s);
        return NULL;
    }

    s->name = name;

    if (files > 0) {
        s->files = calloc(files, sizeof(*s->files));
    }

    if (files > 0 && s->files == NULL) {
        snprintf(err, errlen, "safetensors: not enough memory");
        safetensors_close(s);
        return NULL;
    }

    return s;
}

/* The one file's table is the table. */
static void
adopt(safetensors_t *s)
{
    assert(s->files_n == 1 && s->tensors == NULL);
    s->tensors = s->files[0].tensors;
    s->n = s->files[0].n;
    s->files[0].tensors = NULL;
}

safetensors_t *
safetensors_open(const char *dir, char *err, size_t errlen)
{
    int ok, index;
    char *path;
    safetensors_t *s;

    assert(dir != NULL && err != NULL && errlen > 0);

    path = join(dir, SINGLE, strlen(SINGLE));
    index = path != NULL && access(path, F_OK) != 0;

    if (index) {
        free(path);
        path = join(dir, INDEX, strlen(INDEX));
    }

    if (index && path != NULL && access(path, F_OK) != 0) {
        snprintf(err, errlen,
            "%s: expected " SINGLE " or " INDEX ", found neither", dir);
        free(path);
        return NULL;
    }

    s = open_new(path, index ? 0 : 1, err, errlen);

    if (s == NULL) {
        return NULL;
    }

    ok = index ? open_index(s, dir, err, errlen)
               : add_file(s, s->name, err, errlen);

    if (!ok) {
        safetensors_close(s);
        return NULL;
    }

    if (!index) {
        adopt(s);
    }

    return s;
}

safetensors_t *
safetensors_open_mem(
    const uint8_t *p, size_t len, const char *name, char *err, size_t errlen)
{
    safetensors_t *s;
    told_t o = {name, err, errlen};

    assert(err != NULL && errlen > 0 && (p != NULL || len == 0));

    s = open_new(strdup(name), 1, err, errlen);

    if (s == NULL) {
        return NULL;
    }

    s->files_n = 1;
    s->files[0].p = p;
    s->files[0].len = len;

    if (!read_file(&o, &s->files[0])) {
        safetensors_close(s);
        return NULL;
    }

    adopt(s);
    return s;
}

void
safetensors_close(safetensors_t *s)
{
    uint32_t i;
    file_t *f;

    if (s == NULL) {
        return;
    }

    for (i = 0; i < s->files_n; i++) {
        f = &s->files[i];

        if (f->mapped && f->p != NULL) {
            munmap((void *) (uintptr_t) f->p, f->len);
        }

        free(f->tensors);
        free(f->path);
    }

    free(s->files);
    free(s->tensors);
    free(s->name);
    free(s);
}

const char *
safetensors_name(const safetensors_t *s)
{
    return s->name;
}

uint32_t
safetensors_files_n(const safetensors_t *s)
{
    return s->files_n;
}

const tensor_t *
safetensors_tensors(const safetensors_t *s, uint32_t *n)
{
    assert(s->n == 0 || s->tensors != NULL);
    *n = s->n;
    return s->tensors;
}
