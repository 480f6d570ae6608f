/*
 * Would catch: a real model file, cut short or with bits and lengths changed,
 * that crashes a reader or the first step, keeps it busy, makes it take memory
 * that the file's size does not justify, or is refused without a sentence.
 *
 * Fixtures are the models, tokenizers and chat templates of the tree and of
 * the test data, each laid out as its users have it; tokenizers and templates
 * stand beside a model that has no more than embeddings for them.  One file of
 * a fixture is damaged, and the whole goes through what --inspect goes through
 * (load.h).  A model that is still one computes a step, and its template
 * writes a conversation.  A thousand cases over all fixtures from a seed
 * (LLM_SEED), which is printed; with LLM_LONG a thousand for each, but a
 * hundred for each of the many templates; with LLM_BRIEF two hundred in all.
 *
 * Each case is a process of its own, whose processor time and peak of memory
 * are limited: twice the size of the fixture's files, TREE_TIMES that of a
 * tokenizer.json, and EXTRA.  Under the address sanitizer, whose memory says
 * nothing, it is a call, so that its leaks are found.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "brief.h"
#include "damage.h"
#include "load_use.h"
#include "log.h"
#include "shards_make.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif

#ifndef SANITIZED
#define SANITIZED 0
#endif

#define FILES_MAX      10
#define FIXTURES_MAX   160
#define CASES          1000
#define TEMPLATE_CASES 100                   /* of a template, with LLM_LONG */
#define SECONDS        (SANITIZED ? 30 : 10) /* of processor time */

/*
 * What is needed whatever the file: the libraries' own pages, the tokenizer's
 * cache of words, its tables of characters, the patterns' compiled code.
 */
#define EXTRA (4u << 20)

/* What a tokenizer.json is read into is a tree: 16 times its size was seen. */
#define TREE_TIMES 20

/* Files that are linked into a directory; all but the carrier's get damaged. */
typedef struct {
    char label[64];
    char open[32]; /* which of them is opened; "": the directory */
    char *from[FILES_MAX], *as[FILES_MAX]; /* owned */
    uint32_t n, hits;                      /* the first hits get damaged */
} fixture_t;

typedef struct {
    fixture_t list[FIXTURES_MAX];
    uint32_t n;
    char dir[64]; /* everything that is made; "load" in it is opened */
    int keep;     /* it, for whoever looks what went wrong */
} rig_t;

/* What a case tells, in memory that it shares. */
typedef struct {
    int taken;          /* it is a model still */
    int stepped;        /* and has computed */
    size_t peak, limit; /* bytes, over what it began with */
    char why[1024];     /* it failed; empty if not */
} told_t;


/* --- fixtures ----------------------------------------------------------- */

static const char *
data_dir(void)
{
    const char *dir = getenv("LLM_DATA");

    return dir != NULL ? dir : "../shared/data";
}

static fixture_t *
fixture(rig_t *r, const char *label)
{
    fixture_t *f = &r->list[r->n++];

    assert_true(r->n <= FIXTURES_MAX);
    memset(f, 0, sizeof(*f));
    snprintf(f->label, sizeof(f->label), "%.60s", label);
    return f;
}

/* Adds dir/name, if it is there, under that name or another. */
static int
add_as(fixture_t *f, const char *dir, const char *name, const char *as, int hit)
{
    char *path, *real;

    assert_true(asprintf(&path, "%s/%s", dir, name) > 0);
    real = realpath(path, NULL);
    free(path);

    if (real == NULL) {
        return 0;
    }

    assert_true(f->n < FILES_MAX && (!hit || f->hits == f->n));
    f->from[f->n] = real;
    f->as[f->n++] = strdup(as);
    f->hits += hit != 0;
    return 1;
}

static int
add(fixture_t *f, const char *dir, const char *name)
{
    return add_as(f, dir, name, name, 1);
}

/* A GGUF file, as it is; no fixture if it is not there. */
static void
one_gguf(rig_t *r, const char *dir, const char *name)
{
    fixture_t *f = fixture(r, name);

    snprintf(f->open, sizeof(f->open), "model.gguf");
    r->n -= (uint32_t) !add_as(f, dir, name, f->open, 1);
}

