
/*
 * The requests that are in an engine, as a part of llm_status's JSON.
 *
 * DESIGN.  They are read from behind the engine's state page, which the engine
 * alone can write (llm_live.h): so any worker shows those of all workers, and
 * no worker can make one up.  The engine's memory is input here: the list is
 * judged each time, a row is copied before it is looked at, and its text, in
 * which a client may have had a say, is escaped.  An engine that keeps no list
 * has none here either.
 *
 * The rows name tenants, so llm_status belongs in a location that only those
 * can reach who may know them.
 */


#include "ngx_http_llm_module.h"
#include "llm_live.h"


static void ngx_http_llm_live_step(llm_buf_t *out, llm_live_t *live);
static void ngx_http_llm_live_row(llm_buf_t *out, llm_live_row_t *row,
    uint64_t now);
static void ngx_http_llm_live_text(llm_buf_t *out, const char *name,
    uint64_t *words);
static void ngx_http_llm_live_number(llm_buf_t *out, const char *name,
    uint64_t value);


/* adds ,"step":{...},"requests":[...] */

void
ngx_http_llm_live_json(llm_buf_t *out, ngx_http_llm_channel_t *ch)
{
    uint32_t         i, n;
    uint64_t         now;
    llm_live_t       live;
    llm_live_row_t   row;
    struct timespec  ts;

    if (!llm_live_open(&live, ch->state, ch->state_size)) {
        return;
    }

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);
    now = (uint64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;

    ngx_http_llm_live_step(out, &live);

    llm_buf_lit(out, ",\"requests\":[");

    n = 0;

    for (i = 0; i < llm_live_rows(&live); i++) {
        if (llm_live_row(&live, i, &row)) {
            llm_buf_str(out, n++ ? ",\n{" : "\n{");
            ngx_http_llm_live_row(out, &row, now);
        }
    }

    llm_buf_lit(out, "]");
}


/* the last one, and what limits them */

static void
ngx_http_llm_live_step(llm_buf_t *out, llm_live_t *live)
{
    uint64_t                n;
    llm_live_step_t         step;
    const llm_live_head_t  *head;

    head = llm_live_head(live);

    n = llm_live_get(&head->steps);
    llm_live_step_read(n ? llm_live_step_at(live, n - 1) : 0, &step);

    llm_buf_lit(out, ",\"step\":{");
    ngx_http_llm_live_number(out, "us", step.us);
    ngx_http_llm_live_number(out, "target_us",
                             llm_live_get(&head->step_target_us));
    ngx_http_llm_live_number(out, "prefill_tokens", step.prefill);
    ngx_http_llm_live_number(out, "decode_rows", step.decode);
    ngx_http_llm_live_number(out, "tokens_max", live->head.batch_tokens);
    llm_buf_lit(out, "\"rows_max\":");
    llm_buf_u64(out, live->head.batch_rows);
    llm_buf_lit(out, "}");
}


static void
ngx_http_llm_live_row(llm_buf_t *out, llm_live_row_t *row, uint64_t now)
{
    uint64_t  until;

    until = row->begun_us ? row->begun_us : now;

    ngx_http_llm_live_text(out, "id", row->id);
    ngx_http_llm_live_text(out, "tenant", row->tenant);
    ngx_http_llm_live_number(out, "class", row->priority);
    llm_buf_lit(out, "\"state\":\"");
    llm_buf_str(out, llm_live_state_name(row->who));
    llm_buf_lit(out, "\",");
    ngx_http_llm_live_number(out, "choices", row->choices);
    ngx_http_llm_live_number(out, "prompt_tokens", row->prompt);
    ngx_http_llm_live_number(out, "cached_tokens", row->cached);
    ngx_http_llm_live_number(out, "computed_tokens", row->computed);
    ngx_http_llm_live_number(out, "completion_tokens", row->sampled);
    ngx_http_llm_live_number(out, "max_tokens", row->limit);
    ngx_http_llm_live_number(out, "blocks", row->blocks);
    ngx_http_llm_live_number(out, "wait_ms", until > row->arrival_us
                                             ? (until - row->arrival_us) / 1000
                                             : 0);
    llm_buf_lit(out, "\"age_ms\":");
    llm_buf_u64(out, now > row->arrival_us ? (now - row->arrival_us) / 1000
                                           : 0);
    llm_buf_lit(out, "}");
}


static void
ngx_http_llm_live_text(llm_buf_t *out, const char *name, uint64_t *words)
{
    char      text[LLM_LIVE_TEXT + 1];
    uint32_t  len;

    len = llm_live_text(words, text);

    llm_buf_lit(out, "\"");
    llm_buf_str(out, name);
    llm_buf_lit(out, "\":\"");
    llm_buf_json(out, text, len);
    llm_buf_lit(out, "\",");
}


static void
ngx_http_llm_live_number(llm_buf_t *out, const char *name, uint64_t value)
{
    llm_buf_lit(out, "\"");
    llm_buf_str(out, name);
    llm_buf_lit(out, "\":");
    llm_buf_u64(out, value);
    llm_buf_lit(out, ",");
}
