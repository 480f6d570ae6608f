/*
 * A Hugging Face directory as a model's container: config.json says what the
 * model is, safetensors hold its weights, generation_config.json says what
 * ends a text.
 *
 * DESIGN.  config.json is a flat object with a few objects in it, and its keys
 * are the same words for nearly all families: model_impl.h has them beside
 * those of GGUF.  null stands for absent.  What the file calls its family
 * (model_type) and its class (architectures) must both be known: a class of
 * the same type with another head is another model.
 *
 * The files are read whole, with limits, and kept as jansson's trees only
 * while the model is opened.  A model_hf_t owns the weights' mappings.
 */
#include "model_impl.h"
#include "safetensors.h"

#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Real ones have a few KiB; jansson's tree is some twenty times the text. */
#define CONFIG_MAX (256u << 10)

#define CONFIG     "config.json"
#define GENERATION "generation_config.json"

/* model_fp8_join, model_mxfp4_join */
typedef tensor_t *join_t(const tensor_t *list, uint32_t n, uint32_t *joined_n,
    const char *file, char *err, size_t errlen);

struct model_hf_s {
    char *dir;    /* owned; NULL: from memory */
    char *config; /* its path, owned */
    safetensors_t *weights;
    join_t *join;     /* where weights are two tensors each; else NULL */
    tensor_t *joined; /* what it made; owned */
    json_t *tree;     /* of config.json, while opening */
};


/* --- config.json -------------------------------------------------------- */

/* What name, "a.b", leads to; NULL if nothing or null. name is n long. */
static const json_t *
look(const json_t *j, const char *name, size_t n)
{
    size_t len;

    assert(name != NULL && n > 0);

    for (;;) {
        len = 0;

        while (len < n && name[len] != '.') {
            len++;
        }

        j = json_object_getn(j, name, len);

        if (len == n) {
            return json_is_null(j) ? NULL : j;
        }

        name += len + 1;
        n -= len + 1;
    }
}

static const json_t *
value(const void *at, const char *name)
{
    return look(at, name, strlen(name));
}

/* Of several names the first that leads to something, else the first. */
static int
find_here(const model_source_t *s, const model_family_t *f, model_key_t key,
    char *name, size_t size)
{
    size_t n;
    const char *p, *names = model_key_name(key, MODEL_HF);

    (void) f;
    assert(s->container == MODEL_HF);
    name[0] = '\0';

    if (names == NULL) {
        return 0;
    }

    for (p = names; *p != '\0'; p += n + (p[n] == ' ')) {
        n = strcspn(p, " ");

        if (look(s->at, p, n) != NULL) {
            snprintf(name, size, "%.*s", (int) n, p);
            return 1;
        }
    }

    snprintf(name, size, "%.*s", (int) strcspn(names, " "), names);
    return 0;
}

static int
has_value(const void *at, const char *name)
{
    return value(at, name) != NULL;
}

static int
read_u32(const void *at, const char *name, uint32_t *v)
{
    json_int_t i;
    const json_t *j = value(at, name);

    assert(v != NULL && name[0] != '\0');

    i = json_integer_value(j);

    if (!json_is_integer(j) || i < 0 || i > UINT32_MAX) {
        return 0;
    }

    *v = (uint32_t) i;
    return 1;
}

static int
number(const json_t *j, float *v)
{
    double d = json_number_value(j);

    /* a number that no float can hold does not fit */
    if (!json_is_number(j) || fabs(d) > (double) 3.4028234e38f) {
        return 0;
    }

    *v = (float) d;
    return 1;
}

static int
read_f32(const void *at, const char *name, float *v)
{
    return number(value(at, name), v);
}

static int
word_of(const json_t *j, char *v, size_t size)
{
    tensor_name_t s;

    assert(v != NULL && size > 0);

    if (json_is_boolean(j)) {
        snprintf(v, size, "%s", json_is_true(j) ? "true" : "false");
        return 1;
    }

    if (!json_is_string(j)) {
        return 0;
    }

    s.s = json_string_value(j);
    s.len = json_string_length(j);
    snprintf(v, size, "%s", tensor_shown(s).s);
    return 1;
}

static int
read_word(const void *at, const char *name, char *v, size_t size)
{
    return word_of(value(at, name), v, size);
}


