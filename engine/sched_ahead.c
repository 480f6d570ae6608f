/*
 * Steps that were planned and have not been committed: planning depth 1.
 *
 * DESIGN.  While a device computes step n, step n + 1 is planned, so that it
 * need not wait for the plan.  What n samples is not known then, but how much:
 * so n is counted at once as if it had ended, with a token that is late, and
 * everything else plans as it always does.
 *
 *      plan n ── in flight ───────────────────> commit n ── ended
 *        │           plan n + 1 ── in flight ───────│──────> commit n + 1
 *        rows        counts n: computed = end,      takes the late token
 *        noted       known + 1 with a late token    back, and enters it as
 *                                                   at depth 0
 *
 * A late token's value is 0 in the sequence and in the batch; the back end
 * takes it from the output of step n that b->late names, which on a device
 * need not come to the host for it.  The sampler of n + 1 looks at known
 * tokens, so it may run only after n was committed.
 *
 * DISCARDED.  Whoever ends while it has rows in flight (the token was its last,
 * its text met a stop, the client left, logits were not finite) ends at once,
 * and its name may be in use again before they have run.  A discarded row's
 * outputs are nobody's; they are counted as wasted.  A sequence that reaches
 * its limit in n is known to end, and has no row in n + 1.
 *
 * SKIPPED.  A token may bring others that need not be sampled.  Its sequence
 * then has more to compute than step n + 1 was planned for, and sits that out:
 * its row leaves the plan before it is run, its blocks stay its own, and the
 * plan after has them all in one row.
 *
 * INVARIANTS.
 * - A block that a row in flight reads or writes stays its sequence's, or goes
 *   with the discarded row to a name of the step's own, until the step has
 *   ended; nothing that a discarded row wrote enters the tree.
 * - So no sequence in flight loses its blocks.  A plan that would have to take
 *   some is given up (sched_t.blocked): it has no rows, and the next one, with
 *   nothing in flight, does as depth 0 does.  Nor does a window slide before
 *   the step has ended: the pool is opened for steps of twice the length.
 * - Only the last known token can be late, and only of a sequence in flight;
 *   then it is the one token that is not computed.
 * - At most one step is counted, and it is the one to be committed first.
 * - What is charged for sampled tokens is charged at the commit: never for who
 *   has ended.
 *
 * At depth 0 nothing is noted here.
 */
#include "sched_int.h"
#include "mem.h"

#include <assert.h>
#include <string.h>


int
sched_ahead_open(sched_t *s)
{
    size_t n = s->c.depth > 0 ? s->c.rows : 0;
    sched_step_t *step;
    uint32_t k;

    for (k = 0; k < 2 && n > 0; k++) {
        step = &s->steps[k];
        step->seqs = mem_zero(n, sizeof(uint32_t));
        step->ends = mem_zero(n, sizeof(uint32_t));
        step->outs = mem_zero(n, sizeof(uint32_t));
        step->stays = mem_zero(n, sizeof(uint32_t));
        if (step->seqs == NULL || step->ends == NULL || step->outs == NULL
            || step->stays == NULL) {
            return -1;
        }
    }

    return 0;
}


void
sched_ahead_close(sched_t *s)
{
    uint32_t k;

    for (k = 0; k < 2; k++) {
        mem_free(s->steps[k].seqs);
        mem_free(s->steps[k].ends);
        mem_free(s->steps[k].outs);
        mem_free(s->steps[k].stays);
    }
}


/* The name that has the blocks of row i of step k, if it was discarded. */
static uint32_t
keeper(const sched_t *s, uint32_t k, uint32_t i)
{
    assert(k < 2 && i < s->c.rows);

    return s->c.reqs * LLM_CHOICES_MAX + k * s->c.rows + i;
}


/* The step of which plan is being written, or the next one will be. */
static uint32_t
writing(const sched_t *s)
{
    assert(s->steps_n < 2);

    return (s->step_at + s->steps_n) % 2;
}


