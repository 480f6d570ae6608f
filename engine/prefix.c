/*
 * Files that say what prompts begin with, to token ids.
 *
 * DESIGN.  A file is the text of a system message, or, if its name ends in
 * .json, what of a request's body makes its prompt:
 *
 *      {"messages": [{"role": "system", "content": "..."}], "tools": [...]}
 *      [{"role": "system", "content": "..."}]
 *      {"prompt": "..."}
 *
 * THE SEAM.  What matters is not how such a conversation is written when it is
 * alone but which tokens all requests begin with that go on from it, and only
 * the template knows: it may close the message, put the user's words into the
 * same turn, or trim them; and the last token before what comes may be another
 * one because of what comes.  So nothing is guessed.  The prompts of a dozen
 * requests are made that go on differently, as text_in makes them, and the
 * prefix is what all of them begin with:
 *
 *      <|im_start|> system \n You are ... <|im_end|> \n <|im_start|> user \n  a
 *      <|im_start|> system \n You are ... <|im_end|> \n <|im_start|> user  \n\n
 *      `------------------- the prefix --------------------------------'
 *
 * Should a request come that differs earlier yet, its tokens are compared like
 * any, and it finds a block less.  A template that writes the date makes other
 * tokens tomorrow: one of the prompts is made for other days too, so what
 * stands behind a date is not in the prefix.
 *
 * Members of JSON are handed on as they stand in the file: read and written
 * again, a number might come out in another way than a client's.
 *
 * The set owns paths and ids.  The main thread, before memory is sealed.
 */
#include "prefix.h"
#include "json_cut.h"
#include "llm_err.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* What requests may go on with: as JSON writes it, and as it is. */
static const struct {
    const char *json, *text;
} goes_on[] = {{"a", "a"}, {"The", "The"}, {"0", "0"}, {" x", " x"},
    {"\\n\\nx", "\n\nx"}, {"\\nx", "\nx"}, {"\\t", "\t"}, {".", "."},
    {",\\n", ",\n"}, {"(", "("}, {"'s", "'s"}, {"\\\"", "\""}, {"<", "<"},
    {"#", "#"}, {"\xc3\xa9", "\xc3\xa9"}, {"\xe4\xb8\xad", "\xe4\xb8\xad"},
    {"\xf0\x9f\x99\x82", "\xf0\x9f\x99\x82"}};

#define GOES_ON_N (sizeof(goes_on) / sizeof(goes_on[0]))

/* One file's. */
typedef struct {
    const prefix_rules_t *r;
    const char *path;
    template_input_t chat;  /* borrows from the file's text */
    template_text_t prompt; /* decoded; s is NULL: it is a conversation */
    char *made;           /* owned: what chat or prompt borrows, if not that */
    const char *role;     /* of what comes next */
    uint32_t *ids, *work; /* [r->most] what all begin with so far; one's */
    uint32_t n;
    char *err;
    size_t errlen;
} prefix_job_t;


static int
fail(const prefix_job_t *j, const char *why)
{
    snprintf(j->err, j->errlen, "prefix_pin %.200s: %s", j->path, why);

    return -1;
}


/* --- what the file says ------------------------------------------------- */

/* Says who speaks after these messages, if they are any. */
static int
read_messages(prefix_job_t *j)
{
    const template_text_t *m = &j->chat.messages;
    const char *role;
    json_t *list;

    list = json_loadb(m->s, m->len, JSON_ALLOW_NUL, NULL);
    if (!json_is_array(list) || json_array_size(list) == 0) {
        json_decref(list);
        return fail(j, "expected messages, a JSON array of at least one");
    }

    role = json_string_value(json_object_get(
        json_array_get(list, json_array_size(list) - 1), "role"));
    j->role = role != NULL && strcmp(role, "user") == 0 ? "assistant" : "user";
    json_decref(list);

    return 0;
}


