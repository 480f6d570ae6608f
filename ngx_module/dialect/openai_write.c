
/*
 * OpenAI's answers.
 *
 * DESIGN.  A streamed chunk is written straight into the output: the part
 * that all chunks of an answer share (id, model, time) is rendered once, with
 * the first event, and copied from then on.  An answer that is not streamed
 * collects its text, already escaped, and its logprobs, already JSON, one
 * buffer per choice and list, so that its end is a few copies.
 *
 * The order of fields and of chunks is the real service's:
 *
 *     each choice:  role, empty content; content ...; empty delta, finish
 *     then          no choices, usage (if stream_options asks), [DONE]
 *
 * Completions have no role chunk, and their finish chunk has an empty text.
 * What a model thought before its answer, if the engine tells it from that, is
 * reasoning_content in the message or delta, as several servers have it; its
 * calls of tools are tool_calls (openai_calls.c).
 * Text goes out as events bring it: the engine splits no character.  Bytes of
 * a single token, in logprobs, may well be a part of one.
 *
 * An event that makes no sense (a choice out of range, text after the end of
 * its choice, logprob entries that do not add up, DONE before each choice has
 * finished) is refused whole: a->out stays as it was.
 */


#include "openai.h"


static uint32_t
llm_openai_choices(const llm_call_t *call)
{
    uint64_t  n;

    n = call->head.n;

    if (call->route == LLM_ROUTE_TEXT) {
        n *= call->prompts_n;
    }

    return n > LLM_CHOICES_MAX ? LLM_CHOICES_MAX : (uint32_t) n;
}


llm_buf_t *
llm_openai_buf(llm_answer_t *a, llm_buf_t *b)
{
    if (b->alloc == NULL) {
        llm_buf_init(b, a->out.max, a->out.alloc, a->out.arg);
    }

    return b;
}


/*
 * Of a call that the client has named OpenAI says that it just ended.  A text
 * that obeys and was cut off is not what was asked for: it says so, in the
 * words of the Responses API.
 */

static const char *
llm_openai_finish(const llm_call_t *call, uint32_t finish)
{
    switch (finish) {

    case LLM_FINISH_STOP:
        return "\"stop\"";

    case LLM_FINISH_LENGTH:
        return call->head.flags & LLM_F_GRAMMAR
               ? "\"length\",\"incomplete_details\":"
                 "{\"reason\":\"max_output_tokens\"}"
               : "\"length\"";

    case LLM_FINISH_CALLS:
        return call->named ? "\"stop\"" : "\"tool_calls\"";

    default:
        return "null";
    }
}


static int
llm_openai_is_call(const llm_wire_tokens_t *t)
{
    return t->kind == LLM_TEXT_CALL || t->kind == LLM_TEXT_ARGUMENTS;
}


/* {"id":..., up to and without "choices" */

static void
llm_openai_head(llm_answer_t *a, llm_buf_t *b)
{
    int  chat;

    chat = (a->call->route == LLM_ROUTE_CHAT);

    llm_buf_str(b, chat ? "{\"id\":\"chatcmpl-" : "{\"id\":\"cmpl-");
    llm_buf_json(b, a->id.data, a->id.len);
    llm_buf_lit(b, "\",\"object\":\"");
    llm_buf_str(b, !chat ? "text_completion"
                   : a->call->stream ? "chat.completion.chunk"
                   : "chat.completion");
    llm_buf_lit(b, "\",\"created\":");
    llm_buf_u64(b, a->created < 0 ? 0 : (uint64_t) a->created);
    llm_buf_lit(b, ",\"model\":\"");
    llm_buf_json(b, a->model.data, a->model.len);

    if (a->fingerprint.len != 0) {
        llm_buf_lit(b, "\",\"system_fingerprint\":\"");
        llm_buf_json(b, a->fingerprint.data, a->fingerprint.len);
        llm_buf_lit(b, "\",");

    } else {
        llm_buf_lit(b, "\",\"system_fingerprint\":null,");
    }
}


