/*
 * Would catch: a judge of engine/llm_live.h that says yes to a list which
 * leads outside of the page, or a read behind the end of a row.
 *
 * The bytes are what follows LLM_STATE_SIZE in a state page, in memory of
 * exactly that size, so that the sanitizer sees each byte too far.  A page that
 * begins with something else is given the right magic, or hardly any would be
 * judged any further.  What they show is then drawn as llm-top draws it: no
 * byte may come out that a terminal would obey, and no line that is too long.
 */
#include "llm_live.h"
#include "top.h"

#include <locale.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
must(int holds)
{
    if (!holds) {
        abort();
    }
}


static void
walk(const uint8_t *page, uint64_t size)
{
    char text[LLM_LIVE_TEXT + 1];
    llm_live_tenant_t t;
    llm_live_row_t r;
    llm_live_t v;
    uint32_t i;

    if (!llm_live_open(&v, page, size)) {
        return;
    }
    for (i = 0; i < llm_live_rows(&v); i++) {
        if (llm_live_row(&v, i, &r)) {
            must(r.who != 0 && llm_live_text(r.id, text) <= LLM_LIVE_TEXT);
            must(llm_live_state_name(r.who) != NULL);
        }
    }
    for (i = 0; i < v.head.tenants_n; i++) {
        if (llm_live_tenant(&v, i, &t)) {
            must(llm_live_text(t.name, text) <= LLM_LIVE_TEXT);
        }
    }
    (void) llm_live_step_at(&v, 0);
    (void) llm_live_step_at(&v, UINT64_MAX);
}


static void
draw(uint8_t *page, uint64_t size)
{
    static top_snap_t snap;
    static top_counts_t was;
    static top_frame_t frame;
    top_view_t v = {40, 100, 1, 0, TOP_BY_tenant, 0, "", "", ""};
    const top_source_t source = {page, size};
    uint32_t i;
    uint8_t c;
    size_t k;

    if (frame.lines == NULL) {
        (void) setlocale(LC_CTYPE, "C.UTF-8");
        must(top_frame_open(&frame, 40) == 0);
    }
    top_take(&source, 2, &snap);
    v.utf8 = size % 2 == 0;
    v.sort = (top_sort_t) (size % TOP_SORTS_N);
    top_draw(&frame, &snap, was.us == 0 ? NULL : &was, &was, &v);
    was = snap.c;
    was.us = 1;

    must(frame.lines_n == 40);
    for (i = 0; i < frame.lines_n; i++) {
        for (k = 0; frame.lines[i][k] != '\0'; k++) {
            c = (uint8_t) frame.lines[i][k];
            must(c >= 0x20 && c != 0x7f && (v.utf8 || c < 0x80));
        }
        must(k >= 100 && (v.utf8 || k == 100));
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint64_t magic = LLM_LIVE_MAGIC;
    uint8_t *page;

    if (size > 1 << 20) {
        return 0;
    }

    page = calloc(1, LLM_LIVE_AT + size);
    if (page == NULL) {
        return 0;
    }
    memcpy(page + LLM_LIVE_AT, data, size);
    if (size >= sizeof(magic)) {
        memcpy(page + LLM_LIVE_AT, &magic, sizeof(magic));
    }
    walk(page, LLM_LIVE_AT + size);
    draw(page, LLM_LIVE_AT + size);
    free(page);

    return 0;
}
