/*
 * Would catch: a WELCOME whose layout leads outside the segment or lays one
 * part over another; a SUBMIT, TOKENS or logprob entry whose lengths lead
 * outside the record; a walk that does not end; a field that moved, so that
 * an older or newer peer reads something else; and a peer of one version more
 * or less that is not understood.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "llm_wire.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE 4096u

/* Bytes that end where a page begins that cannot be touched. */
typedef struct {
    uint8_t *map;
    uint8_t *end;
} edge_t;


static int
edge_open(void **state)
{
    static edge_t e;

    e.map = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (e.map == MAP_FAILED
        || mprotect(e.map + 3 * PAGE, PAGE, PROT_NONE) != 0) {
        return -1;
    }
    e.end = e.map + 3 * PAGE;
    *state = &e;

    return 0;
}


static int
edge_close(void **state)
{
    edge_t *e = *state;

    return munmap(e->map, 4 * PAGE);
}


/* A copy of p whose last byte is the last before the trap. */
static uint8_t *
at_edge(void **state, const void *p, uint32_t len)
{
    edge_t *e = *state;

    memcpy(e->end - len, p, len);

    return e->end - len;
}


/* Reads each byte, so that one outside traps. */
static void
touch(const uint8_t *p, uint32_t len)
{
    uint32_t i;

    for (i = 0; i < len; i++) {
        (void) *(const volatile uint8_t *) (p + i);
    }
}


/* --- layout ------------------------------------------------------------- */

/* What has been shipped never moves: an offset here is a fact, not a wish. */
static void
fields_stay(void **state)
{
    (void) state;
    assert_int_equal(LLM_WIRE_MAGIC, 0x316d6c6c78676e00ull);

    assert_int_equal(offsetof(llm_msg_hello_t, version_min), 16);
    assert_int_equal(offsetof(llm_msg_welcome_t, epoch), 16);
    assert_int_equal(offsetof(llm_msg_welcome_t, seg_size), 24);
    assert_int_equal(offsetof(llm_msg_welcome_t, submit_ctl), 40);
    assert_int_equal(offsetof(llm_msg_welcome_t, event_data), 72);
    assert_int_equal(offsetof(llm_msg_welcome_t, credit_max), 88);
    assert_int_equal(offsetof(llm_msg_refuse_t, text), 24);

    assert_int_equal(offsetof(llm_ring_ctl_t, tail), 0);
    assert_int_equal(offsetof(llm_ring_ctl_t, head), 64);
    assert_int_equal(offsetof(llm_ring_ctl_t, sleeps), 128);
    assert_int_equal(offsetof(llm_seg_head_t, line_sleeps), 16);
    assert_int_equal(offsetof(llm_slot_line_t, cancel), 8);

    assert_int_equal(offsetof(llm_state_t, heartbeat), 32);
    assert_int_equal(offsetof(llm_state_t, models), 56);
    assert_int_equal(sizeof(llm_state_model_t), 144);
    assert_int_equal(offsetof(llm_state_t, blocks_total), 56 + 16 * 144);
    assert_int_equal(sizeof(llm_state_t) % 8, 0);

    assert_int_equal(offsetof(llm_wire_submit_t, id), 8);
    assert_int_equal(offsetof(llm_wire_submit_t, head_len), 20);
    assert_int_equal(offsetof(llm_wire_submit_t, kind), 24);
    assert_int_equal(offsetof(llm_wire_submit_t, temperature), 52);
    assert_int_equal(offsetof(llm_wire_submit_t, seed), 80);
    assert_int_equal(offsetof(llm_wire_submit_t, queue_ms), 104);
    assert_int_equal(offsetof(llm_wire_submit_t, first_ms), 116);

    assert_int_equal(sizeof(llm_wire_admit_t), 24);
    assert_int_equal(sizeof(llm_wire_counted_t), 32);
    assert_int_equal(offsetof(llm_wire_tokens_t, text_len), 32);
    assert_int_equal(sizeof(llm_wire_done_t), 56);
    assert_int_equal(sizeof(llm_wire_error_t), 232);
    assert_int_equal(offsetof(llm_wire_error_t, text), 64);
    assert_int_equal(offsetof(llm_wire_error_t, retry_ms), 224);
    assert_int_equal(sizeof(llm_wire_bias_t), 8);
}