static void
llm_openai_usage(llm_answer_t *a, llm_buf_t *b, const llm_wire_done_t *d)
{
    uint32_t  i, thought;

    thought = 0;

    for (i = 0; i < LLM_CHOICES_MAX; i++) {
        thought += a->choices[i].thought;
    }

    if (thought > d->completion_tokens) {
        thought = d->completion_tokens;
    }

    llm_buf_lit(b, "\"usage\":{\"prompt_tokens\":");
    llm_buf_u64(b, d->prompt_tokens);
    llm_buf_lit(b, ",\"completion_tokens\":");
    llm_buf_u64(b, d->completion_tokens);
    llm_buf_lit(b, ",\"total_tokens\":");
    llm_buf_u64(b, (uint64_t) d->prompt_tokens + d->completion_tokens);
    llm_buf_lit(b, ",\"prompt_tokens_details\":{\"cached_tokens\":");
    llm_buf_u64(b, d->cached_tokens);
    llm_buf_lit(b, "},\"completion_tokens_details\":"
                   "{\"reasoning_tokens\":");
    llm_buf_u64(b, thought);
    llm_buf_lit(b, "}}");
}


static void
llm_openai_chunk_head(llm_answer_t *a)
{
    llm_buf_t  *head;

    head = llm_openai_buf(a, &a->head);

    if (head->len == 0) {
        llm_buf_lit(head, "data: ");
        llm_openai_head(a, head);
        llm_buf_lit(head, "\"choices\":[");
    }

    if (head->failed) {
        a->out.failed = 1;
        return;
    }

    llm_buf_add(&a->out, head->data, head->len);
}


static void
llm_openai_chunk_tail(llm_answer_t *a, const char *finish)
{
    llm_buf_lit(&a->out, ",\"finish_reason\":");
    llm_buf_str(&a->out, finish);

    if (a->call->include_usage) {
        llm_buf_lit(&a->out, "}],\"usage\":null}\n\n");

    } else {
        llm_buf_lit(&a->out, "}]}\n\n");
    }
}


void
llm_openai_delta_begin(llm_answer_t *a, uint32_t choice)
{
    llm_openai_chunk_head(a);
    llm_buf_lit(&a->out, "{\"index\":");
    llm_buf_u64(&a->out, choice);
    llm_buf_lit(&a->out, ",\"delta\":{");
}


void
llm_openai_delta_end(llm_answer_t *a)
{
    llm_buf_lit(&a->out, "},\"logprobs\":null");
    llm_openai_chunk_tail(a, "null");
}


static int
llm_openai_chat_chunk(llm_answer_t *a, const llm_wire_tokens_t *t,
    const uint8_t *text, const uint8_t *lp)
{
    int         rc;
    llm_buf_t  *out, *list;

    out = &a->out;

    llm_openai_chunk_head(a);
    llm_buf_lit(out, "{\"index\":");
    llm_buf_u64(out, t->choice);
    llm_buf_str(out, t->kind == LLM_TEXT_REASONING
                     ? ",\"delta\":{\"reasoning_content\":\""
                     : ",\"delta\":{\"content\":\"");
    llm_buf_json(out, (const char *) text, t->text_len);

    if (!(a->call->head.flags & LLM_F_LOGPROBS)) {
        llm_buf_lit(out, "\"},\"logprobs\":null");
        llm_openai_chunk_tail(a, "null");
        return 0;
    }

    list = llm_openai_buf(a, &a->choices[t->choice].logprobs);
    list->len = 0;

    rc = llm_openai_chat_lps(list, lp, t->lp_len);
    if (rc != 0) {
        return rc;
    }

    out->failed |= list->failed;

    llm_buf_lit(out, "\"},\"logprobs\":{\"content\":[");
    llm_buf_add(out, list->data, list->len);
    llm_buf_lit(out, "],\"refusal\":null}");
    llm_openai_chunk_tail(a, "null");

    return 0;
}


/* text of a call in chunks of its own, its tokens' logprobs in one behind */