/* Its rows count as computed, and what they sample as known. */
static void
count(sched_t *s, sched_step_t *step)
{
    uint32_t i, id;
    seq_t *q;

    if (step->counted) {
        return;
    }
    step->counted = 1;

    for (i = 0; i < step->rows_n; i++) {
        id = step->seqs[i];
        if (id == NONE) {
            continue;
        }
        q = seq_at(s, id);
        assert(!q->late && q->computed < step->ends[i]);
        assert(step->ends[i] <= q->known_n && q->known_n < q->limit);
        q->computed = step->ends[i];
        if (step->outs[i] != NONE) {
            assert(q->computed == q->known_n);
            seq_append(s, id, 0);
            q->late = 1;
        }
    }
}


void
sched_ahead_begin(sched_t *s)
{
    assert(s->steps_n <= s->c.depth);

    s->blocked = 0;
    if (s->steps_n > 0) {
        count(s, &s->steps[s->step_at]);
    }
}


void
sched_ahead_row(sched_t *s, batch_t *b, uint32_t i, uint32_t id, uint32_t out)
{
    uint32_t k = writing(s), before;
    sched_step_t *step = &s->steps[k];
    seq_t *q = seq_at(s, id);

    assert(i < s->c.rows && q->row[k] == NONE);

    step->seqs[i] = id;
    step->ends[i] = b->rows[i].kv_len;
    step->outs[i] = out;
    q->row[k] = i;

    if (q->late) {
        before = q->row[1 - k];
        assert(s->steps_n == 1 && before != NONE && b->late_n < b->rows_max);
        assert(b->rows[i].q_len == 1 && b->rows[i].kv_len == q->known_n);
        b->late[b->late_n].tok = b->rows[i].tok;
        b->late[b->late_n].out = s->steps[1 - k].outs[before];
        assert(b->late[b->late_n].out != NONE);
        b->late_n++;
    }
}


void
sched_ahead_planned(sched_t *s, uint32_t rows_n)
{
    sched_step_t *step;

    if (s->c.depth == 0 || rows_n == 0) {
        return;
    }

    assert(!s->blocked);
    step = &s->steps[writing(s)];
    step->rows_n = rows_n;
    step->counted = 0;
    s->steps_n++;
}


int
sched_ahead_discard(sched_t *s, uint32_t id)
{
    uint32_t n, k, i, last = NONE, last_i = 0;
    seq_t *q = seq_at(s, id);

    for (n = 0; n < s->steps_n; n++) {
        k = (s->step_at + n) % 2;
        i = q->row[k];
        if (i != NONE) {
            assert(s->steps[k].seqs[i] == id);
            s->steps[k].seqs[i] = NONE;
            q->row[k] = NONE;
            s->discarded++;
            last = k;
            last_i = i;
        }
    }
    assert(!seq_flies(q));
    if (last == NONE) {
        return 0;
    }

    q->known_n -= q->late;
    q->late = 0;
    s->steps[last].stays[last_i] = q->stays;
    kv_hand(s->kv, id, keeper(s, last, last_i));

    return 1;
}


void
sched_ahead_skip(sched_t *s, uint32_t id)
{
    sched_step_t *step = &s->steps[s->step_at];
    seq_t *q = seq_at(s, id);
    uint32_t i = q->row[s->step_at];

    assert(s->steps_n <= 1);

    if (s->steps_n == 0 || i == NONE) {
        return;
    }

    assert(step->seqs[i] == id && !step->counted && !q->late);
    step->seqs[i] = NONE;
    step->stays[i] = 0; /* its blocks stay where they are */
    q->row[s->step_at] = NONE;
    s->discarded++;
}


/* Row i of step k has run, or will not: what it kept is let go. */
static void
let_go(sched_t *s, uint32_t k, uint32_t i)
{
    assert(s->steps[k].seqs[i] == NONE);

    (void) kv_drop(s->kv, keeper(s, k, i), s->steps[k].stays[i]);
}