static llm_msg_welcome_t
welcome(uint32_t slots)
{
    llm_msg_welcome_t m;

    memset(&m, 0, sizeof(m));
    m.magic = LLM_WIRE_MAGIC;
    m.type = LLM_MSG_WELCOME;
    m.version = LLM_WIRE_VERSION;
    m.epoch = 7;
    m.slots = slots;
    m.submit_size = 65536;
    m.event_size = 65536;
    while (m.event_size < llm_event_keep(slots) + 2 * LLM_TOKENS_MAX) {
        m.event_size *= 2;
    }
    m.submit_ctl = LLM_SEG_HEAD;
    m.event_ctl = m.submit_ctl + sizeof(llm_ring_ctl_t);
    m.lines = m.event_ctl + sizeof(llm_ring_ctl_t);
    m.submit_data = (m.lines + slots * sizeof(llm_slot_line_t) + PAGE - 1)
                    & ~(uint64_t) (PAGE - 1);
    m.event_data = m.submit_data + m.submit_size;
    m.seg_size = m.event_data + m.event_size;
    m.state_size = LLM_STATE_SIZE;
    m.credit_max = 1 << 20;

    return m;
}


static void
welcome_that_is_right(void **state)
{
    static const uint32_t slots[] = {1, 2, 63, 64, 1000, LLM_SLOTS_MAX};
    llm_msg_welcome_t m;
    size_t i;

    (void) state;
    for (i = 0; i < sizeof(slots) / sizeof(slots[0]); i++) {
        m = welcome(slots[i]);
        assert_true(llm_welcome_ok(&m));
        m.seg_size += 12345;
        m.state_size *= 2;
        assert_true(llm_welcome_ok(&m));
    }
}


