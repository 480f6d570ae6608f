/*
 * Any bytes as a safetensors file, with a config.json before it if there is a
 * 0 byte: opened, walked, and opened as a model, whose experts' matrices are
 * made dense where they are not.  Would catch a read outside
 * of the file, an endless loop and an allocation that the file's size does not
 * justify.
 */
#include "model_impl.h"
#include "safetensors.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
walk(const uint8_t *data, size_t size)
{
    uint32_t i, n;
    uint64_t sum = 0;
    char err[256] = "";
    safetensors_t *s;
    const tensor_t *t;

    s = safetensors_open_mem(data, size, "mem", err, sizeof(err));

    if (s == NULL) {
        assert(strncmp(err, "mem: ", 5) == 0);
        return;
    }

    t = safetensors_tensors(s, &n);

    for (i = 0; i < n; i++) {
        assert(t[i].data >= data && t[i].data + t[i].size <= data + size);
        sum += t[i].size > 0 ? t[i].data[t[i].size - 1] : 0;
        sum += t[i].name.len > 0 ? (uint8_t) t[i].name.s[0] : 0;
    }

    assert(sum < UINT64_MAX);
    safetensors_close(s);
}

/* What loading makes of the n matrices of list, which may be none. */
static void
walk_experts(const tensor_t **list, uint32_t n)
{
    uint32_t i;
    uint8_t *p;

    for (i = 0; list != NULL && i < n; i++) {
        if (tensor_is_dense(list[i])) {
            continue;
        }

        p = malloc(list[i]->size + 1);
        assert(p != NULL);
        tensor_dense(list[i], p);
        free(p);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char err[256] = "";
    double freq[512];
    const uint8_t *zero = size > 0 ? memchr(data, 0, size) : NULL;
    size_t head = zero == NULL ? 0 : (size_t) (zero - data) + 1;
    model_t *m;
    const model_layer_t *last;

    walk(data + head, size - head);

    if (head == 0) {
        return 0;
    }

    m = model_hf_open_mem((const char *) data, head - 1, data + head,
        size - head, err, sizeof(err));

    if (m == NULL) {
        assert(strncmp(err, "mem: ", 5) == 0);
        return 0;
    }

    (void) model_rope_freqs(m, 0, model_info(m)->context, freq);
    last = model_layer(m, model_info(m)->layers - 1);
    assert(last->down != NULL || last->experts_down != NULL);
    walk_experts(last->experts_gate, model_info(m)->experts);
    walk_experts(last->experts_up, model_info(m)->experts);
    walk_experts(last->experts_down, model_info(m)->experts);
    model_close(m);
    return 0;
}
