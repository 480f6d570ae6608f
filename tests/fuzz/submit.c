/*
 * Would catch: a SUBMIT record that leads submit_parse, submit_check or
 * submit_fill outside its bytes, that one of them takes and the next asserts
 * against, and values that get past the checks and break a promise of req.h.
 *
 * The input is a record as it lies in the ring, in memory of exactly its size,
 * so that the sanitizer sees each byte too far.  The model is called "m" and
 * has 300 tokens.
 */
#include "submit.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


/* What must hold, also where assert() is compiled out. */
static void
must(int holds)
{
    if (!holds) {
        abort();
    }
}


static void
touch(const void *p, uint64_t len)
{
    uint64_t i;

    for (i = 0; i < len; i++) {
        (void) *((const volatile uint8_t *) p + i);
    }
}


/* What text_in, the scheduler and `sample` rely on. */
static void
check_req(const req_t *r, const submit_rules_t *rules, const uint8_t *keep,
    uint32_t keep_len)
{
    const sample_params_t *p = &r->params;
    uint32_t i;

    must(r->n >= 1 && r->prompts_n >= 1 && r->weight >= 1);
    must(r->choices == r->n * r->prompts_n && r->choices <= LLM_CHOICES_MAX);
    must(r->credit >= 1 && r->credit <= rules->credit_max);
    must(p->temperature >= 0 && p->temperature <= 2);
    must(p->top_p >= 0 && p->top_p <= 1 && p->min_p >= 0 && p->min_p <= 1);
    must(p->repetition_penalty > 0 && p->top_k <= rules->vocab);
    must(p->tops <= LLM_TOP_LOGPROBS_MAX && p->bias_n <= LLM_BIAS_MAX);
    must(strlen(r->id) >= 1 && strlen(r->id) < sizeof(r->id));
    must(strspn(r->id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                       "0123456789_.:-")
         == strlen(r->id));

    for (i = 0; i < p->bias_n; i++) {
        must(p->bias[i].token < rules->vocab);
    }
    must(r->stops_n <= LLM_STOPS_MAX);
    for (i = 0; i < r->stops_n; i++) {
        must(r->stops[i].len >= 1 && r->stops[i].len <= LLM_STOP_LEN_MAX);
        must((const uint8_t *) r->stops[i].s >= keep);
        must((const uint8_t *) r->stops[i].s + r->stops[i].len
             <= keep + keep_len);
        touch(r->stops[i].s, r->stops[i].len);
    }
}


static void
fill(const submit_t *s, const submit_rules_t *rules, const uint8_t *rec,
    uint32_t len)
{
    uint32_t n = submit_keep_size(s), i;
    uint8_t *keep = malloc(n > 0 ? n : 1);
    req_t *r = calloc(1, sizeof(*r));

    if (keep != NULL && r != NULL) {
        submit_fill(s, rules, rec, len, keep, r);
        check_req(r, rules, keep, n);
        must(s->inputs_n <= LLM_CHOICES_MAX);
        for (i = 0; i < s->inputs_n; i++) {
            must(s->inputs[i].p >= rec);
            must(s->inputs[i].p + s->inputs[i].len <= rec + len);
            touch(s->inputs[i].p, s->inputs[i].len);
        }
    }
    free(keep);
    free(r);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const submit_rules_t rules = {"m", 300, 65536};
    submit_fail_t why;
    submit_t s;
    uint8_t *rec;

    /* the ring hands out nothing shorter than a header */
    if (size < sizeof(llm_ring_hdr_t) || size > 1 << 20) {
        return 0;
    }

    rec = malloc(size);
    if (rec == NULL) {
        return 0;
    }
    memcpy(rec, data, size);

    if (submit_parse(rec, (uint32_t) size, &s) == 0) {
        memset(&why, 0xee, sizeof(why));
        if (submit_check(&s, &rules, &why) == 0) {
            fill(&s, &rules, rec, (uint32_t) size);
        } else {
            must(why.err != LLM_ERR_NONE && why.err < LLM_ERR_END);
            must(memchr(why.param, 0, sizeof(why.param)) != NULL);
            must(memchr(why.text, 0, sizeof(why.text)) != NULL);
        }
    }
    free(rec);

    return 0;
}
