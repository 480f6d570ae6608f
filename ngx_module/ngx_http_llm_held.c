
/*
 * Text that waits because its client is slow.
 *
 * DESIGN.  It is held as it came, joined per choice: a token rendered as an
 * event is fifty times its text.  Beside the text, stretches say what is
 * thought and what is answer, as one event has text of one kind.  Rendered
 * text gives its place to new: a client that is always a little late never
 * lets a buffer become empty.
 *
 * Memory is the request's pool's; credit bounds it (ngx_http_llm_stream.c).
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_PIECE     2048     /* of held text, in one event */


static void ngx_http_llm_held_kind(ngx_http_llm_held_t *h, uint32_t kind,
    size_t n);
static void ngx_http_llm_held_shift(llm_buf_t *b, size_t *pos, size_t n);
static size_t ngx_http_llm_held_lp_size(const uint8_t *lp, size_t len);


ngx_int_t
ngx_http_llm_held_add(ngx_http_llm_ctx_t *ctx,
    const llm_wire_tokens_t *t, const uint8_t *text, const uint8_t *lp)
{
    ngx_uint_t            i;
    ngx_pool_t           *pool;
    ngx_http_llm_held_t  *h;

    if (ctx->held == NULL) {

        pool = ctx->request->pool;

        ctx->held = ngx_pcalloc(pool,
                                ctx->choices * sizeof(ngx_http_llm_held_t));
        if (ctx->held == NULL) {
            return NGX_ERROR;
        }

        for (i = 0; i < ctx->choices; i++) {
            llm_buf_init(&ctx->held[i].text, ctx->answer->out.max,
                         ngx_http_llm_alloc, pool);
            llm_buf_init(&ctx->held[i].logprobs, ctx->answer->out.max,
                         ngx_http_llm_alloc, pool);
            llm_buf_init(&ctx->held[i].kinds, ctx->answer->out.max,
                         ngx_http_llm_alloc, pool);
        }
    }

    h = &ctx->held[t->choice];

    ngx_http_llm_held_shift(&h->text, &h->text_pos, t->text_len);
    ngx_http_llm_held_shift(&h->logprobs, &h->logprobs_pos, t->lp_len);

    llm_buf_add(&h->text, text, t->text_len);
    llm_buf_add(&h->logprobs, lp, t->lp_len);

    if (t->text_len != 0) {
        ngx_http_llm_held_kind(h, t->kind, t->text_len);
    }

    if (h->text.failed || h->logprobs.failed || h->kinds.failed) {
        return NGX_ERROR;
    }

    h->tokens += t->tokens;
    h->reasoning += t->reasoning;

    if (h->finish == LLM_FINISH_NONE) {
        h->finish = t->finish;
    }

    ctx->held_payload += (size_t) t->text_len + t->lp_len;
    ctx->holding = 1;

    return NGX_OK;
}


/* n bytes of a kind join those held, which are told apart by stretches */

static void
ngx_http_llm_held_kind(ngx_http_llm_held_t *h, uint32_t kind, size_t n)
{
    ngx_http_llm_kind_t  k;

    if (h->kinds.len > h->kinds_pos) {

        ngx_memcpy(&k, h->kinds.data + h->kinds.len - sizeof(k), sizeof(k));

        if (k.kind == kind) {
            k.len += n;
            ngx_memcpy(h->kinds.data + h->kinds.len - sizeof(k), &k, sizeof(k));
            return;
        }
    }

    k.kind = kind;
    k.len = n;

    ngx_http_llm_held_shift(&h->kinds, &h->kinds_pos, sizeof(k));
    llm_buf_add(&h->kinds, &k, sizeof(k));
}


/*
 * What has been rendered gives its place to n new bytes, if there is no other:
 * a client that is slow enough never lets the buffer become empty.
 */

static void
ngx_http_llm_held_shift(llm_buf_t *b, size_t *pos, size_t n)
{
    if (*pos == 0 || n <= b->cap - b->len) {
        return;
    }

    b->len -= *pos;
    ngx_memmove(b->data, b->data + *pos, b->len);
    *pos = 0;
}


/*
 * Cuts a piece of a choice's held text, between characters and between logprob
 * entries; the tokens and the end go with the last piece.
 */

void
ngx_http_llm_held_piece(ngx_http_llm_ctx_t *ctx, ngx_uint_t choice,
    llm_wire_tokens_t *t, const uint8_t **text, const uint8_t **lp)
{
    size_t                n;
    ngx_http_llm_kind_t   k;
    ngx_http_llm_held_t  *h;

    h = &ctx->held[choice];

    *text = (uint8_t *) h->text.data + h->text_pos;
    n = 0;
    k.kind = LLM_TEXT_ANSWER;

    if (h->kinds.len > h->kinds_pos) {
        ngx_memcpy(&k, h->kinds.data + h->kinds_pos, sizeof(k));
        n = k.len;
    }

    if (n > NGX_HTTP_LLM_PIECE) {
        n = NGX_HTTP_LLM_PIECE;

        while (n > NGX_HTTP_LLM_PIECE - 4 && ((*text)[n] & 0xc0) == 0x80) {
            n--;
        }
    }

    ngx_memzero(t, sizeof(llm_wire_tokens_t));

    t->choice = (uint32_t) choice;
    t->text_len = (uint32_t) n;
    t->kind = k.kind;

    if (n != 0) {
        k.len -= n;
        ngx_memcpy(h->kinds.data + h->kinds_pos, &k, sizeof(k));
        h->kinds_pos += k.len ? 0 : sizeof(k);
    }

    *lp = (uint8_t *) h->logprobs.data + h->logprobs_pos;
    t->lp_len = (uint32_t) ngx_http_llm_held_lp_size(*lp,
                                         h->logprobs.len - h->logprobs_pos);

    h->text_pos += t->text_len;
    h->logprobs_pos += t->lp_len;

    ctx->held_payload -= (size_t) t->text_len + t->lp_len;
    ctx->out_payload += (size_t) t->text_len + t->lp_len;

    if (h->text_pos == h->text.len && h->logprobs_pos == h->logprobs.len) {

        t->tokens = h->tokens;
        t->reasoning = h->reasoning;
        t->finish = h->finish;

        h->text.len = 0;
        h->text_pos = 0;
        h->logprobs.len = 0;
        h->logprobs_pos = 0;
        h->kinds.len = 0;
        h->kinds_pos = 0;
        h->tokens = 0;
        h->reasoning = 0;
        h->finish = LLM_FINISH_NONE;
    }
}


/*
 * How much of len bytes of logprobs makes a piece: whole entries, each with
 * its alternatives.  Nonsense is one piece: the dialect refuses it.
 */

static size_t
ngx_http_llm_held_lp_size(const uint8_t *lp, size_t len)
{
    size_t          size;
    uint32_t        left;
    ngx_uint_t      top;
    const uint8_t  *p, *bytes;
    llm_wire_lp_t   e;

    p = lp;
    left = (uint32_t) len;
    size = 0;
    top = 0;

    while (left) {

        if (llm_lp_next(&p, &left, &e, &bytes) != 1) {
            return len;
        }

        if (top) {
            top--;

        } else {
            top = e.top;
        }

        if (top == 0) {

            /* the end of an entry: does it still belong to this piece? */

            if (size && (size_t) (p - lp) > NGX_HTTP_LLM_PIECE) {
                return size;
            }

            size = p - lp;
        }
    }

    return len;
}
