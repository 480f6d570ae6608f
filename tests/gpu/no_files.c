/*
 * The programs of this directory link the C library and CUDA only, and so not
 * the reader of Hugging Face's directories, which needs jansson: there is none.
 */
#include "model_impl.h"

#include <stdio.h>

int
model_hf_is(const char *path)
{
    (void) path;
    return 0;
}

model_t *
model_hf_open(const char *path, char *err, size_t errlen)
{
    snprintf(err, errlen, "%s: this program reads no directories", path);
    return NULL;
}

void
model_hf_close(model_hf_t *hf)
{
    (void) hf;
}

uint32_t
model_hf_files(const model_hf_t *hf)
{
    (void) hf;
    return 0;
}

const char *
model_hf_dir(const model_hf_t *hf)
{
    (void) hf;
    return NULL;
}
