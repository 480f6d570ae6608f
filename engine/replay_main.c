/*
 * llm-engine --replay FILE: what is said of a recording.
 *
 * DESIGN.  With nothing changed there is one question, whether all plans are
 * equal, and the exit status answers it.  With a policy or a budget changed
 * they will not be; then the first that differs is shown, and what the same
 * requests would have come to (replay_other.c).
 */
#include "replay_impl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>


static void
print_head(FILE *out, const char *path, const record_head_t *h)
{
    assert(record_head_bad(h) == NULL);

    fprintf(out,
        "recording %s: policy %s, %llu requests, %llu rows and %llu tokens in "
        "a step,\n  %llu blocks of %llu tokens, cache %s, target %llu us\n",
        path, h->policy, (unsigned long long) h->reqs,
        (unsigned long long) h->rows, (unsigned long long) h->tokens,
        (unsigned long long) h->blocks, (unsigned long long) h->block_tokens,
        h->cache ? "on" : "off", (unsigned long long) h->target_us);
}


static void
print_stats(FILE *out, const replay_stats_t *st)
{
    assert(st->ends != NULL);

    fprintf(out,
        "replayed  %llu requests, %llu refused; %llu plans, %llu steps, %llu "
        "tokens computed,\n  %llu sampled, %llu preemptions, %.3f s; it ends "
        "there because %s\n",
        (unsigned long long) st->requests, (unsigned long long) st->refused,
        (unsigned long long) st->plans, (unsigned long long) st->steps,
        (unsigned long long) st->tokens, (unsigned long long) st->sampled,
        (unsigned long long) st->preemptions,
        (double) (st->until_us - st->from_us) / 1e6, st->ends);
    fprintf(out,
        "speed     %.0f steps/s; a plan takes p50 %.1f us, p99 %.1f us\n",
        st->steps_s, st->plan_us_50, st->plan_us_99);
}


static int
changed(const replay_change_t *c)
{
    return c->policy != NULL || c->tokens >= 0 || c->tile >= 0
           || c->target_us >= 0 || c->floor >= 0 || c->cache >= 0;
}


/* Prints the head, and goes back to the beginning. 0, or -1 with err. */
static int
show_head(FILE *f, const char *path, FILE *out, char *err, size_t errlen)
{
    record_head_t h;
    record_file_t *rf = record_file_open(f, &h, err, errlen);

    if (rf == NULL) {
        return -1;
    }
    print_head(out, path, &h);
    record_file_close(rf);
    rewind(f);

    return 0;
}


int
replay_main(const char *path, const replay_change_t *change, FILE *out,
    char *err, size_t errlen)
{
    FILE *f = fopen(path, "re");
    replay_stats_t st;
    char why[256];
    int rc = -1;

    assert(out != NULL && errlen > 0);
    assert(change != NULL);

    if (f == NULL) {
        snprintf(err, errlen, "%s: %s", path, strerror(errno));
        return 1;
    }
    if (show_head(f, path, out, why, sizeof(why)) == 0) {
        rc = replay_calls(f, change, out, &st, why, sizeof(why));
    }
    (void) fclose(f);
    if (rc != 0) {
        snprintf(err, errlen, "%s: %s", path, why);
        return 1;
    }

    print_stats(out, &st);
    if (st.differs == 0) {
        fprintf(out, "plans     all %llu are equal\n",
            (unsigned long long) st.plans);
    }
    if (changed(change)) {
        return replay_other(path, change, out, err, errlen) == 0 ? 0 : 1;
    }
    if (st.differs != 0) {
        snprintf(err, errlen, "%s: plan %llu differs from what was recorded",
            path, (unsigned long long) st.differs);
    }

    return st.differs != 0;
}