const sched_step_t *
sched_ahead_ended(sched_t *s, const batch_t *b)
{
    uint32_t k = s->step_at, i;
    sched_step_t *step = &s->steps[k];
    seq_t *q;

    if (s->c.depth == 0) {
        return NULL;
    }

    assert(s->steps_n > 0 && step->rows_n == b->rows_n);
    count(s, step);
    s->step_at = 1 - k;
    s->steps_n--;

    for (i = 0; i < step->rows_n; i++) {
        if (step->seqs[i] == NONE) {
            let_go(s, k, i);
            continue;
        }
        assert(step->seqs[i] == b->rows[i].seq);
        q = seq_at(s, step->seqs[i]);
        assert(q->row[k] == i && q->late == (step->outs[i] != NONE));
        q->row[k] = NONE;
        q->known_n -= q->late;
        q->late = 0;
    }

    return step;
}


/* --- rows that need not run --------------------------------------------- */

/* Where the next row, output and late token of a batch go, and come from. */
typedef struct {
    uint32_t rows, tokens, outs, late; /* kept so far */
    uint32_t outs_from, late_from;     /* of those before */
} trim_t;


/* Row i of b, with all that belongs to it, comes behind those kept; or, if
 * it is not to be kept, goes. */
static void
trim_row(batch_t *b, trim_t *t, uint32_t i, int keep)
{
    batch_row_t row = b->rows[i];
    uint32_t by = row.tok - t->tokens;

    assert(row.tok >= t->tokens && i >= t->rows);

    for (; t->outs_from < b->outs_n && b->outs[t->outs_from].row == i;
         t->outs_from++) {
        if (keep) {
            b->outs[t->outs] = b->outs[t->outs_from];
            b->outs[t->outs].row = t->rows;
            b->outs[t->outs++].tok -= by;
        }
    }
    for (; t->late_from < b->late_n
           && b->late[t->late_from].tok - row.tok < row.q_len;
         t->late_from++) {
        if (keep) {
            b->late[t->late] = b->late[t->late_from];
            b->late[t->late++].tok -= by;
        }
    }
    if (keep) {
        memmove(b->tokens + t->tokens, b->tokens + row.tok,
            row.q_len * sizeof(uint32_t));
        row.tok = t->tokens;
        b->rows[t->rows++] = row;
        t->tokens += row.q_len;
    }
}


void
sched_trim(sched_t *s, batch_t *b)
{
    trim_t t = {0, 0, 0, 0, 0, 0};
    uint32_t k, i, outs, to;
    sched_step_t *step;
    int keep;

    assert(s->c.depth > 0 && s->steps_n > 0);
    k = (s->step_at + s->steps_n - 1) % 2;
    step = &s->steps[k];
    assert(step->rows_n == b->rows_n && !step->counted);

    for (i = 0; i < step->rows_n; i++) {
        keep = step->seqs[i] != NONE;
        outs = t.outs;
        to = t.rows;
        trim_row(b, &t, i, keep);
        if (!keep) {
            let_go(s, k, i);
            continue;
        }
        step->seqs[to] = step->seqs[i];
        step->ends[to] = step->ends[i];
        step->outs[to] = step->outs[i] == NONE ? NONE : t.outs - 1;
        assert(step->outs[i] == NONE || t.outs > outs);
        (void) outs;
        seq_at(s, step->seqs[to])->row[k] = to;
    }
    assert(t.outs_from == b->outs_n && t.late_from == b->late_n);

    b->rows_n = step->rows_n = t.rows;
    b->tokens_n = t.tokens;
    b->outs_n = t.outs;
    b->late_n = t.late;
    s->steps_n -= t.rows == 0;
    kv_check(s->kv);
    SCHED_TELL(s, .type = SCHED_CALL_TRIM, .b = b);
}
