/*
 * What a request wants of the sampler and what it gets back.  Plain data, in
 * the common subset of C and C++: the `sample` op row (kernels.h) takes it as
 * it stands, so the policy is one text for host and device.
 *
 * The draw is Philox4x32-10 keyed by seed, with (position, choice) as counter:
 * a token depends on seed and place only, never on batch or time.
 */
#ifndef SAMPLE_H
#define SAMPLE_H

#include <stdint.h>

#define SAMPLE_TOPS_MAX 20

typedef struct {
    uint32_t token;
    float bias; /* added to the logit before anything else */
} sample_bias_t;

typedef struct {
    float temperature;        /* 0: the largest logit, lowest id first */
    float top_p;              /* 1 is off */
    float min_p;              /* 0 is off */
    float repetition_penalty; /* 1 is off; over prompt and output */
    float presence_penalty;   /* 0 is off; over the output */
    float frequency_penalty;  /* 0 is off; over the output */
    uint32_t top_k;           /* 0 is off */
    uint32_t tops;            /* how many top logprobs to return */
    uint32_t logprobs;        /* is the token's own logprob wanted? */
    uint32_t bias_n;
    uint64_t seed;
    const sample_bias_t *bias; /* [bias_n], borrowed for the request's life */
} sample_params_t;

/*
 * logprob: of the sampled token, and of the tops, under the softmax of the
 * raw logits (before bias, penalties and temperature), as OpenAI gives them.
 */
typedef struct {
    uint32_t token;
    uint32_t err; /* 0, or LLM_ERR_NAN_LOGITS: token means nothing then */
    float logprob;
    uint32_t tops_n;
    uint32_t top_ids[SAMPLE_TOPS_MAX]; /* best first */
    float top_logprobs[SAMPLE_TOPS_MAX];
} sample_out_t;

#endif
