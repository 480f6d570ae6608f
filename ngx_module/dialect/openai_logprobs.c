
/*
 * Logprobs as OpenAI writes them.
 *
 *     chat          [{"token","logprob","bytes","top_logprobs":[...]}, ...]
 *     completions   {"tokens","token_logprobs","top_logprobs","text_offset"},
 *                   four lists side by side; top_logprobs is null unless some
 *                   were asked for
 *     prompt          [null, {"TOKEN":{"logprob","rank","decoded_token"}, ...},
 *                   ...], the prompt's own token first, as vLLM has it
 *
 * The first token of a prompt has no logprob.  The rank of one that is not
 * among the best is not known, and null.
 *
 * A token's bytes may be a part of a character.  Chat has the exact bytes
 * beside the text, in which U+FFFD stands for the part; completions spell
 * them out.  text_offset counts characters of the answer's own text.
 *
 * Entries are input: what does not add up is refused.
 */


#include "openai.h"

#include <math.h>


/* OpenAI's own stand-in for a token that is very unlikely */
#define LLM_OPENAI_LOGPROB_MIN  (-9999.0f)


/* an entry of the wire with its bytes */

typedef struct {
    float           logprob;
    uint32_t        token;
    uint32_t        len;
    const uint8_t  *bytes;
} llm_openai_lp_t;


static void
llm_openai_logprob(llm_buf_t *b, float logprob)
{
    if (!(logprob >= LLM_OPENAI_LOGPROB_MIN)) {
        logprob = LLM_OPENAI_LOGPROB_MIN;
    }

    llm_buf_float(b, logprob > 0 ? 0 : logprob);
}


/* the next entry at *p; 0, or -LLM_ERR_PROTOCOL when there is none */

static int
llm_openai_lp_next(const uint8_t **p, uint32_t *left, llm_openai_lp_t *lp,
    uint32_t *tops)
{
    llm_wire_lp_t  e;

    if (llm_lp_next(p, left, &e, &lp->bytes) != 1) {
        return -LLM_ERR_PROTOCOL;
    }

    lp->logprob = e.logprob;
    lp->token = e.token;
    lp->len = e.len;
    *tops = e.top;

    return 0;
}


/* {"token":...,"logprob":...,"bytes":[...] and no closing brace */

static void
llm_openai_chat_lp(llm_buf_t *b, const llm_openai_lp_t *lp)
{
    uint32_t  i;

    llm_buf_lit(b, "{\"token\":\"");
    llm_buf_json(b, (const char *) lp->bytes, lp->len);
    llm_buf_lit(b, "\",\"logprob\":");
    llm_openai_logprob(b, lp->logprob);
    llm_buf_lit(b, ",\"bytes\":[");

    for (i = 0; i < lp->len; i++) {
        if (i != 0) {
            llm_buf_lit(b, ",");
        }

        llm_buf_u64(b, lp->bytes[i]);
    }

    llm_buf_lit(b, "]");
}


int
llm_openai_chat_lps(llm_buf_t *b, const uint8_t *p, uint32_t left)
{
    uint32_t         i, tops, none;
    llm_openai_lp_t  lp;

    while (left != 0) {

        if (llm_openai_lp_next(&p, &left, &lp, &tops) != 0) {
            return -LLM_ERR_PROTOCOL;
        }

        if (b->len != 0) {
            llm_buf_lit(b, ",");
        }

        llm_openai_chat_lp(b, &lp);
        llm_buf_lit(b, ",\"top_logprobs\":[");

        for (i = 0; i < tops; i++) {

            if (llm_openai_lp_next(&p, &left, &lp, &none) != 0) {
                return -LLM_ERR_PROTOCOL;
            }

            if (i != 0) {
                llm_buf_lit(b, ",");
            }

            llm_openai_chat_lp(b, &lp);
            llm_buf_lit(b, "}");
        }

        llm_buf_lit(b, "]}");
    }

    return 0;
}


/*
 * Completions name a token by its text alone, so one that is only a part of a
 * character is spelled out, as OpenAI does: "bytes:\\xe4\\xbd".
 */

static void
llm_openai_text_token(llm_buf_t *b, const llm_openai_lp_t *lp)
{
    char                esc[5];
    unsigned            n;
    uint32_t            i;
    static const char   hex[] = "0123456789abcdef";

    for (i = 0; i < lp->len; i += n) {
        n = llm_utf8_len(lp->bytes + i, lp->len - i);
        if (n == 0) {
            break;
        }
    }

    llm_buf_lit(b, "\"");

    if (i == lp->len) {
        llm_buf_json(b, (const char *) lp->bytes, lp->len);

    } else {
        llm_buf_lit(b, "bytes:");

        for (i = 0; i < lp->len; i++) {
            memcpy(esc, "\\\\x", 3);
            esc[3] = hex[lp->bytes[i] >> 4];
            esc[4] = hex[lp->bytes[i] & 15];
            llm_buf_add(b, esc, 5);
        }
    }

    llm_buf_lit(b, "\"");
}


/*
 * {"token":logprob,...} of n entries, the sampled one last.  Two ids may have
 * the same bytes, and keys must differ: the earlier, likelier one is kept.
 */

static void
llm_openai_text_tops(llm_buf_t *b, const llm_openai_lp_t *lps, uint32_t n)
{
    uint32_t  i, k;

    llm_buf_lit(b, "{");

    for (i = 0; i < n; i++) {

        for (k = 0; k < i; k++) {
            if (lps[k].len == lps[i].len
                && memcmp(lps[k].bytes, lps[i].bytes, lps[i].len) == 0)
            {
                break;
            }
        }

        if (k < i) {
            continue;
        }

        if (i != 0) {
            llm_buf_lit(b, ",");
        }

        llm_openai_text_token(b, &lps[i]);
        llm_buf_lit(b, ":");
        llm_openai_logprob(b, lps[i].logprob);
    }

    llm_buf_lit(b, "}");
}