/* What belongs to a directory beside its weights. */
static const char *const texts[] = {"config.json", "generation_config.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json"};

static void
whole_dir(rig_t *r, const char *dir, const char *label)
{
    fixture_t *f = fixture(r, label);
    size_t i;

    for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        (void) add(f, dir, texts[i]);
    }

    if (!add(f, dir, "model.safetensors")) {
        r->n--;
    }
}

/* A directory of the rig's own. */
static void
make_in(const rig_t *r, const char *name, char *path, size_t size)
{
    snprintf(path, size, "%s/%s", r->dir, name);
    assert_int_equal(mkdir(path, 0700), 0);
}

/* The shards that were made of a directory and of a file. */
static void
sharded(rig_t *r)
{
    char dir[256], from[512], to[320];
    fixture_t *f;
    size_t i;
    uint8_t *p;
    struct stat st;
    FILE *file;

    make_in(r, "gguf", dir, sizeof(dir));
    file = fopen("conf/demo/ngx-llm-demo.gguf", "rb");
    assert_non_null(file);
    assert_int_equal(fstat(fileno(file), &st), 0);
    p = malloc((size_t) st.st_size);
    assert_non_null(p);
    assert_int_equal(fread(p, 1, (size_t) st.st_size, file), st.st_size);
    fclose(file);
    snprintf(to, sizeof(to), "%s/m", dir);
    shards_of_gguf(p, (size_t) st.st_size, to);
    free(p);

    f = fixture(r, "demo in two GGUF");
    assert_true(add(f, dir, "m-00001-of-00002.gguf"));
    assert_true(add(f, dir, "m-00002-of-00002.gguf"));
    snprintf(f->open, sizeof(f->open), "m-00002-of-00002.gguf");

    snprintf(from, sizeof(from), "%s/models/TinyStories-656K", data_dir());

    if (access(from, F_OK) != 0) {
        return;
    }

    make_in(r, "st", dir, sizeof(dir));
    shards_of_st(from, dir);
    f = fixture(r, "TinyStories-656K in two safetensors");
    assert_true(add(f, dir, "model.safetensors.index.json"));
    assert_true(add(f, dir, "a.safetensors"));
    assert_true(add(f, dir, "b.safetensors"));

    for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        (void) add(f, from, texts[i]);
    }
}

/* Tokenizers, each beside a carrier of its own size. */
static void
tokenizers(rig_t *r)
{
    static const struct {
        const char *name;
        uint32_t vocab;
    } list[] = {{"tokenizers/llama-2", 32000}, {"tokenizers/mistral-v3", 32768},
        {"tokenizers/phi-2", 51200}, {"tokenizers/t5-small", 32128},
        {"tokenizers/phi-3-mini", 32064}, {"tokenizers/qwen3", 151936},
        {"models/stories260K", 512}};
    char carrier[256], from[512], name[32];
    fixture_t *f;
    size_t i;

    for (i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        snprintf(from, sizeof(from), "%s/%s", data_dir(), list[i].name);

        if (access(from, F_OK) != 0) {
            continue;
        }

        snprintf(name, sizeof(name), "carrier%zu", i);
        make_in(r, name, carrier, sizeof(carrier));
        shards_carrier(carrier, list[i].vocab);
        f = fixture(r, list[i].name);

        if (!add(f, from, "tokenizer.json") && !add(f, from, "tokenizer.model")
            && !add_as(f, from, "tok512.model", "tokenizer.model", 1)) {
            fail_msg("%s has no tokenizer", from);
        }

        (void) add(f, from, "tokenizer_config.json");
        (void) add(f, from, "special_tokens_map.json");
        (void) add(f, from, "added_tokens.json");
        assert_true(
            add_as(f, carrier, "config.json", "config.json", 0)
            && add_as(f, carrier, "model.safetensors", "model.safetensors", 0));
    }
}