static int
llm_openai_call_event(llm_answer_t *a, const llm_wire_tokens_t *t,
    const uint8_t *text, const uint8_t *lp)
{
    int                rc;
    llm_wire_tokens_t  rest;

    rc = llm_openai_call_chunk(a, t, text);

    if (rc != 0 || t->lp_len == 0
        || !(a->call->head.flags & LLM_F_LOGPROBS))
    {
        return rc;
    }

    rest = *t;
    rest.text_len = 0;
    rest.kind = LLM_TEXT_ANSWER;

    return llm_openai_chat_chunk(a, &rest, text, lp);
}


static int
llm_openai_text_chunk(llm_answer_t *a, const llm_wire_tokens_t *t,
    const uint8_t *text, const uint8_t *lp)
{
    int         rc, i;
    llm_buf_t  *out, *lists;

    out = &a->out;

    llm_openai_chunk_head(a);
    llm_buf_lit(out, "{\"index\":");
    llm_buf_u64(out, t->choice);
    llm_buf_lit(out, ",\"text\":\"");
    llm_buf_json(out, (const char *) text, t->text_len);

    if (!(a->call->head.flags & LLM_F_LOGPROBS)) {
        llm_buf_lit(out, "\",\"logprobs\":null");
        llm_openai_chunk_tail(a, "null");
        return 0;
    }

    lists = a->choices[t->choice].lp_aux;

    for (i = 0; i < LLM_OPENAI_LISTS; i++) {
        lists[i].len = 0;
    }

    rc = llm_openai_text_lps(a, t->choice, lp, t->lp_len);
    if (rc != 0) {
        return rc;
    }

    for (i = 0; i < LLM_OPENAI_LISTS; i++) {
        out->failed |= lists[i].failed;
    }

    llm_buf_lit(out, "\",\"logprobs\":");
    llm_openai_text_lists(a, out, t->choice);
    llm_openai_chunk_tail(a, "null");

    return 0;
}


/* the chunks of one event of a stream */

static int
llm_openai_stream(llm_answer_t *a, const llm_wire_tokens_t *t,
    const uint8_t *text, const uint8_t *lp)
{
    int         rc, chat;
    llm_buf_t  *out;

    out = &a->out;
    chat = (a->call->route == LLM_ROUTE_CHAT);

    if (chat && !a->choices[t->choice].started) {
        llm_openai_chunk_head(a);
        llm_buf_lit(out, "{\"index\":");
        llm_buf_u64(out, t->choice);
        llm_buf_lit(out, ",\"delta\":{\"role\":\"assistant\",\"content\":\"\","
                         "\"refusal\":null},\"logprobs\":");
        llm_buf_str(out, a->call->head.flags & LLM_F_LOGPROBS
                         ? "{\"content\":[],\"refusal\":null}" : "null");
        llm_openai_chunk_tail(a, "null");
    }

    if (t->text_len != 0
        || (t->lp_len != 0 && a->call->head.flags & LLM_F_LOGPROBS))
    {
        rc = !chat ? llm_openai_text_chunk(a, t, text, lp)
             : llm_openai_is_call(t) ? llm_openai_call_event(a, t, text, lp)
             : llm_openai_chat_chunk(a, t, text, lp);
        if (rc != 0) {
            return rc;
        }
    }

    if (t->finish != LLM_FINISH_NONE) {
        llm_openai_chunk_head(a);
        llm_buf_lit(out, "{\"index\":");
        llm_buf_u64(out, t->choice);
        llm_buf_str(out, chat ? ",\"delta\":{},\"logprobs\":null"
                              : ",\"text\":\"\",\"logprobs\":null");
        llm_openai_chunk_tail(a, llm_openai_finish(a->call, t->finish));
    }

    return 0;
}


/*
 * Those of the prompt go into a field of their own, and are passed over unless
 * they stand before the answer's as well.
 */