size_t
llm_openai_chars(const uint8_t *p, size_t n)
{
    size_t  i, chars;

    chars = 0;

    for (i = 0; i < n; i++) {
        chars += (p[i] & 0xc0) != 0x80;
    }

    return chars;
}


int
llm_openai_text_lps(llm_answer_t *a, uint32_t choice, const uint8_t *p,
    uint32_t left)
{
    size_t            offset;
    uint32_t          i, tops, none;
    llm_buf_t        *b[LLM_OPENAI_LISTS];
    llm_openai_lp_t   lps[LLM_TOP_LOGPROBS_MAX + 1], lp;

    for (i = 0; i < LLM_OPENAI_LISTS; i++) {
        b[i] = llm_openai_buf(a, &a->choices[choice].lp_aux[i]);
    }

    offset = a->choices[choice].text_offset;

    while (left != 0) {

        if (llm_openai_lp_next(&p, &left, &lp, &tops) != 0) {
            return -LLM_ERR_PROTOCOL;
        }

        for (i = 0; i < tops; i++) {
            if (llm_openai_lp_next(&p, &left, &lps[i], &none) != 0) {
                return -LLM_ERR_PROTOCOL;
            }
        }

        lps[tops] = lp;

        if (b[LLM_LP_TOKENS]->len != 0) {
            for (i = 0; i < LLM_OPENAI_LISTS; i++) {
                llm_buf_lit(b[i], ",");
            }
        }

        llm_openai_text_token(b[LLM_LP_TOKENS], &lp);

        if (isnan(lp.logprob)) {
            llm_buf_lit(b[LLM_LP_LOGPROBS], "null");
            llm_buf_lit(b[LLM_LP_TOPS], "null");

        } else {
            llm_openai_logprob(b[LLM_LP_LOGPROBS], lp.logprob);
            llm_openai_text_tops(b[LLM_LP_TOPS], lps, tops + 1);
        }

        llm_buf_u64(b[LLM_LP_OFFSETS], offset);

        offset += llm_openai_chars(lp.bytes, lp.len);
    }

    return 0;
}


/* "TOKEN":{...}; rank 0 is not known */

static void
llm_openai_prompt_lp(llm_buf_t *b, const llm_openai_lp_t *lp, uint32_t rank)
{
    llm_buf_lit(b, "\"");
    llm_buf_u64(b, lp->token);
    llm_buf_lit(b, "\":{\"logprob\":");
    llm_openai_logprob(b, lp->logprob);
    llm_buf_lit(b, ",\"rank\":");

    if (rank != 0) {
        llm_buf_u64(b, rank);

    } else {
        llm_buf_lit(b, "null");
    }

    llm_buf_lit(b, ",\"decoded_token\":\"");
    llm_buf_json(b, (const char *) lp->bytes, lp->len);
    llm_buf_lit(b, "\"}");
}


int
llm_openai_prompt_lps(llm_buf_t *b, const uint8_t **p, uint32_t *left,
    uint32_t n)
{
    uint32_t         i, k, tops, none, rank;
    llm_openai_lp_t  lp, lps[LLM_TOP_LOGPROBS_MAX];

    for (i = 0; i < n; i++) {

        if (llm_openai_lp_next(p, left, &lp, &tops) != 0) {
            return -LLM_ERR_PROTOCOL;
        }

        for (rank = 0, k = 0; k < tops; k++) {
            if (llm_openai_lp_next(p, left, &lps[k], &none) != 0) {
                return -LLM_ERR_PROTOCOL;
            }

            if (lps[k].token == lp.token && rank == 0) {
                rank = k + 1;
            }
        }

        if (b->len != 0) {
            llm_buf_lit(b, ",");
        }

        if (isnan(lp.logprob)) {
            llm_buf_lit(b, "null");
            continue;
        }

        llm_buf_lit(b, "{");
        llm_openai_prompt_lp(b, &lp, rank);

        for (k = 0; k < tops; k++) {
            if (lps[k].token != lp.token) {
                llm_buf_lit(b, ",");
                llm_openai_prompt_lp(b, &lps[k], k + 1);
            }
        }

        llm_buf_lit(b, "}");
    }

    return 0;
}


void
llm_openai_text_lists(llm_answer_t *a, llm_buf_t *out, uint32_t choice)
{
    llm_buf_t  *b;

    b = a->choices[choice].lp_aux;

    llm_buf_lit(out, "{\"tokens\":[");
    llm_buf_add(out, b[LLM_LP_TOKENS].data, b[LLM_LP_TOKENS].len);
    llm_buf_lit(out, "],\"token_logprobs\":[");
    llm_buf_add(out, b[LLM_LP_LOGPROBS].data, b[LLM_LP_LOGPROBS].len);

    if (a->call->head.top_logprobs != 0) {
        llm_buf_lit(out, "],\"top_logprobs\":[");
        llm_buf_add(out, b[LLM_LP_TOPS].data, b[LLM_LP_TOPS].len);
        llm_buf_lit(out, "],\"text_offset\":[");

    } else {
        llm_buf_lit(out, "],\"top_logprobs\":null,\"text_offset\":[");
    }

    llm_buf_add(out, b[LLM_LP_OFFSETS].data, b[LLM_LP_OFFSETS].len);
    llm_buf_lit(out, "]}");
}