/* The text of a completion's prompt, whose JSON is given. */
static int
read_prompt(prefix_job_t *j, template_text_t json)
{
    json_t *v =
        json_loadb(json.s, json.len, JSON_ALLOW_NUL | JSON_DECODE_ANY, NULL);

    if (!json_is_string(v) || json_string_length(v) == 0) {
        json_decref(v);
        return fail(j, "expected prompt, a JSON string that is not empty");
    }

    j->prompt.len = json_string_length(v);
    j->made = malloc(j->prompt.len);
    if (j->made != NULL) {
        memcpy(j->made, json_string_value(v), j->prompt.len);
    }
    j->prompt.s = j->made;
    json_decref(v);

    return j->made == NULL ? fail(j, "out of memory") : 0;
}


static int
is(const json_cut_piece_t *key, const char *name)
{
    return key->len == strlen(name) && memcmp(key->s, name, key->len) == 0;
}


/* The members of a request's body. */
static int
read_object(prefix_job_t *j, const char *text, size_t len)
{
    template_text_t prompt = {NULL, 0}, *to;
    json_cut_piece_t key, value;
    json_cut_t cut;
    int rc = 0;

    if (json_cut_open(&cut, text, len)) {
        while ((rc = json_cut_next(&cut, &key, &value)) == 1) {
            to = is(&key, "messages")               ? &j->chat.messages
                 : is(&key, "prompt")               ? &prompt
                 : is(&key, "tools")                ? &j->chat.tools
                 : is(&key, "documents")            ? &j->chat.documents
                 : is(&key, "chat_template_kwargs") ? &j->chat.kwargs
                                                    : NULL;
            if (to == NULL || to->s != NULL) {
                return fail(j, "expected members messages or prompt, tools, "
                               "documents, chat_template_kwargs, once each");
            }
            to->s = value.s;
            to->len = value.len;
        }
    }
    if (rc != 0 || !json_cut_done(&cut)) {
        return fail(j, "expected a JSON object");
    }

    if ((prompt.s != NULL) == (j->chat.messages.s != NULL)) {
        return fail(j, "expected either messages or prompt");
    }

    return prompt.s != NULL ? read_prompt(j, prompt) : read_messages(j);
}


/* Where JSON begins behind white space. */
static size_t
skip_space(const char *p, size_t len)
{
    size_t i = 0;

    while (i < len && strchr(" \t\r\n", p[i]) != NULL && p[i] != '\0') {
        i++;
    }

    return i;
}


static int
read_json(prefix_job_t *j, const char *text, size_t len)
{
    size_t i = skip_space(text, len);

    if (i < len && text[i] == '[') {
        j->chat.messages.s = text + i;
        j->chat.messages.len = len - i;
        return read_messages(j);
    }
    if (i < len && text[i] == '{') {
        return read_object(j, text, len);
    }

    return fail(j, "expected a JSON object or array");
}


/* A system message's text; an editor's last line end is no part of it. */
static int
read_text(prefix_job_t *j, const char *text, size_t len)
{
    json_t *list;

    len -= len > 0 && text[len - 1] == '\n';
    len -= len > 0 && text[len - 1] == '\r';
    if (len == 0) {
        return fail(j, "it is empty");
    }

    list = json_pack(
        "[{s:s,s:s%}]", "role", "system", "content", text, (size_t) len);
    if (list == NULL) {
        return fail(j, "expected UTF-8 text");
    }
    j->made = json_dumps(list, 0);
    json_decref(list);
    if (j->made == NULL) {
        return fail(j, "out of memory");
    }
    j->chat.messages.s = j->made;
    j->chat.messages.len = strlen(j->made);
    j->role = "user";

    return 0;
}


/* --- the prompts that go on from it ------------------------------------- */

/* Takes what the prompt in work begins with in common with those before. */
static void
meet(prefix_job_t *j, uint32_t n, int first)
{
    uint32_t i = 0;

    if (first) {
        memcpy(j->ids, j->work, n * sizeof(*j->ids));
        j->n = n;
        return;
    }
    while (i < n && i < j->n && j->ids[i] == j->work[i]) {
        i++;
    }
    j->n = i;
}