/* Chat templates, beside a small tokenizer and its carrier. */
static void
templates(rig_t *r)
{
    char carrier[256], from[512], tok[512];
    struct dirent *e;
    fixture_t *f;
    DIR *d;

    snprintf(from, sizeof(from), "%s/chat-templates", data_dir());
    snprintf(tok, sizeof(tok), "%s/models/stories260K", data_dir());
    d = opendir(from);

    if (d == NULL) {
        return;
    }

    make_in(r, "small", carrier, sizeof(carrier));
    shards_carrier(carrier, 512);

    while ((e = readdir(d)) != NULL) {
        if (strstr(e->d_name, ".jinja") == NULL) {
            continue;
        }

        f = fixture(r, e->d_name);
        assert_true(
            add_as(f, from, e->d_name, "chat_template.jinja", 1)
            && add_as(f, tok, "tok512.model", "tokenizer.model", 0)
            && add_as(f, carrier, "config.json", "config.json", 0)
            && add_as(f, carrier, "model.safetensors", "model.safetensors", 0));
    }

    closedir(d);
}

/* The models that the tree has for its families: no tokenizers. */
static void
families(rig_t *r)
{
    char dir[300], label[64];
    DIR *d = opendir("tests/data/models");
    struct dirent *e;

    assert_non_null(d);

    while ((e = readdir(d)) != NULL) {
        snprintf(dir, sizeof(dir), "tests/data/models/%.200s", e->d_name);

        if (e->d_name[0] != '.') {
            whole_dir(r, dir, e->d_name);
            snprintf(label, sizeof(label), "%.40s/model.gguf", e->d_name);
            one_gguf(r, "tests/data/models", label);
        }
    }

    closedir(d);
}

static void
fixtures(rig_t *r)
{
    static const char *const ggufs[] = {"models/stories260K/stories260K.gguf",
        "models/TinyStories-656K/TinyStories-656K-F16.gguf",
        "models/TinyStories-656K/TinyStories-656K-Q4_0.gguf",
        "models/TinyStories-656K/TinyStories-656K-Q4_K_M.gguf",
        "models/TinyStories-656K/TinyStories-656K-Q5_1.gguf",
        "models/TinyStories-656K/TinyStories-656K-Q8_0.gguf",
        "models/quant-vectors/quant-vectors.gguf",
        "tokenizers/gguf-vocab/ggml-vocab-llama-spm.gguf",
        "tokenizers/gguf-vocab/ggml-vocab-gpt-2.gguf",
        "tokenizers/gguf-vocab/ggml-vocab-deepseek-coder.gguf"};
    char path[512];
    size_t i;

    one_gguf(r, "conf/demo", "ngx-llm-demo.gguf");

    for (i = 0; i < sizeof(ggufs) / sizeof(ggufs[0]); i++) {
        one_gguf(r, data_dir(), ggufs[i]);
    }

    snprintf(path, sizeof(path), "%s/models/TinyStories-656K", data_dir());
    whole_dir(r, path, "TinyStories-656K");
    sharded(r);
    families(r);
    tokenizers(r);
    templates(r);
}


/* --- a case ------------------------------------------------------------- */

/* Where the first weights begin, or the whole file: head > 0. */
static size_t
head_of(const char *name, const uint8_t *p, size_t len)
{
    char err[256];
    size_t head = len, at;
    uint64_t n;
    uint32_t i;
    gguf_t *g = NULL;

    if (strstr(name, ".safetensors") != NULL && len > 8
        && strstr(name, ".json") == NULL) {
        memcpy(&n, p, 8);
        return n < len ? (size_t) n + 8 : len;
    }

    if (strstr(name, ".gguf") != NULL) {
        g = gguf_open_mem(p, len, "whole", err, sizeof(err));
    }

    for (i = 0; g != NULL && i < gguf_tensors_n(g); i++) {
        at = (size_t) (gguf_tensor_at(g, i)->data - p);
        head = at < head ? at : head;
    }

    gguf_close(g);
    return head;
}

