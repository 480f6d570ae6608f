
/*
 * What the files of OpenAI's dialect share:
 *
 *     openai.c            the table, routes, the list of models, errors
 *     openai_parse.c      bodies: how to answer
 *     openai_input.c      bodies: what to answer
 *     openai_tools.c      bodies: tools
 *     openai_grammar.c    bodies: what the output is to obey
 *     openai_template.c   bodies: what else a chat template gets
 *     openai_json.c       parts of them, written again
 *     openai_tokenize.c   bodies and answers about token ids
 *     openai_write.c      answers
 *     openai_calls.c      their calls of tools
 *     openai_logprobs.c   their logprobs
 */


#ifndef LLM_OPENAI_H_INCLUDED_
#define LLM_OPENAI_H_INCLUDED_


#include "dialect.h"

#include <jansson.h>


/* a body being read */

typedef struct {
    json_t            *root;
    size_t             body_len;
    const llm_caps_t  *caps;
    void            *(*alloc)(void *arg, size_t size);
    void              *arg;
    llm_call_t        *call;
    llm_refusal_t     *why;
} llm_openai_in_t;


/* the contracts are those of llm_dialect_t's members */

int llm_openai_parse(llm_str_t body, uint32_t route, const llm_caps_t *caps,
    void *(*alloc)(void *, size_t), void *arg, llm_call_t *call,
    llm_refusal_t *why);
int llm_openai_tokens(llm_answer_t *a, const llm_wire_tokens_t *t,
    const uint8_t *text, const uint8_t *lp);
int llm_openai_done(llm_answer_t *a, const llm_wire_done_t *d);


/* the field's value, borrowed; NULL when it is absent or null */
json_t *llm_openai_field(const json_t *object, const char *name);

/* copies a string into the caller's memory; 0 or -LLM_ERR_NO_MEMORY */
int llm_openai_copy(llm_openai_in_t *in, const json_t *v, llm_str_t *s);

/*
 * Each leaves *value as it is when the field is absent, and refuses a wrong
 * type or value in the name of param or name.  *given, which may be NULL, is
 * set to 1 if the field is there.
 */
int llm_openai_bool(llm_openai_in_t *in, const json_t *object,
    const char *name, const char *param, int *value);
int llm_openai_int(llm_openai_in_t *in, const char *name, int64_t min,
    int64_t max, int64_t *value, int *given);

/* is v a whole number, however written? */
int llm_openai_whole(const json_t *v, int64_t *value);

/* openai_input.c: chat; completions, after n and logprobs; either */
int llm_openai_parse_messages(llm_openai_in_t *in);
int llm_openai_parse_text(llm_openai_in_t *in);

/* openai_template.c: documents and the like, of a chat */
int llm_openai_parse_template(llm_openai_in_t *in);

/* a value as compact JSON, for the template */
int llm_openai_pass(llm_openai_in_t *in, const json_t *v, llm_str_t *s);

/* openai_grammar.c: what the output obeys, if a field says so; before tools */
int llm_openai_parse_grammar(llm_openai_in_t *in);

/*
 * It obeys the tools: must be a call, of the function name if that is not
 * NULL; or, without must, a call that it begins.  Refused if it obeys another
 * field already.
 */
int llm_openai_grammar_tools(llm_openai_in_t *in, const json_t *name,
    int must);

/* openai_tools.c */
int llm_openai_parse_tools(llm_openai_in_t *in);

/* refuses functions, or tools, unless the choice says not to use any */
int llm_openai_refuse_tools(llm_openai_in_t *in, const char *name,
    const char *choice_name);

/*
 * openai_json.c: a value as compact JSON, at most eight times as long as it
 * came; and json_dump_callback()'s, into a llm_buf_t.
 */
void llm_openai_json(llm_buf_t *b, const json_t *v);
int llm_openai_dump(const char *p, size_t len, void *data);

/* an array of token ids as prompt number n, blamed on param */
int llm_openai_prompt_ids(llm_openai_in_t *in, const json_t *v,
    const char *param, uint32_t n);

/* openai_tokenize.c: the routes that do not run the model */
int llm_openai_parse_ids(llm_openai_in_t *in);
int llm_openai_ids_tokens(llm_answer_t *a, const llm_wire_tokens_t *t,
    const uint8_t *text);
int llm_openai_ids_done(llm_answer_t *a);

/* refuses what changes an answer's contract and is not built */
int llm_openai_refuse_others(llm_openai_in_t *in);


/* llm_answer_t's lp_aux: completions' lists */

enum {
    LLM_LP_TOKENS = 0,
    LLM_LP_LOGPROBS,
    LLM_LP_TOPS,
    LLM_LP_OFFSETS,
    LLM_OPENAI_LISTS
};


/*
 * Logprob entries of a choice, left bytes at p, appended to lists of JSON
 * without brackets: the one of chat at b, or completions' four in lp_aux.
 * 0 or -LLM_ERR_PROTOCOL; the buffers know whether they have failed.
 */
int llm_openai_chat_lps(llm_buf_t *b, const uint8_t *p, uint32_t left);
int llm_openai_text_lps(llm_answer_t *a, uint32_t choice, const uint8_t *p,
    uint32_t left);

/*
 * The first n entries at *p, which are the prompt's, as what prompt_logprobs
 * holds, appended to b; *p and *left are moved on.  0 or -LLM_ERR_PROTOCOL.
 */
int llm_openai_prompt_lps(llm_buf_t *b, const uint8_t **p, uint32_t *left,
    uint32_t n);

/* completions' four lists as one object */
void llm_openai_text_lists(llm_answer_t *a, llm_buf_t *out, uint32_t choice);

/* what is around the fields of a chunk's delta, if it has no logprobs */
void llm_openai_delta_begin(llm_answer_t *a, uint32_t choice);
void llm_openai_delta_end(llm_answer_t *a);

/*
 * openai_calls.c: text of a call, collected, or as chunks of a stream.  0 or a
 * negative code.
 */
int llm_openai_call_collect(llm_answer_t *a, const llm_wire_tokens_t *t,
    const uint8_t *text);
int llm_openai_call_chunk(llm_answer_t *a, const llm_wire_tokens_t *t,
    const uint8_t *text);

/* what was collected, as a field behind others, if that is anything */
void llm_openai_calls_out(llm_answer_t *a, llm_buf_t *out, uint32_t choice);

/* characters that begin in these bytes: what tokens say of one adds up */
size_t llm_openai_chars(const uint8_t *p, size_t n);

/* a buffer of a's own, set up when it is first written to */
llm_buf_t *llm_openai_buf(llm_answer_t *a, llm_buf_t *b);


#endif /* LLM_OPENAI_H_INCLUDED_ */