static void
welcome_one_thing_wrong(void **state)
{
#define WRONG(field, value)                                                    \
    do {                                                                       \
        m = good;                                                              \
        m.field = (value);                                                     \
        if (llm_welcome_ok(&m)) {                                              \
            fail_msg("%s = %s", #field, #value);                               \
        }                                                                      \
    } while (0)
    const llm_msg_welcome_t good = welcome(64);
    llm_msg_welcome_t m;

    (void) state;
    WRONG(magic, 0);
    WRONG(type, LLM_MSG_HELLO);
    WRONG(type, LLM_MSG_REFUSE);
    WRONG(version, LLM_WIRE_VERSION + 1);
    WRONG(version, LLM_WIRE_VERSION_MIN - 1);
    WRONG(version, UINT32_MAX);
    WRONG(epoch, 0);
    WRONG(slots, 0);
    WRONG(slots, LLM_SLOTS_MAX + 1);
    WRONG(slots, UINT32_MAX);
    WRONG(slots, 1u << 26); /* x 64 is 0 in 32 bits */
    WRONG(slots, 400);      /* its lines lie over submit_data */
    WRONG(submit_size, 0);
    WRONG(submit_size, LLM_RING_MIN / 2);
    WRONG(submit_size, 65536 + 64);
    WRONG(submit_size, 1u << 31);
    WRONG(submit_size, 2 * 65536); /* lies over event_data */
    WRONG(event_size, 2 * 65536);  /* past the end */
    WRONG(event_size, 1u << 31);
    WRONG(event_size, LLM_RING_MIN); /* no room for what must never fail */
    WRONG(seg_size, 0);
    WRONG(seg_size, good.seg_size - 1);
    WRONG(state_size, 0);
    WRONG(state_size, LLM_STATE_SIZE - 1);
    WRONG(credit_max, 0);
    WRONG(submit_ctl, 0); /* over the segment's head */
    WRONG(submit_ctl, LLM_SEG_HEAD - 64);
    WRONG(submit_ctl, LLM_SEG_HEAD + 8); /* not on a line of its own */
    WRONG(submit_ctl, good.event_ctl);
    WRONG(event_ctl, good.event_ctl - 64);
    WRONG(lines, good.submit_data);
    WRONG(submit_data, good.submit_data + 64);
    WRONG(submit_data, UINT64_MAX - 63);
    WRONG(event_data, UINT64_MAX - 63);
    WRONG(event_data, UINT64_MAX - 65535);
    WRONG(event_data, good.event_data + 64);
    WRONG(event_data, good.submit_data);
    WRONG(event_data, good.lines);
#undef WRONG
}


/*
 * Any bytes changed in any way: what is accepted lies inside the segment and
 * apart from each other, counted here in another way than there.
 */
static void
welcome_at_random(void **state)
{
    static const uint64_t odd[] = {0, 1, 64, 192, 4096, 4160, 65536, 1u << 20,
        UINT32_MAX, 1ull << 32, 1ull << 63, UINT64_MAX - 63};
    llm_msg_welcome_t m;
    uint64_t r = 1, v, at[5], len[5], ok = 0;
    uint32_t i, j, k, n;

    (void) state;
    for (n = 0; n < 400000; n++) {
        m = welcome(64);
        for (k = 0; k < 1 + n % 3; k++) {
            r = r * 6364136223846793005ull + 1442695040888963407ull;
            j = (uint32_t) (r >> 40) % (sizeof(m) / 8);
            memcpy(&v, (uint8_t *) &m + j * 8, 8);
            v = r >> 62 == 0 ? odd[(r >> 33) % 12]
                             : v + odd[(r >> 33) % 12] * (r >> 62 & 1 ? 1 : -1);
            memcpy((uint8_t *) &m + j * 8, &v, 8);
        }
        if (!llm_welcome_ok(&m)) {
            continue;
        }
        ok++;
        at[0] = m.submit_ctl, len[0] = 192;
        at[1] = m.event_ctl, len[1] = 192;
        at[2] = m.lines, len[2] = 64ull * m.slots;
        at[3] = m.submit_data, len[3] = m.submit_size;
        at[4] = m.event_data, len[4] = m.event_size;
        for (i = 0; i < 5; i++) {
            assert_true(at[i] >= 4096 && at[i] <= m.seg_size);
            assert_true(at[i] + len[i] >= at[i]);
            assert_true(at[i] + len[i] <= m.seg_size);
            for (j = 0; j < i; j++) {
                assert_true(at[j] + len[j] <= at[i]);
            }
        }
    }
    assert_true(ok > 1000);
}


/* The largest of everything still leaves room for two TOKENS records. */
static void
keep_leaves_room(void **state)
{
    llm_msg_welcome_t m = welcome(LLM_SLOTS_MAX);

    (void) state;
    assert_int_equal(llm_event_keep(1), 2 * LLM_TERMINAL_MAX);
    assert_true(llm_event_keep(LLM_SLOTS_MAX) > LLM_SLOTS_MAX * 256);
    assert_true(m.event_size <= LLM_RING_MAX);
    assert_true(m.event_size / 2 >= LLM_TOKENS_MAX);
}


/* --- SUBMIT ------------------------------------------------------------- */

static uint32_t
put_section(
    uint8_t *p, uint32_t at, uint32_t type, const void *body, uint32_t len)
{
    llm_wire_sec_t sec = {type, len};

    memcpy(p + at, &sec, sizeof(sec));
    memset(p + at + sizeof(sec), 0, (len + 7u) & ~7u);
    if (len > 0) {
        memcpy(p + at + sizeof(sec), body, len);
    }

    return at + (uint32_t) sizeof(sec) + ((len + 7u) & ~7u);
}


/* A SUBMIT with a head of head_len bytes and three sections. Its length. */
static uint32_t
put_submit(uint8_t *p, uint32_t head_len)
{
    uint32_t at;

    memset(p, 0, head_len);
    memcpy(p + offsetof(llm_wire_submit_t, head_len), &head_len, 4);
    at = put_section(p, head_len, LLM_SEC_MODEL, "tiny", 4);
    at = put_section(p, at, 4711, "", 0); /* of a newer peer */

    return put_section(p, at, LLM_SEC_PROMPT, "once upon", 9);
}


/* Walks to the end; every body must lie in the record. Sections, or -1. */
static int
walk_submit(const uint8_t *p, uint32_t len)
{
    llm_wire_sec_t sec;
    const uint8_t *body;
    uint32_t at = 0, last;
    int rc, n = 0;

    for (;;) {
        last = at;
        rc = llm_submit_section(p, len, &at, &sec, &body);
        if (rc != 1) {
            assert_true(rc == 0 || rc == -1);
            assert_true(rc == -1 || at == len);
            return rc == 0 ? n : -1;
        }
        assert_true(at > last && at <= len);
        assert_true(body >= p && body + sec.len <= p + len);
        assert_int_equal((body - p) % 8, 0);
        touch(body, sec.len);
        n++;
    }
}


/* head_len as this version knows it, as older ones, as newer ones. */
static void
submit_of_other_versions(void **state)
{
    uint8_t p[512];
    uint32_t head_len, len, at;
    llm_wire_sec_t sec;
    const uint8_t *body;

    for (head_len = 24; head_len <= 256; head_len += 8) {
        len = put_submit(p, head_len);
        assert_int_equal(walk_submit(at_edge(state, p, len), len), 3);

        at = 0;
        assert_int_equal(llm_submit_section(p, len, &at, &sec, &body), 1);
        assert_int_equal(sec.type, LLM_SEC_MODEL);
        assert_memory_equal(body, "tiny", 4);
        assert_int_equal(llm_submit_section(p, len, &at, &sec, &body), 1);
        assert_int_equal(sec.type, 4711);
        assert_int_equal(sec.len, 0);
        assert_int_equal(llm_submit_section(p, len, &at, &sec, &body), 1);
        assert_int_equal(sec.type, LLM_SEC_PROMPT);
        assert_int_equal(sec.len, 9);
        assert_memory_equal(body, "once upon", 9);
        assert_int_equal(llm_submit_section(p, len, &at, &sec, &body), 0);
        assert_int_equal(llm_submit_section(p, len, &at, &sec, &body), 0);
    }

    /* no section at all is an end, not a lie */
    put_submit(p, 112);
    assert_int_equal(walk_submit(at_edge(state, p, 112), 112), 0);
}


static void
submit_cut_short(void **state)
{
    uint8_t p[512];
    const uint32_t head_len = sizeof(llm_wire_submit_t);
    uint32_t len = put_submit(p, head_len), cut;
    int n;

    for (cut = 0; cut < len; cut++) {
        n = walk_submit(at_edge(state, p, cut), cut);
        if (cut == head_len) {
            assert_int_equal(n, 0);
        } else if (cut == head_len + 16) {
            assert_int_equal(n, 1);
        } else if (cut == head_len + 24) {
            assert_int_equal(n, 2);
        } else {
            assert_int_equal(n, -1);
        }
    }
}


static void
submit_that_lies(void **state)
{
    static const uint32_t odd[] = {0, 1, 7, 8, 16, 20, 23, 25, 28, 113, 116,
        504, 511, 4096, 0x7fffffff, 0x80000000, 0xfffffff0, 0xfffffff8,
        0xfffffffc, 0xffffffff};
    const uint32_t head_len = sizeof(llm_wire_submit_t);
    uint8_t p[512], *q;
    uint32_t len, i, at;
    const uint32_t n = sizeof(odd) / sizeof(odd[0]);

    for (i = 0; i < n; i++) {
        /* head_len */
        len = put_submit(p, head_len);
        memcpy(p + offsetof(llm_wire_submit_t, head_len), &odd[i], 4);
        q = at_edge(state, p, len);
        assert_int_equal(walk_submit(q, len), -1);

        /* a section's length, at each word that could be one */
        for (at = head_len; at < len; at += 4) {
            len = put_submit(p, head_len);
            memcpy(p + at, &odd[i], 4);
            q = at_edge(state, p, len);
            (void) walk_submit(q, len);
        }

        /* the last one's: its body, padded, is 16 bytes */
        len = put_submit(p, head_len);
        memcpy(p + len - 20, &odd[i], 4);
        q = at_edge(state, p, len);
        if (odd[i] >= 1 && odd[i] <= 8) {
            /* the padding's "n\0\0..." is a fourth, empty, of type 'n' */
            assert_int_equal(walk_submit(q, len), 4);
        } else {
            assert_int_equal(walk_submit(q, len), odd[i] == 16 ? 3 : -1);
        }
    }
}


/* --- TOKENS ------------------------------------------------------------- */

static llm_wire_tokens_t
tokens(uint32_t text_len, uint32_t lp_len)
{
    llm_wire_tokens_t t;

    memset(&t, 0, sizeof(t));
    t.hdr.type = LLM_REC_TOKENS;
    t.choice = LLM_CHOICES_MAX - 1;
    t.finish = LLM_FINISH_LENGTH;
    t.tokens = 1;
    t.text_len = text_len;
    t.lp_len = lp_len;

    return t;
}


static void
tokens_lengths(void **state)
{
    uint8_t rec[256];
    llm_wire_tokens_t t, got;
    const uint8_t *p, *text, *lp;
    uint32_t text_len, lp_len, need, len;
    int ok;

    memset(rec, 'x', sizeof(rec));
    for (text_len = 0; text_len < 20; text_len++) {
        for (lp_len = 0; lp_len < 40; lp_len += 3) {
            t = tokens(text_len, lp_len);
            memcpy(rec, &t, LLM_TOKENS_HEAD);
            need = LLM_TOKENS_HEAD + ((text_len + 3) & ~3u) + lp_len;
            t.kind = LLM_TEXT_REASONING;
            t.reasoning = 7;
            t.prompt = 9;
            memcpy(rec + need, &t.kind, LLM_TOKENS_TAIL);

            /* cut short, exact, and with what a newer peer adds behind */
            for (len = 0; len < need + 20; len++) {
                p = at_edge(state, rec, len);
                ok = llm_tokens_ok(p, len, &got, &text, &lp);
                assert_int_equal(ok, len >= need);
                if (ok) {
                    assert_int_equal(got.text_len, text_len);
                    assert_ptr_equal(text, p + LLM_TOKENS_HEAD);
                    assert_int_equal(
                        got.kind, len >= need + 4 ? LLM_TEXT_REASONING : 0);
                    assert_int_equal(got.reasoning, len >= need + 8 ? 7 : 0);
                    assert_int_equal(got.prompt, len >= need + 12 ? 9 : 0);
                    assert_true(lp + lp_len <= p + len);
                    assert_true(lp >= text + text_len);
                }
            }
        }
    }
}


static void
tokens_that_lie(void **state)
{
    static const uint32_t odd[] = {5, 0x7fffffff, 0x80000000, 0xffffffd4,
        0xfffffffc, 0xfffffffd, 0xffffffff};
    llm_wire_tokens_t t, got;
    const uint8_t *text, *lp, *p;
    size_t i, j;

    for (i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        for (j = 0; j < sizeof(odd) / sizeof(odd[0]); j++) {
            t = tokens(odd[i], odd[j]);
            p = at_edge(state, &t, sizeof(t));
            assert_false(llm_tokens_ok(p, sizeof(t), &got, &text, &lp));
        }
        t = tokens(0, 0);
        t.kind = odd[i];
        p = at_edge(state, &t, sizeof(t));
        assert_false(llm_tokens_ok(p, sizeof(t), &got, &text, &lp));
        t = tokens(odd[i] | 16, 0);
        p = at_edge(state, &t, sizeof(t));
        assert_false(llm_tokens_ok(p, sizeof(t), &got, &text, &lp));
        t = tokens(0, odd[i] | 16);
        p = at_edge(state, &t, sizeof(t));
        assert_false(llm_tokens_ok(p, sizeof(t), &got, &text, &lp));
    }

    t = tokens(0, 0);
    p = at_edge(state, &t, sizeof(t));
    assert_true(llm_tokens_ok(p, sizeof(t), &got, &text, &lp));
    t.choice = LLM_CHOICES_MAX;
    p = at_edge(state, &t, sizeof(t));
    assert_false(llm_tokens_ok(p, sizeof(t), &got, &text, &lp));
    t.choice = 0;
    t.finish = LLM_FINISHES;
    p = at_edge(state, &t, sizeof(t));
    assert_false(llm_tokens_ok(p, sizeof(t), &got, &text, &lp));
}


/* --- logprob entries ---------------------------------------------------- */

static uint32_t
put_lp(uint8_t *p, uint32_t at, uint16_t len, uint16_t top)
{
    llm_wire_lp_t e = {at, -0.5f, len, top};

    memcpy(p + at, &e, sizeof(e));
    memset(p + at + sizeof(e), 'y', (len + 3u) & ~3u);

    return at + (uint32_t) sizeof(e) + ((len + 3u) & ~3u);
}


/* Walks to the end; every token must lie inside. Entries, or -1. */
static int
walk_lp(const uint8_t *p, uint32_t len)
{
    const uint8_t *at = p, *bytes, *last;
    uint32_t left = len;
    llm_wire_lp_t e;
    int rc, n = 0;

    for (;;) {
        last = at;
        rc = llm_lp_next(&at, &left, &e, &bytes);
        if (rc != 1) {
            assert_true(rc == 0 || rc == -1);
            assert_ptr_equal(at, last);
            assert_int_equal(rc == 0, left == 0);
            return rc == 0 ? n : -1;
        }
        assert_true(at > last && at + left == p + len);
        assert_true(bytes >= p && bytes + e.len <= p + len);
        assert_true(e.top <= LLM_TOP_LOGPROBS_MAX);
        touch(bytes, e.len);
        n++;
    }
}


static void
logprobs(void **state)
{
    uint8_t p[512];
    uint32_t len, cut, end[4];
    llm_wire_lp_t e;
    int n, i;

    end[0] = put_lp(p, 0, 5, 2);
    end[1] = put_lp(p, end[0], 0, 0);
    end[2] = put_lp(p, end[1], 4, 0);
    end[3] = len = put_lp(p, end[2], 1, LLM_TOP_LOGPROBS_MAX);
    assert_int_equal(walk_lp(at_edge(state, p, len), len), 4);

    for (cut = 0; cut <= len; cut++) {
        n = cut == 0 ? 0 : -1;
        for (i = 0; i < 4; i++) {
            n = cut == end[i] ? i + 1 : n;
        }
        assert_int_equal(walk_lp(at_edge(state, p, cut), cut), n);
    }

    put_lp(p, end[2], 1, LLM_TOP_LOGPROBS_MAX + 1);
    assert_int_equal(walk_lp(at_edge(state, p, len), len), -1);

    /* the longest length there is */
    put_lp(p, end[2], 1, 0);
    memcpy(&e, p + end[2], sizeof(e));
    for (i = 0xffff; i > 4; i = i / 2 + 1) {
        e.len = (uint16_t) i;
        memcpy(p + end[2], &e, sizeof(e));
        assert_int_equal(walk_lp(at_edge(state, p, len), len), -1);
        if (i == 5) {
            break;
        }
    }
}


/* All walks over bytes that mean nothing. */
static void
noise(void **state)
{
    uint8_t p[320];
    const uint8_t *q, *text, *lp;
    llm_wire_tokens_t t;
    uint64_t r = 99;
    uint32_t n, i, len;

    for (n = 0; n < 200000; n++) {
        r = r * 6364136223846793005ull + 1442695040888963407ull;
        len = (uint32_t) (r >> 33) % sizeof(p);
        for (i = 0; i < len; i += 4) {
            r = r * 6364136223846793005ull + 1442695040888963407ull;
            memset(p + i, 0, 4);
            p[i] = (r >> 60) > 3 ? (uint8_t) (r >> 33) & 0x1f : 0;
            p[i + 2] = (r >> 60) == 3 ? 0xff : 0;
        }
        if (len >= 24) {
            p[20] = (uint8_t) (24 + 8 * (r >> 33) % 12);
        }
        q = at_edge(state, p, len);
        (void) walk_submit(q, len);
        (void) walk_lp(q, len);
        if (llm_tokens_ok(q, len, &t, &text, &lp)) {
            assert_true(text + t.text_len <= lp && lp + t.lp_len <= q + len);
            (void) walk_lp(lp, t.lp_len);
        }
    }
}


/* N reads N-1 with zero for what is not there, and N+1 without its tail. */
static void
fixed_parts_of_other_versions(void **state)
{
    struct {
        llm_wire_done_t done;
        uint64_t added;
    } newer;
    llm_wire_done_t done;
    uint8_t sevens[sizeof(newer)];
    const uint8_t *rec;

    memset(sevens, 7, sizeof(sevens));
    memset(&newer, 0x5a, sizeof(newer));
    rec = at_edge(state, sevens, sizeof(done));

    assert_true(llm_wire_read(
        &newer, sizeof(newer), LLM_DONE_MIN, rec, (uint32_t) sizeof(done)));
    assert_memory_equal(&newer.done, rec, sizeof(done));
    assert_int_equal(newer.added, 0);

    rec = at_edge(state, sevens, sizeof(newer));
    assert_true(llm_wire_read(
        &done, sizeof(done), LLM_DONE_MIN, rec, (uint32_t) sizeof(newer)));
    assert_memory_equal(&done, rec, sizeof(done));

    /* the oldest are the ones of today, but for what was added */
    assert_int_equal(sizeof(llm_wire_admit_t), LLM_ADMIT_MIN);
    assert_int_equal(sizeof(llm_wire_counted_t), LLM_COUNTED_MIN);
    assert_int_equal(sizeof(llm_wire_done_t), LLM_DONE_MIN);
    assert_int_equal(offsetof(llm_wire_error_t, retry_ms), LLM_ERROR_MIN);
    assert_false(llm_wire_read(
        &done, sizeof(done), LLM_DONE_MIN, rec, LLM_DONE_MIN - 1));
}


int
main(void)
{
    const struct CMUnitTest all[] = {
        cmocka_unit_test(fields_stay),
        cmocka_unit_test(welcome_that_is_right),
        cmocka_unit_test(welcome_one_thing_wrong),
        cmocka_unit_test(welcome_at_random),
        cmocka_unit_test(keep_leaves_room),
        cmocka_unit_test(submit_of_other_versions),
        cmocka_unit_test(submit_cut_short),
        cmocka_unit_test(submit_that_lies),
        cmocka_unit_test(tokens_lengths),
        cmocka_unit_test(tokens_that_lie),
        cmocka_unit_test(logprobs),
        cmocka_unit_test(fixed_parts_of_other_versions),
        cmocka_unit_test(noise),
    };

    return cmocka_run_group_tests(all, edge_open, edge_close);
}
