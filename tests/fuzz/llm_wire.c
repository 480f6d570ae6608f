/*
 * Would catch: a validator of engine/llm_wire.h that reads outside the bytes
 * it was given, says yes to what leads outside, or whose walk does not end.
 *
 * The first byte picks the validator; the rest is the record, in memory of
 * exactly its size, so that the sanitizer sees each byte too far.
 */
#include "llm_wire.h"

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
touch(const uint8_t *p, uint64_t len)
{
    uint64_t i;

    for (i = 0; i < len; i++) {
        (void) *(const volatile uint8_t *) (p + i);
    }
}


static void
walk_welcome(const uint8_t *p, uint32_t len)
{
    llm_msg_welcome_t m;
    uint64_t at[5], bytes[5];
    int i;

    memset(&m, 0, sizeof(m));
    memcpy(&m, p, len < sizeof(m) ? len : sizeof(m));

    if (!llm_welcome_ok(&m)) {
        return;
    }

    at[0] = m.submit_ctl, bytes[0] = sizeof(llm_ring_ctl_t);
    at[1] = m.event_ctl, bytes[1] = sizeof(llm_ring_ctl_t);
    at[2] = m.lines, bytes[2] = (uint64_t) m.slots * LLM_RING_LINE;
    at[3] = m.submit_data, bytes[3] = m.submit_size;
    at[4] = m.event_data, bytes[4] = m.event_size;

    for (i = 0; i < 5; i++) {
        must(at[i] % LLM_RING_LINE == 0);
        must(at[i] >= (i == 0 ? LLM_SEG_HEAD : at[i - 1] + bytes[i - 1]));
        must(at[i] <= m.seg_size && bytes[i] <= m.seg_size - at[i]);
    }
    must(llm_event_keep(m.slots) < m.event_size);
}


static void
walk_submit(const uint8_t *p, uint32_t len)
{
    llm_wire_sec_t sec;
    const uint8_t *body;
    uint32_t at = 0, last;
    int rc;

    for (;;) {
        last = at;
        rc = llm_submit_section(p, len, &at, &sec, &body);
        must(at <= len || rc == -1);
        if (rc != 1) {
            must(rc == 0 || rc == -1);
            break;
        }
        must(at > last && body >= p && (uint64_t) (body - p) + sec.len <= len);
        touch(body, sec.len);
    }
}


static void
walk_lp(const uint8_t *p, uint32_t len)
{
    const uint8_t *at = p, *bytes;
    uint32_t left = len;
    llm_wire_lp_t e;
    int rc;

    while ((rc = llm_lp_next(&at, &left, &e, &bytes)) == 1) {
        must(at + left == p + len && at >= bytes + e.len);
        must(e.top <= LLM_TOP_LOGPROBS_MAX);
        touch(bytes, e.len);
    }
    must(rc == 0 || rc == -1);
}


static void
walk_tokens(const uint8_t *p, uint32_t len)
{
    const uint8_t *text, *lp;
    llm_wire_tokens_t t;

    if (!llm_tokens_ok(p, len, &t, &text, &lp)) {
        return;
    }
    must(t.choice < LLM_CHOICES_MAX && t.finish < LLM_FINISHES);
    must(t.kind < LLM_TEXTS);
    touch(text, t.text_len);
    touch(lp, t.lp_len);
    walk_lp(lp, t.lp_len);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    void (*const walk[4])(const uint8_t *, uint32_t) = {
        walk_welcome, walk_submit, walk_tokens, walk_lp};
    uint8_t *p;

    if (size < 1 || size > 1 << 20) {
        return 0;
    }

    p = malloc(size - 1 ? size - 1 : 1);
    if (p == NULL) {
        return 0;
    }
    memcpy(p, data + 1, size - 1);
    walk[data[0] % 4](p, (uint32_t) (size - 1));
    free(p);

    return 0;
}