/* One prompt to work; how many tokens, or -1 with err. */
static int64_t
encode(prefix_job_t *j, const char *text, size_t len, time_t now)
{
    char why[256] = "", param[64] = "", both[400];
    template_input_t in = j->chat;
    int64_t n;

    if (j->prompt.s != NULL) {
        n = token_encode(
            j->r->tok, text, len, TOKEN_F_BOS, j->work, j->r->most, NULL, NULL);
    } else {
        in.messages.s = text;
        in.messages.len = len;
        in.now = now;
        n = template_encode(j->r->tpl, &in, j->work, j->r->most, NULL, NULL,
            why, sizeof(why), param, sizeof(param));
    }

    if (n >= 0) {
        return n;
    }
    if (n == -LLM_ERR_CONTEXT_FULL) {
        snprintf(both, sizeof(both),
            "expected at most %u tokens, as the context has room for, found "
            "more",
            j->r->most);
    } else {
        snprintf(both, sizeof(both), "%s%s%s",
            why[0] != '\0' ? why : llm_err((uint32_t) -n)->code,
            param[0] != '\0' ? " at " : "", param);
    }

    return fail(j, both);
}


/* The text that goes on with word i in buf; its length. */
static size_t
go_on(const prefix_job_t *j, size_t i, char *buf, size_t size)
{
    const template_text_t *m =
        j->prompt.s != NULL ? &j->prompt : &j->chat.messages;
    size_t len = m->len;
    int n;

    assert(size > len);
    memcpy(buf, m->s, len);

    if (j->prompt.s != NULL) {
        n = snprintf(buf + len, size - len, "%s", goes_on[i].text);
    } else {
        /* its last bracket: what is behind it is white space */
        while (buf[len - 1] != ']') {
            len--;
            assert(len > 0);
        }
        len--;
        n = snprintf(buf + len, size - len,
            ",{\"role\":\"%s\",\"content\":\"%s\"}]", j->role, goes_on[i].json);
    }
    assert(n > 0 && (size_t) n < size - len);

    return len + (size_t) n;
}


/* What all prompts begin with that are made now. */
static int
meet_words(prefix_job_t *j, char *buf, size_t size)
{
    const template_text_t *m = &j->chat.messages;
    size_t i, len;
    int64_t n;

    for (i = 0; i < GOES_ON_N; i++) {
        len = go_on(j, i, buf, size);
        n = encode(j, buf, len, j->r->now);
        if (n < 0) {
            return -1;
        }
        meet(j, (uint32_t) n, i == 0);
    }

    /* after a user's turn the answer is due: that is a request, too */
    if (j->prompt.s == NULL && strcmp(j->role, "assistant") == 0) {
        n = encode(j, m->s, m->len, j->r->now);
        if (n < 0) {
            return -1;
        }
        meet(j, (uint32_t) n, 0);
    }

    return 0;
}


/* And on other days, with other digits in the date. */
static int
meet_dates(prefix_job_t *j, char *buf, size_t size)
{
    static const int days[] = {11, 22, 33, 400, 2500};
    size_t i, len = go_on(j, 0, buf, size);
    int64_t n;

    for (i = 0; i < sizeof(days) / sizeof(days[0]); i++) {
        n = encode(j, buf, len, j->r->now + (time_t) days[i] * 86400);
        if (n < 0) {
            return -1;
        }
        meet(j, (uint32_t) n, 0);
    }

    return 0;
}


static int
make(prefix_job_t *j, prefix_t *p)
{
    const template_text_t *m =
        j->prompt.s != NULL ? &j->prompt : &j->chat.messages;
    size_t size = m->len + 256;
    char *buf = malloc(size);
    int rc;

    if (buf == NULL) {
        return fail(j, "out of memory");
    }

    rc = meet_words(j, buf, size);
    p->dated = j->n;
    if (rc == 0 && j->prompt.s == NULL) {
        rc = meet_dates(j, buf, size);
    }
    free(buf);

    p->n = j->n;
    assert(p->n <= p->dated);

    return rc == 0 && p->n == 0 ? fail(j, "no token of it is in every prompt")
                                : rc;
}


