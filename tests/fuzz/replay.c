/*
 * Feeds files to a fuzz target without a fuzzer: gcc, any sanitizer.  The
 * corpora of tests/data/fuzz/ and any input that once crashed are run so.
 *
 *   replay FILE...    exit 0 when each was taken; a find aborts
 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


/* The whole file in memory of exactly its size, so that a sanitizer sees. */
static uint8_t *
read_file(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    uint8_t *p = NULL, *more;
    size_t n;

    if (f == NULL) {
        goto failed;
    }

    for (*size = 0;; *size += n) {
        more = realloc(p, *size + 65536);
        if (more == NULL) {
            goto failed;
        }
        p = more;
        n = fread(p + *size, 1, 65536, f);
        if (n == 0) {
            break;
        }
    }
    if (ferror(f)) {
        goto failed;
    }
    (void) fclose(f);

    more = realloc(p, *size ? *size : 1);

    return more ? more : p;

failed:
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
    exit(1);
}


int
main(int argc, char **argv)
{
    size_t size;
    uint8_t *p;
    int i;

    if (argc < 2) {
        fprintf(stderr, "usage: %s FILE...\n", argv[0]);
        return 2;
    }

    for (i = 1; i < argc; i++) {
        p = read_file(argv[i], &size);
        (void) LLVMFuzzerTestOneInput(p, size);
        free(p);
    }

    printf("ok %s: %d inputs\n", argv[0], argc - 1);

    return 0;
}
