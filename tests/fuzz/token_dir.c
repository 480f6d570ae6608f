/*
 * Catches: files beside a vocabulary (configuration, added tokens) that crash
 * the opening, give a token an id or a text that is none, or let a text name a
 * control token that it must not.
 *
 * The input is tokenizer_config.json, a NUL, added_tokens.json, a NUL,
 * special_tokens_map.json, a NUL, and the text; what is missing is absent.
 * The vocabulary is a small SentencePiece model of the target's own.
 */
#include "token_use.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TEXT_MAX 4096

/* pieces: <unk> (unknown), <s>, </s> (control), "\u2581", "a", "\u2581a" */
static const char model[] = "\x0a\x09\x0a\x05<unk>\x18\x02"
                            "\x0a\x07\x0a\x03<s>\x18\x03"
                            "\x0a\x08\x0a\x04</s>\x18\x03"
                            "\x0a\x05\x0a\x03\xe2\x96\x81"
                            "\x0a\x03\x0a\x01"
                            "a"
                            "\x0a\x06\x0a\x04\xe2\x96\x81"
                            "a"
                            "\x12\x02\x18\x02";

static const char *const names[] = {
    "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"};

static char dir[64];

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);


static void
put(const char *name, const void *p, size_t len)
{
    char path[128];
    int fd;

    (void) snprintf(path, sizeof(path), "%s/%s", dir, name);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, p, len) != (ssize_t) len) {
        abort();
    }
    (void) close(fd);
}


static void
drop(const char *name)
{
    char path[128];

    (void) snprintf(path, sizeof(path), "%s/%s", dir, name);
    (void) unlink(path);
}


static void
clean(void)
{
    size_t i;

    for (i = 0; i < 3; i++) {
        drop(names[i]);
    }
    drop("tokenizer.model");
    (void) rmdir(dir);
}


/* A user's text names none of what the model itself says is control. */
static void
check(const token_t *t, const char *text, size_t len)
{
    static uint32_t ids[TEXT_MAX * 4];
    int64_t n, i;

    n = token_encode(t, text, len, 0, ids, TEXT_MAX * 4, NULL, NULL);
    for (i = 0; i < n; i++) {
        if (ids[i] == 1 || ids[i] == 2) {
            abort();
        }
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    char err[512] = "";
    const uint8_t *end;
    token_t *t;
    size_t i, n;

    if (dir[0] == '\0') {
        (void) snprintf(dir, sizeof(dir), "/tmp/fuzz-token-dir-XXXXXX");
        if (mkdtemp(dir) == NULL) {
            abort();
        }
        put("tokenizer.model", model, sizeof(model) - 1);
        (void) atexit(clean);
    }

    for (i = 0; i < 3; i++) {
        end = len > 0 ? memchr(p, 0, len) : NULL;
        n = end != NULL ? (size_t) (end - p) : len;
        drop(names[i]);
        if (n > 0) {
            put(names[i], p, n);
        }
        n += end != NULL;
        p += n;
        len -= n;
    }

    t = token_open_dir(dir, err, sizeof(err));
    if (t == NULL) {
        if (strncmp(err, dir, strlen(dir)) != 0) {
            abort();
        }
        return 0;
    }
    len = len < TEXT_MAX ? len : TEXT_MAX;
    check(t, (const char *) p, len);
    token_use(t, (const char *) p, len, TOKEN_F_BOS);
    token_use(t, (const char *) p, len, TOKEN_F_SPECIAL);
    token_close(t);

    return 0;
}