static int
llm_openai_collect_prompt(llm_answer_t *a, const llm_wire_tokens_t *t,
    const uint8_t **lp, uint32_t *left)
{
    int             rc;
    uint32_t        rest;
    llm_buf_t      *b;
    const uint8_t  *p;

    if (t->prompt == 0 || !a->call->prompt_logprobs) {
        return 0;
    }

    p = *lp;
    rest = *left;
    b = llm_openai_buf(a, &a->choices[t->choice].prompt_lps);

    rc = llm_openai_prompt_lps(b, &p, &rest, t->prompt);
    if (rc != 0) {
        return rc;
    }

    if (b->failed) {
        return -LLM_ERR_NO_MEMORY;
    }

    if (!(a->call->head.flags & LLM_F_ECHO)) {
        *lp = p;
        *left = rest;
    }

    return 0;
}


/* the same for an answer that is not streamed: nothing goes out yet */

static int
llm_openai_collect(llm_answer_t *a, const llm_wire_tokens_t *t,
    const uint8_t *text, const uint8_t *lp)
{
    int         rc, i;
    uint32_t    left;
    llm_buf_t  *b, *lists;

    left = t->lp_len;
    rc = llm_openai_collect_prompt(a, t, &lp, &left);
    if (rc != 0) {
        return rc;
    }

    if (llm_openai_is_call(t)) {
        rc = llm_openai_call_collect(a, t, text);
        if (rc != 0) {
            return rc;
        }

    } else {
        b = llm_openai_buf(a, t->kind == LLM_TEXT_REASONING
                              ? &a->choices[t->choice].reasoning
                              : &a->choices[t->choice].text);
        llm_buf_json(b, (const char *) text, t->text_len);

        if (b->failed) {
            return -LLM_ERR_NO_MEMORY;
        }
    }

    if (!(a->call->head.flags & LLM_F_LOGPROBS)) {
        return 0;
    }

    if (a->call->route == LLM_ROUTE_CHAT) {
        b = llm_openai_buf(a, &a->choices[t->choice].logprobs);
        rc = llm_openai_chat_lps(b, lp, left);

        return rc != 0 ? rc : b->failed ? -LLM_ERR_NO_MEMORY : 0;
    }

    rc = llm_openai_text_lps(a, t->choice, lp, left);
    if (rc != 0) {
        return rc;
    }

    lists = a->choices[t->choice].lp_aux;

    for (i = 0; i < LLM_OPENAI_LISTS; i++) {
        if (lists[i].failed) {
            return -LLM_ERR_NO_MEMORY;
        }
    }

    return 0;
}


int
llm_openai_tokens(llm_answer_t *a, const llm_wire_tokens_t *t,
    const uint8_t *text, const uint8_t *lp)
{
    int     rc;
    size_t  was;

    if (a->call->head.flags & LLM_F_PROMPT) {
        return llm_openai_ids_tokens(a, t, text);
    }

    if (t->choice >= llm_openai_choices(a->call) || t->finish >= LLM_FINISHES
        || (t->kind != LLM_TEXT_ANSWER && a->call->route != LLM_ROUTE_CHAT)
        || ((llm_openai_is_call(t) || t->finish == LLM_FINISH_CALLS)
            && !(a->call->head.wants & LLM_W_CALLS))
        || a->choices[t->choice].finish != LLM_FINISH_NONE)
    {
        return -LLM_ERR_PROTOCOL;
    }

    was = a->out.len;

    rc = a->call->stream ? llm_openai_stream(a, t, text, lp)
                         : llm_openai_collect(a, t, text, lp);

    if (rc == 0 && a->out.failed) {
        rc = -LLM_ERR_NO_MEMORY;
    }

    if (rc != 0) {
        a->out.len = was;
        a->out.failed = 0;
        return rc;
    }

    a->choices[t->choice].started = 1;
    a->choices[t->choice].finish = t->finish;
    a->choices[t->choice].tokens += t->tokens;
    a->choices[t->choice].thought += t->reasoning;
    a->choices[t->choice].text_offset += llm_openai_chars(text, t->text_len);

    return 0;
}


/* a conversation is one prompt, a completion's choice has its own */

static void
llm_openai_prompt_out(llm_answer_t *a, uint32_t i)
{
    llm_buf_t  *b;

    if (a->call->prompt_logprobs) {
        b = &a->choices[i].prompt_lps;
        llm_buf_lit(&a->out, ",\"prompt_logprobs\":[");
        llm_buf_add(&a->out, b->data, b->len);
        llm_buf_lit(&a->out, "]");
    }
}


