/*
 * Catches: files of a model, each as hostile as it likes, that together crash
 * what opens a path, the first step or the chat template, or are refused
 * without a sentence: what lies between the readers, which have targets of
 * their own (shards and their index, what one file says of another).
 *
 * The input is a list of files: a byte that says which, its length in four
 * bytes, its bytes; the last may be cut short.  They are written to a
 * directory and opened as the engine does it (load.h).
 */
#include "../unit/load_use.h"
#include "log.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const names[] = {"config.json", "generation_config.json",
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    "special_tokens_map.json", "chat_template.jinja",
    "additional_chat_templates/tool_use.jinja", "model.safetensors",
    "model.safetensors.index.json", "a.safetensors", "b.safetensors",
    "added_tokens.json", "m-00001-of-00002.gguf", "m-00002-of-00002.gguf"};

#define NAMES_N (sizeof(names) / sizeof(names[0]))
#define SHARD   13 /* the first of the GGUFs */

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

static char dir[] = "/tmp/ngx_llm_fuzz_XXXXXX";

static void
gone(void)
{
    char path[128];

    (void) snprintf(path, sizeof(path), "%s/additional_chat_templates", dir);
    (void) rmdir(path);
    (void) rmdir(dir);
}

static void
must(int holds)
{
    if (!holds) {
        abort();
    }
}

/* A directory of the process's own. */
static void
make_dir(void)
{
    char path[128];

    must(mkdtemp(dir) != NULL);
    (void) snprintf(path, sizeof(path), "%s/additional_chat_templates", dir);
    must(mkdir(path, 0700) == 0);
    (void) atexit(gone);
    log_level_set(LOG_ALERT);
}

static char *
path_of(size_t which, char *path, size_t size)
{
    must(snprintf(path, size, "%s/%s", dir, names[which]) < (int) size);
    return path;
}

/* Writes what the input has; which of the names are there, as bits. */
static uint32_t
write_files(const uint8_t *p, size_t len)
{
    char path[128];
    uint32_t n, which, there = 0;
    FILE *f;

    while (len > 5) {
        which = p[0] % NAMES_N;
        memcpy(&n, p + 1, 4);
        p += 5;
        len -= 5;
        n = n < len ? n : (uint32_t) len;
        f = fopen(path_of(which, path, sizeof(path)), "wb");
        must(f != NULL && fwrite(p, 1, n, f) == n && fclose(f) == 0);
        there |= 1u << which;
        p += n;
        len -= n;
    }

    return there;
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    static int made;
    char err[1024] = "", path[128], why[1024] = "";
    load_t l = {.model = NULL};
    uint32_t i, there;
    int rc;

    if (!made++) {
        make_dir();
    }

    there = write_files(p, len);
    rc = load_model(&l,
        there >> SHARD != 0 ? path_of(SHARD, path, sizeof(path)) : dir, err,
        sizeof(err));
    rc = rc == 0 ? load_template(&l, "", "auto", "auto", err, sizeof(err)) : rc;
    must(rc == 0 || (strlen(err) >= 10 && strchr(err, '\n') == NULL));
    (void) load_use(&l, why, sizeof(why));
    must(why[0] == '\0');
    load_close(&l);

    for (i = 0; i < NAMES_N; i++) {
        if (there >> i & 1) {
            (void) unlink(path_of(i, path, sizeof(path)));
        }
    }

    return 0;
}
