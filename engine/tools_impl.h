/*
 * What the files of tools share: tools.c (families, text around calls),
 * tools_json.c (calls that are JSON), tools_xml.c (calls whose parameters are
 * elements), tools_schema.c (what a request declares).  For those only.
 */
#ifndef TOOLS_IMPL_H
#define TOOLS_IMPL_H

#include "tools.h"

#define TOOLS_MARKS 5   /* of one sort, of a family */
#define TOOLS_MARK  48  /* bytes of one, at most */
#define TOOLS_OUT   256 /* bytes put at once */
#define TOOLS_HEAD  256 /* bytes before the arguments of a named call */

/* How the inside of a call is written. */
enum {
    TOOLS_JSON = 1,  /* {"name": .., "arguments": {..}}, or a list of them */
    TOOLS_NAMED = 2, /* a name between marks, then the arguments' object */
    TOOLS_XML = 4,   /* elements */
    TOOLS_BARE = 8,  /* no mark: JSON that the answer begins with */
};

/* Elements that a call's parameters are. */
typedef struct {
    const char *open; /* before the function's name; "" for none */
    char name_end;
    const char *key_open, *key_close, *value_open, *value_close, *close;
} tools_xml_t;

/* A family. */
typedef struct {
    const char *name;
    const char *signs[2]; /* a template that has one is of it */
    uint32_t form;
    const char *opens[TOOLS_MARKS]; /* what a call begins with */
    const char *fills[TOOLS_MARKS]; /* what is dropped behind one */
    const char *inner[TOOLS_MARKS]; /* other marks inside one */
    const tools_xml_t *xml;
    const char *heads[TOOLS_MARKS]; /* tokens of a header, which is no text */
} tools_row_t;

/* A family, with those of its marks that are tokens without text: of calls,
 * then of headers. */
struct tools_family_s {
    const tools_row_t *row;
    uint32_t calls, all;
    grammar_mark_t marks[4 * TOOLS_MARKS]; /* behind GRAMMAR_TOKEN */
    char texts[4 * TOOLS_MARKS][TOOLS_MARK];
};

/* Types of JSON's, as bits; 0: nothing is known. */
enum {
    TOOLS_STRING = 1,
    TOOLS_NUMBER = 2,
    TOOLS_BOOLEAN = 4,
    TOOLS_NULL = 8,
    TOOLS_OBJECT = 16,
    TOOLS_ARRAY = 32,
};

typedef struct {
    const char *name; /* in the schema's block */
    uint32_t len, types;
} tools_param_t;

typedef struct {
    const char *name; /* in the schema's block */
    uint32_t len;
    uint32_t first, n; /* of params */
} tools_function_t;

/* What a request declares; one block of memory. */
typedef struct {
    uint32_t functions_n, params_n;
    tools_function_t *functions;
    tools_param_t *params;
    void *block; /* owned */
} tools_schema_t;

/* Where a choice is. */
enum {
    TOOLS_TEXT,
    TOOLS_BODY,
    TOOLS_IN_JSON,
    TOOLS_LIST,
    TOOLS_IN_NAMED,
    TOOLS_IN_XML,
    TOOLS_ENDED
};

typedef struct {
    uint8_t state;
    uint8_t sub;        /* tools_json.c's, tools_xml.c's */
    uint8_t key;        /* which key's value comes */
    uint8_t nest;       /* objects around the one with the name */
    uint8_t list;       /* calls are in a list */
    uint8_t calls_list; /* one of them has been whole */
    uint8_t bare;       /* what is read has no mark */
    uint8_t after;      /* nothing but white space since a call */
    uint8_t begun;      /* answer's text has come */
    uint8_t named;      /* the name is out, arguments go out as they come */
    uint8_t ghost;      /* the mark came as a token without text */
    uint8_t full;       /* a byte found no room */
    uint8_t quoted, escaped, lead, mode;
    uint8_t args;        /* arguments: 0 none, else how they are written */
    uint8_t hex_n;       /* digits of \uXXXX read */
    uint16_t hex, high;  /* what they are; the first of a pair */
    uint32_t depth;      /* of brackets */
    uint32_t n;          /* bytes held */
    uint32_t mark, open; /* of them up to the mark's end; the mark's own */
    uint32_t name_at, name_n, args_at, args_n, string_at;
    uint32_t function; /* of the schema; TOOLS_NONE */
    uint32_t key_types;
    uint32_t fields; /* parameters so far */
    uint32_t calls;  /* whole ones */
    char held[TOOLS_HELD_MAX];
} tools_state_t;

#define TOOLS_NONE UINT32_MAX

struct tools_s {
    const tools_family_t *family; /* borrowed */
    tools_schema_t schema;
    uint32_t choices;
    int one;
    tools_state_t states[];
};

/* One call of tools_feed or tools_end. */
typedef struct {
    const tools_row_t *row;
    const tools_schema_t *schema;
    tools_state_t *s;
    tools_put_t put;
    void *arg;
    int rc;        /* what put gave */
    uint32_t kind; /* of what is in out */
    uint32_t n;
    char out[TOOLS_OUT];
} tools_run_t;

/* --- tools.c --- */

void tools_emit(tools_run_t *x, uint32_t kind, const char *p, size_t n);

/* Holds a byte; 0 if there is no room: tools_fail is due. */
int tools_hold(tools_run_t *x, char c);

/* What is held is no call, c its last byte, which may begin one.  If the call
 * has begun, it stays unfinished and c is text. */
void tools_fail(tools_run_t *x, char c);

/* The name is known: it goes out, and what is held can be no text any more. */
void tools_name(tools_run_t *x, const char *name, uint32_t len);

/* A call is whole. */
void tools_whole(tools_run_t *x);

static inline int
tools_is_white(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* May c be in a function's name? */
static inline int
tools_is_name(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z')
           || (c >= 'A' && c <= 'Z') || c == '_' || c == '-' || c == '.';
}

/* --- tools_json.c --- */

/* An object, a list begins with its bracket. */
void tools_json_begin(tools_run_t *x, char c);
void tools_json_byte(tools_run_t *x, char c);
void tools_list_byte(tools_run_t *x, char c);

/* Has a call's object had all of its arguments? */
int tools_json_over(const tools_state_t *s);

/* A name, then an object. */
void tools_named_byte(tools_run_t *x, char c);

/* --- tools_xml.c --- */

void tools_xml_begin(tools_run_t *x, char c);
void tools_xml_byte(tools_run_t *x, char c);

/* --- tools_schema.c --- */

/* 0, or -1: out of memory.  What is no declaration is passed over. */
int tools_schema_open(tools_schema_t *s, const char *json, size_t len);
void tools_schema_close(tools_schema_t *s);

/* The function of that name; TOOLS_NONE.  The types of one's parameter. */
uint32_t tools_schema_find(
    const tools_schema_t *s, const char *name, uint32_t len);
uint32_t tools_schema_types(
    const tools_schema_t *s, uint32_t function, const char *name, uint32_t len);

/* The longest declared name that n bytes at p begin with; 0: none. */
uint32_t tools_schema_prefix(const tools_schema_t *s, const char *p, size_t n);

#endif