/* --- files -------------------------------------------------------------- */

int
prefix_add(prefix_set_t *set, const char *path, const prefix_rules_t *r,
    const char *text, size_t len, char *err, size_t errlen)
{
    prefix_job_t j;
    prefix_t *p;
    size_t name = strlen(path);
    int rc;

    assert(r->most > 0 && errlen > 0);
    memset(&j, 0, sizeof(j));
    j.r = r;
    j.path = path;
    j.err = err;
    j.errlen = errlen;

    if (set->n == PREFIX_MAX) {
        return fail(&j, "there are 64 prefixes already");
    }
    if (len > PREFIX_FILE_MAX) {
        return fail(&j, "expected at most 2 MiB");
    }

    p = &set->v[set->n];
    p->path = strdup(path);
    p->ids = j.ids = malloc(r->most * sizeof(uint32_t));
    j.work = malloc(r->most * sizeof(uint32_t));
    if (p->path == NULL || j.ids == NULL || j.work == NULL) {
        rc = fail(&j, "out of memory");
    } else if (name > 5 && strcmp(path + name - 5, ".json") == 0) {
        rc = read_json(&j, text, len);
    } else {
        rc = read_text(&j, text, len);
    }

    rc = rc == 0 ? make(&j, p) : rc;
    free(j.work);
    free(j.made);
    if (rc != 0) {
        free(p->path);
        free(p->ids);
        memset(p, 0, sizeof(*p));
        return -1;
    }
    set->n++;

    return 0;
}


static int
load_file(prefix_set_t *set, const char *path, const prefix_rules_t *r,
    char *err, size_t errlen)
{
    char *text = malloc(PREFIX_FILE_MAX + 1);
    FILE *f = fopen(path, "re");
    size_t len;
    int rc = -1;

    if (text == NULL || f == NULL) {
        snprintf(err, errlen, "prefix_pin %.200s: %s", path, strerror(errno));
        goto done;
    }
    len = fread(text, 1, PREFIX_FILE_MAX + 1, f);
    if (ferror(f)) {
        snprintf(err, errlen, "prefix_pin %.200s: %s", path, strerror(errno));
        goto done;
    }
    rc = prefix_add(set, path, r, text, len, err, errlen);

done:

    if (f != NULL) {
        (void) fclose(f);
    }
    free(text);

    return rc;
}


static int
shown(const struct dirent *d)
{
    return d->d_name[0] != '.';
}


static int
load_dir(prefix_set_t *set, const char *dir, const prefix_rules_t *r, char *err,
    size_t errlen)
{
    struct dirent **names;
    int n = scandir(dir, &names, shown, alphasort), i, rc = 0;
    char path[4096];

    if (n < 0) {
        snprintf(err, errlen, "prefix_pin %.200s: %s", dir, strerror(errno));
        return -1;
    }

    for (i = 0; i < n; i++) {
        if (rc == 0) {
            snprintf(path, sizeof(path), "%s/%s", dir, names[i]->d_name);
            rc = load_file(set, path, r, err, errlen);
        }
        free(names[i]);
    }
    free(names);

    return rc;
}


int
prefix_load(prefix_set_t *set, const char *path, const prefix_rules_t *r,
    char *err, size_t errlen)
{
    struct stat st;

    if (stat(path, &st) != 0) {
        snprintf(err, errlen, "prefix_pin %.200s: %s", path, strerror(errno));
        return -1;
    }

    return S_ISDIR(st.st_mode) ? load_dir(set, path, r, err, errlen)
                               : load_file(set, path, r, err, errlen);
}


void
prefix_free(prefix_set_t *set)
{
    uint32_t i;

    for (i = 0; i < set->n; i++) {
        free(set->v[i].path);
        free(set->v[i].ids);
    }
    memset(set, 0, sizeof(*set));
}