/* no text behind a thought, or before a call, is null: nothing was said */

static void
llm_openai_message_out(llm_answer_t *a, uint32_t i)
{
    llm_buf_t  *out, *text, *reasoning;

    out = &a->out;
    text = &a->choices[i].text;
    reasoning = &a->choices[i].reasoning;

    llm_buf_lit(out, ",\"message\":{\"role\":\"assistant\",\"content\":");

    if (text->len == 0
        && (reasoning->len != 0 || a->choices[i].call_open))
    {
        llm_buf_lit(out, "null");

    } else {
        llm_buf_lit(out, "\"");
        llm_buf_add(out, text->data, text->len);
        llm_buf_lit(out, "\"");
    }

    if (reasoning->len != 0) {
        llm_buf_lit(out, ",\"reasoning_content\":\"");
        llm_buf_add(out, reasoning->data, reasoning->len);
        llm_buf_lit(out, "\"");
    }

    llm_openai_calls_out(a, out, i);

    llm_buf_lit(out, ",\"refusal\":null}");
}


static void
llm_openai_choice(llm_answer_t *a, uint32_t i)
{
    int         chat, lps;
    llm_buf_t  *out, *b;

    out = &a->out;
    chat = (a->call->route == LLM_ROUTE_CHAT);
    lps = (a->call->head.flags & LLM_F_LOGPROBS) != 0;

    llm_buf_lit(out, "{\"index\":");
    llm_buf_u64(out, i);

    if (chat) {
        llm_openai_message_out(a, i);

    } else {
        b = &a->choices[i].text;
        llm_buf_lit(out, ",\"text\":\"");
        llm_buf_add(out, b->data, b->len);
        llm_buf_lit(out, "\"");
    }

    llm_buf_lit(out, ",\"logprobs\":");

    if (!lps) {
        llm_buf_lit(out, "null");

    } else if (chat) {
        b = &a->choices[i].logprobs;
        llm_buf_lit(out, "{\"content\":[");
        llm_buf_add(out, b->data, b->len);
        llm_buf_lit(out, "],\"refusal\":null}");

    } else {
        llm_openai_text_lists(a, out, i);
    }

    llm_buf_lit(out, ",\"finish_reason\":");
    llm_buf_str(out, llm_openai_finish(a->call, a->choices[i].finish));

    if (!chat) {
        llm_openai_prompt_out(a, i);
    }

    llm_buf_lit(out, "}");
}


int
llm_openai_done(llm_answer_t *a, const llm_wire_done_t *d)
{
    size_t      was;
    uint32_t    i, n;
    llm_buf_t  *out;

    if (a->call->head.flags & LLM_F_PROMPT) {
        return llm_openai_ids_done(a);
    }

    out = &a->out;
    was = out->len;
    n = llm_openai_choices(a->call);

    for (i = 0; i < n; i++) {
        if (a->choices[i].finish == LLM_FINISH_NONE) {
            return -LLM_ERR_PROTOCOL;
        }
    }

    if (a->call->stream) {

        if (a->call->include_usage) {
            llm_openai_chunk_head(a);
            llm_buf_lit(out, "],");
            llm_openai_usage(a, out, d);
            llm_buf_lit(out, "}\n\n");
        }

        llm_buf_lit(out, "data: [DONE]\n\n");

    } else {
        llm_openai_head(a, out);
        llm_buf_lit(out, "\"choices\":[");

        for (i = 0; i < n; i++) {
            if (i != 0) {
                llm_buf_lit(out, ",");
            }

            llm_openai_choice(a, i);
        }

        llm_buf_lit(out, "],");
        llm_openai_usage(a, out, d);

        if (a->call->route == LLM_ROUTE_CHAT) {
            llm_openai_prompt_out(a, 0);
        }

        llm_buf_lit(out, "}\n");
    }

    if (out->failed) {
        out->len = was;
        out->failed = 0;
        return -LLM_ERR_NO_MEMORY;
    }

    return 0;
}