static int
read_list(const void *at, const char *name, uint32_t *n)
{
    const json_t *j = value(at, name);

    if (!json_is_array(j) || json_array_size(j) > UINT32_MAX) {
        return 0;
    }

    *n = (uint32_t) json_array_size(j);
    return 1;
}

static int
read_item_f32(const void *at, const char *name, uint32_t i, float *v)
{
    return number(json_array_get(value(at, name), i), v);
}

static int
read_item_word(
    const void *at, const char *name, uint32_t i, char *v, size_t size)
{
    return word_of(json_array_get(value(at, name), i), v, size);
}


/* --- files -------------------------------------------------------------- */

char *
model_hf_text(
    const char *path, size_t max, size_t *len, char *err, size_t errlen)
{
    char *text;
    FILE *f;
    struct stat st;

    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode)) {
        snprintf(err, errlen, "%s: expected a file, found none", path);
        return NULL;
    }

    if ((uint64_t) st.st_size > max) {
        snprintf(err, errlen, "%s: expected at most %zu bytes, found %lld",
            path, max, (long long) st.st_size);
        return NULL;
    }

    f = fopen(path, "re");
    text = f == NULL ? NULL : malloc((size_t) st.st_size + 1);

    if (text == NULL) {
        snprintf(err, errlen, "%s: expected a readable file, found \"%s\"",
            path, strerror(errno));

        if (f != NULL) {
            fclose(f);
        }

        return NULL;
    }

    *len = fread(text, 1, (size_t) st.st_size, f);
    assert(*len <= max);
    fclose(f);
    return text;
}

static json_t *
parse_object(const char *text, size_t len, size_t flags, const char *path,
    char *err, size_t errlen)
{
    json_t *j;
    json_error_t e;

    j = json_loadb(text, len, flags, &e);

    if (!json_is_object(j)) {
        snprintf(err, errlen, "%s: expected a JSON object, found %s%.100s",
            path, j != NULL ? "something else" : "", j != NULL ? "" : e.text);
        json_decref(j);
        return NULL;
    }

    return j;
}

json_t *
model_hf_object(
    const char *path, size_t max, size_t flags, char *err, size_t errlen)
{
    size_t len;
    char *text = model_hf_text(path, max, &len, err, errlen);
    json_t *j = NULL;

    if (text != NULL) {
        j = parse_object(text, len, flags, path, err, errlen);
        free(text);
    }

    return j;
}


/* --- what it is --------------------------------------------------------- */

/* type and class of the model, both known. */
static const model_family_t *
find_family(const char *file, const json_t *tree, char *err, size_t errlen)
{
    char names[1024];
    const model_family_t *f;
    const json_t *type = json_object_get(tree, "model_type");
    const json_t *class;
    tensor_name_t found = {"", 0};

    if (json_is_string(type)) {
        found.s = json_string_value(type);
        found.len = json_string_length(type);
    }

    f = model_family_find(MODEL_HF, found.s, found.len);

    if (f == NULL) {
        snprintf(err, errlen,
            "%s: key model_type: expected one that is supported (%s), found "
            "\"%s\"",
            file, model_family_names(MODEL_HF, names, sizeof(names)),
            tensor_shown(found).s);
        return NULL;
    }

    class = json_array_get(json_object_get(tree, "architectures"), 0);

    if (class != NULL
        && (!json_is_string(class)
            || strcmp(json_string_value(class), f->class) != 0)) {
        found.s = json_is_string(class) ? json_string_value(class) : "";
        found.len = json_string_length(class);
        snprintf(err, errlen,
            "%s: key architectures: expected %s, found \"%s\"", file, f->class,
            tensor_shown(found).s);
        return NULL;
    }

    return f;
}

/* Are weights in F8 with factors for blocks, as model_fp8.c has them? */
static int
is_fp8(const json_t *q)
{
    const json_t *fmt = json_object_get(q, "fmt");
    const json_t *block = json_object_get(q, "weight_block_size");
    const char *s = json_string_value(json_object_get(q, "quant_method"));

    return s != NULL && strcmp(s, "fp8") == 0
           && (fmt == NULL
               || (json_is_string(fmt)
                   && strcmp(json_string_value(fmt), "e4m3") == 0))
           && json_array_size(block) == 2
           && json_integer_value(json_array_get(block, 0)) == TENSOR_SCALE_BLOCK
           && json_integer_value(json_array_get(block, 1))
                  == TENSOR_SCALE_BLOCK;
}