/* File i of f, damaged, in its place under dir/load. */
static void
put_damaged(const char *dir, const fixture_t *f, uint32_t i, uint64_t *seed)
{
    char path[512];
    FILE *file = fopen(f->from[i], "rb");
    struct stat st;
    size_t len;
    uint8_t *p;

    assert_non_null(file);
    assert_int_equal(fstat(fileno(file), &st), 0);
    len = (size_t) st.st_size;
    p = malloc(len);
    assert_non_null(p);
    assert_int_equal(fread(p, 1, len, file), len);
    fclose(file);
    len = damage(p, len, head_of(f->as[i], p, len), seed);
    snprintf(path, sizeof(path), "%s/load/%s", dir, f->as[i]);
    file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(p, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
    free(p);
}

static void
link_all(const char *dir, const fixture_t *f, uint32_t but)
{
    uint32_t i;
    char path[512];

    for (i = 0; i < f->n; i++) {
        snprintf(path, sizeof(path), "%s/load/%s", dir, f->as[i]);

        if (i != but) {
            assert_int_equal(symlink(f->from[i], path), 0);
        }
    }
}

static void
unlink_all(const char *dir, const fixture_t *f)
{
    uint32_t i;
    char path[512];

    for (i = 0; i < f->n; i++) {
        snprintf(path, sizeof(path), "%s/load/%s", dir, f->as[i]);
        assert_int_equal(unlink(path), 0);
    }
}

static size_t
peak(void)
{
    struct rusage u;

    (void) getrusage(RUSAGE_SELF, &u);
    return (size_t) u.ru_maxrss << 10;
}

/* Loads, as --inspect does, and uses what is there. */
static void
load(const char *path, told_t *told)
{
    char err[1024] = "";
    load_t l = {.model = NULL};
    size_t before = peak();
    gguf_t *g;
    token_t *t;
    int rc = load_model(&l, path, err, sizeof(err));

    if (rc == 0) {
        rc = load_template(&l, "", "auto", "auto", err, sizeof(err));
    }

    told->peak = peak() - before;
    told->taken = rc == 0;

    if (rc != 0 && (strlen(err) < 10 || strchr(err, '\n') != NULL)) {
        snprintf(
            told->why, sizeof(told->why), "\"%.900s\" is no sentence", err);
    } else if (!SANITIZED && told->peak > told->limit) {
        snprintf(told->why, sizeof(told->why),
            "%zu bytes of memory where %zu are allowed", told->peak,
            told->limit);
    } else {
        told->stepped = load_use(&l, told->why, sizeof(told->why));
    }

    /* a vocabulary alone is no model, but has a tokenizer */
    g = l.model == NULL && strstr(path, ".gguf") != NULL
            ? gguf_open(path, err, sizeof(err))
            : NULL;
    t = g != NULL ? token_open_gguf(g, err, sizeof(err)) : NULL;
    token_close(t);
    gguf_close(g);
    load_close(&l);
}

static void
limit_time(int seconds)
{
    const struct itimerval limit = {{0, 0}, {seconds, 0}};

    assert_int_equal(setitimer(ITIMER_PROF, &limit, NULL), 0);
}

/* The same in a process of its own, unless its memory says nothing. */
static void
load_apart(const char *path, told_t *told)
{
    pid_t pid;
    int status;

    if (SANITIZED) {
        limit_time(SECONDS);
        load(path, told);
        limit_time(0);
        return;
    }

    pid = fork();
    assert_true(pid >= 0);

    if (pid == 0) {
        (void) alarm(20 * SECONDS); /* one that sleeps */
        limit_time(SECONDS);
        load(path, told);
        _exit(0);
    }

    assert_int_equal(waitpid(pid, &status, 0), pid);

    if (WIFSIGNALED(status)) {
        snprintf(told->why, sizeof(told->why), "killed by signal %d",
            WTERMSIG(status));
    } else if (WEXITSTATUS(status) != 0) {
        snprintf(told->why, sizeof(told->why), "exit status %d",
            WEXITSTATUS(status));
    }
}

static void
one_case(rig_t *r, const fixture_t *f, uint64_t *seed, told_t *told)
{
    char path[512];
    uint32_t i, hit = (uint32_t) (damage_rnd(seed) % f->hits);
    struct stat st;

    memset(told, 0, sizeof(*told));
    link_all(r->dir, f, hit);
    put_damaged(r->dir, f, hit, seed);
    told->limit = EXTRA;

    for (i = 0; i < f->hits; i++) {
        snprintf(path, sizeof(path), "%s/load/%s", r->dir, f->as[i]);
        assert_int_equal(stat(path, &st), 0);
        told->limit +=
            (size_t) st.st_size
            * (strcmp(f->as[i], "tokenizer.json") == 0 ? TREE_TIMES : 2);
    }

    snprintf(path, sizeof(path), "%s/load%s%s", r->dir,
        f->open[0] != '\0' ? "/" : "", f->open);
    load_apart(path, told);

    r->keep = told->why[0] != '\0';

    if (r->keep) {
        fail_msg("%s, damaged %s under %s: %s", f->label, f->as[hit], r->dir,
            told->why);
    }

    unlink_all(r->dir, f);
}

static void
rig_open(rig_t *r)
{
    char path[256];

    memset(r, 0, sizeof(*r));
    snprintf(r->dir, sizeof(r->dir), "/tmp/ngx_llm_damaged_XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    make_in(r, "load", path, sizeof(path));
    fixtures(r);
    assert_true(r->n > 30);
}

static void
rig_close(rig_t *r)
{
    uint32_t i, j;
    char *command;

    for (i = 0; i < r->n; i++) {
        for (j = 0; j < r->list[i].n; j++) {
            free(r->list[i].from[j]);
            free(r->list[i].as[j]);
        }
    }

    if (!r->keep) {
        assert_true(asprintf(&command, "rm -r %s", r->dir) > 0);
        assert_int_equal(system(command), 0);
        free(command);
    }
}

/* Whole fixtures load as they are, or this test would test nothing. */
static void
whole(void **state)
{
    told_t *told = mmap(NULL, sizeof(*told), PROT_READ | PROT_WRITE,
        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint32_t i, taken = 0, stepped = 0;
    char path[512];
    rig_t *r = *state;

    assert_true(told != MAP_FAILED);

    for (i = 0; i < r->n; i++) {
        memset(told, 0, sizeof(*told));
        told->limit = SIZE_MAX;
        link_all(r->dir, &r->list[i], UINT32_MAX);
        snprintf(path, sizeof(path), "%s/load%s%s", r->dir,
            r->list[i].open[0] != '\0' ? "/" : "", r->list[i].open);
        load_apart(path, told);
        unlink_all(r->dir, &r->list[i]);
        assert_string_equal(told->why, "");
        taken += (uint32_t) told->taken;
        stepped += (uint32_t) told->stepped;
    }

    print_message("%u fixtures: %u load, %u compute\n", r->n, taken, stepped);
    /* the families' have no tokenizer, vocabularies no model */
    assert_true(taken >= 2 && stepped >= taken + 30);
    munmap(told, sizeof(*told));
}

static void
damaged(void **state)
{
    told_t *told = mmap(NULL, sizeof(*told), PROT_READ | PROT_WRITE,
        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const char *given = getenv("LLM_SEED");
    uint64_t from = given != NULL ? strtoull(given, NULL, 10) : 20250101;
    uint64_t seed = damage_seed(from);
    uint32_t i, n, skipped = 0, taken = 0, stepped = 0;
    size_t over, most = 0;
    rig_t *r = *state;

    n = getenv("LLM_LONG") != NULL ? CASES * r->n : brief() ? 200 : CASES;
    assert_true(told != MAP_FAILED);
    log_level_set(LOG_ALERT); /* templates that are not used */
    print_message("seed %llu\n", (unsigned long long) from);

    for (i = 0; i < n; i++) {
        if (i / r->n >= TEMPLATE_CASES
            && strstr(r->list[i % r->n].label, ".jinja") != NULL) {
            skipped++;
            continue;
        }

        one_case(r, &r->list[i % r->n], &seed, told);
        taken += (uint32_t) told->taken;
        stepped += (uint32_t) told->stepped;
        over = told->peak + EXTRA - told->limit; /* or far below 0 */
        most = over <= EXTRA && over > most ? over : most;
    }

    print_message("%u damaged files: %u load still, %u compute; at most %zu "
                  "bytes over twice the files\n",
        n - skipped, taken, stepped, most);
    assert_in_range(taken, 1, n - skipped - 1);
    munmap(told, sizeof(*told));
}

static int
set_up(void **state)
{
    static rig_t r;

    rig_open(&r);
    *state = &r;
    return 0;
}

static int
tear_down(void **state)
{
    rig_close(*state);
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole),
        cmocka_unit_test(damaged),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