/* Refuses a quantisation that is not that and not the tensors' own types. */
static int
check_quantised(model_hf_t *hf, char *err, size_t errlen)
{
    char word[64];
    static const char *const keys[] = {"quantization_config",
        "compression_config", "text_config.quantization_config"};
    char name[64];
    size_t i;

    for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (value(hf->tree, keys[i]) == NULL) {
            continue;
        }

        if (is_fp8(value(hf->tree, keys[i]))) {
            hf->join = model_fp8_join;
            continue;
        }

        snprintf(name, sizeof(name), "%s.quant_method", keys[i]);

        if (!read_word(hf->tree, name, word, sizeof(word))) {
            snprintf(word, sizeof(word), "something else");
        }

        if (strcmp(word, "mxfp4") == 0) {
            hf->join = model_mxfp4_join;
            continue;
        }

        snprintf(err, errlen,
            "%s: key %s: expected none, mxfp4 or fp8 (e4m3, in blocks of "
            "%u x %u), found %s",
            hf->config, name, TENSOR_SCALE_BLOCK, TENSOR_SCALE_BLOCK,
            strcmp(word, "fp8") == 0 ? "fp8 of another form" : word);
        return 0;
    }

    return 1;
}

/* Ids that end a text: one number or a list of them. */
static void
take_ends(model_info_t *info, const json_t *ends)
{
    size_t i, n = json_is_array(ends) ? json_array_size(ends) : 1;
    const json_t *id;

    assert(info->vocab > 0); /* read before */

    for (i = 0; i < n && info->ends_n < MODEL_ENDS_MAX; i++) {
        id = json_is_array(ends) ? json_array_get(ends, i) : ends;

        /* some configurations name ids that the vocabulary has not */
        if (json_is_integer(id) && json_integer_value(id) >= 0
            && json_integer_value(id) < info->vocab) {
            info->ends[info->ends_n++] = (uint32_t) json_integer_value(id);
        }
    }
}

/* generation_config.json, which need not be there, goes before config.json. */
static int
read_ends(model_t *m, char *err, size_t errlen)
{
    int ok = 1;
    char *path = NULL;
    json_t *j;

    if (m->hf->dir != NULL
        && asprintf(&path, "%s/" GENERATION, m->hf->dir) < 0) {
        snprintf(err, errlen, "%s: not enough memory", m->hf->dir);
        return 0;
    }

    if (path != NULL && access(path, F_OK) == 0) {
        j = model_hf_object(
            path, CONFIG_MAX, JSON_REJECT_DUPLICATES, err, errlen);
        ok = j != NULL;
        take_ends(&m->info, value(j, "eos_token_id"));
        json_decref(j);
    }

    free(path);

    if (m->info.ends_n == 0) {
        take_ends(&m->info, value(m->hf->tree, "eos_token_id"));
    }

    return ok;
}


/* --- opening ------------------------------------------------------------ */

static int
ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), k = strlen(tail);

    return n >= k && strcmp(s + n - k, tail) == 0;
}

int
model_hf_is(const char *path)
{
    struct stat st;

    return (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
           || ends_with(path, ".safetensors") || ends_with(path, ".json");
}

/* path, or the directory of the file that it is; owned by the caller. */
static char *
directory(const char *path)
{
    char *dir = strdup(path), *end;
    struct stat st;

    if (dir == NULL) {
        return NULL;
    }

    assert(path[0] != '\0');

    if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode)) {
        end = strrchr(dir, '/');

        if (end == NULL) {
            free(dir);
            return strdup(".");
        }

        end[end == dir] = '\0';
        return dir;
    }

    for (end = dir + strlen(dir); end > dir + 1 && end[-1] == '/'; end--) {
        end[-1] = '\0';
    }

    return dir;
}

/* The directory's own name, also where the path ends in dots. */
static void
name_by_dir(model_t *m, const char *dir)
{
    const char *base = strrchr(dir, '/');
    char *real = NULL;

    base = base != NULL ? base + 1 : dir;

    if (base[0] == '\0' || strcmp(base, ".") == 0 || strcmp(base, "..") == 0) {
        real = realpath(dir, NULL);
    }

    model_name(m, real != NULL && real[1] != '\0' ? real : base, "");
    free(real);

    if (m->info.name[0] == '\0') {
        model_rename(m, "model");
    }

    assert(m->info.name[0] != '\0');
}

/* Unless they are there: a test's. */
static int
open_weights(model_hf_t *hf, char *err, size_t errlen)
{
    if (hf->weights == NULL) {
        hf->weights = safetensors_open(hf->dir, err, errlen);
    }

    return hf->weights != NULL;
}

/* All but config.json itself, from its tree. */
static int
read_all(model_t *m, char *err, size_t errlen)
{
    model_hf_t *hf = m->hf;
    const model_family_t *f;
    model_source_t s = {.container = MODEL_HF,
        .find = find_here,
        .has = has_value,
        .u32 = read_u32,
        .f32 = read_f32,
        .word = read_word,
        .list = read_list,
        .item_f32 = read_item_f32,
        .item_word = read_item_word};

    assert(hf->tree != NULL);
    f = find_family(hf->config, hf->tree, err, errlen);

    if (f == NULL || !check_quantised(hf, err, errlen)
        || !open_weights(hf, err, errlen)) {
        return 0;
    }

    s.at = hf->tree;
    s.keys = hf->config;
    s.weights = safetensors_name(hf->weights);
    s.tensors = safetensors_tensors(hf->weights, &s.tensors_n);

    if (hf->join != NULL) {
        hf->joined = hf->join(
            s.tensors, s.tensors_n, &s.tensors_n, s.weights, err, errlen);
        s.tensors = hf->joined;
    }

    if (hf->join != NULL && hf->joined == NULL) {
        return 0;
    }

    return model_read(m, f, &s, err, errlen) && read_ends(m, err, errlen);
}

model_t *
model_hf_open(const char *path, char *err, size_t errlen)
{
    int ok;
    model_t *m;
    struct stat st;

    assert(err != NULL && errlen > 0);
    m = model_new(path, err, errlen);

    if (m == NULL) {
        return NULL;
    }

    m->hf = calloc(1, sizeof(*m->hf));

    if (m->hf != NULL) {
        m->hf->dir = directory(path);
    }

    if (m->hf == NULL || m->hf->dir == NULL
        || asprintf(&m->hf->config, "%s/" CONFIG, m->hf->dir) < 0) {
        snprintf(err, errlen, "%s: not enough memory", path);
        model_close(m);
        return NULL;
    }

    name_by_dir(m, m->hf->dir);
    m->hf->tree = model_hf_object(
        m->hf->config, CONFIG_MAX, JSON_REJECT_DUPLICATES, err, errlen);
    ok = m->hf->tree != NULL && read_all(m, err, errlen);
    json_decref(m->hf->tree);
    m->hf->tree = NULL;

    if (!ok) {
        model_close(m);
        return NULL;
    }

    if (stat(m->hf->config, &st) == 0 && st.st_mtime > 0) {
        m->info.created = (uint64_t) st.st_mtime;
    }

    return m;
}

model_t *
model_hf_open_mem(const char *config, size_t config_len, const uint8_t *weights,
    size_t weights_len, char *err, size_t errlen)
{
    int ok = 0;
    model_t *m = model_new("mem", err, errlen);

    if (m == NULL) {
        return NULL;
    }

    model_rename(m, "mem");
    m->hf = calloc(1, sizeof(*m->hf));

    if (m->hf != NULL) {
        m->hf->config = strdup("mem");
        m->hf->tree = config_len > CONFIG_MAX || m->hf->config == NULL
                          ? NULL
                          : parse_object(config, config_len,
                              JSON_REJECT_DUPLICATES, "mem", err, errlen);
        m->hf->weights = m->hf->tree == NULL
                             ? NULL
                             : safetensors_open_mem(
                                 weights, weights_len, "mem", err, errlen);
        ok = m->hf->weights != NULL && read_all(m, err, errlen);
        json_decref(m->hf->tree);
        m->hf->tree = NULL;
    }

    if (!ok) {
        model_close(m);
        return NULL;
    }

    return m;
}

void
model_hf_close(model_hf_t *hf)
{
    if (hf == NULL) {
        return;
    }

    safetensors_close(hf->weights);
    free(hf->joined);
    free(hf->config);
    free(hf->dir);
    free(hf);
}

uint32_t
model_hf_files(const model_hf_t *hf)
{
    return safetensors_files_n(hf->weights);
}

const char *
model_hf_dir(const model_hf_t *hf)
{
    return hf->dir;
}
