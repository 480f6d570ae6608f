/*
 * A tensor as a model's file has it, whatever the file's format: what gguf.c
 * and safetensors.c find, model.c judges and forward.c loads.
 */
#ifndef TENSOR_H
#define TENSOR_H

#include <stddef.h>
#include <stdint.h>

/*
 * Element types: X(number, name, elements in a block, bytes of a block).
 * Numbers below TENSOR_OWN are GGML's, as they stand in GGUF files; the others
 * are ours, for what only safetensors files have.
 */
#define TENSOR_OWN 256
#define TENSOR_TYPES(X)                                                        \
    X(0, F32, 1, 4)                                                            \
    X(1, F16, 1, 2)                                                            \
    X(2, Q4_0, 32, 18)                                                         \
    X(3, Q4_1, 32, 20)                                                         \
    X(6, Q5_0, 32, 22)                                                         \
    X(7, Q5_1, 32, 24)                                                         \
    X(8, Q8_0, 32, 34)                                                         \
    X(9, Q8_1, 32, 36)                                                         \
    X(10, Q2_K, 256, 84)                                                       \
    X(11, Q3_K, 256, 110)                                                      \
    X(12, Q4_K, 256, 144)                                                      \
    X(13, Q5_K, 256, 176)                                                      \
    X(14, Q6_K, 256, 210)                                                      \
    X(15, Q8_K, 256, 292)                                                      \
    X(16, IQ2_XXS, 256, 66)                                                    \
    X(17, IQ2_XS, 256, 74)                                                     \
    X(18, IQ3_XXS, 256, 98)                                                    \
    X(19, IQ1_S, 256, 50)                                                      \
    X(20, IQ4_NL, 32, 18)                                                      \
    X(21, IQ3_S, 256, 110)                                                     \
    X(22, IQ2_S, 256, 82)                                                      \
    X(23, IQ4_XS, 256, 136)                                                    \
    X(24, I8, 1, 1)                                                            \
    X(25, I16, 1, 2)                                                           \
    X(26, I32, 1, 4)                                                           \
    X(27, I64, 1, 8)                                                           \
    X(28, F64, 1, 8)                                                           \
    X(29, IQ1_M, 256, 56)                                                      \
    X(30, BF16, 1, 2)                                                          \
    X(34, TQ1_0, 256, 54)                                                      \
    X(35, TQ2_0, 256, 66)                                                      \
    X(39, MXFP4, 32, 17)                                                       \
    X(256, BOOL, 1, 1)                                                         \
    X(257, U8, 1, 1)                                                           \
    X(258, U16, 1, 2)                                                          \
    X(259, U32, 1, 4)                                                          \
    X(260, U64, 1, 8)                                                          \
    X(261, F8_E4M3, 1, 1)                                                      \
    X(262, F8_E5M2, 1, 1)                                                      \
    X(263, F8_E8M0, 1, 1)                                                      \
    X(264, F4, 2, 1)                                                           \
    X(265, F6_E2M3, 4, 3)                                                      \
    X(266, F6_E3M2, 4, 3)                                                      \
    X(267, C64, 1, 8)

enum {
#define X(number, name, elems, bytes) TENSOR_##name = number,
    TENSOR_TYPES(X)
#undef X
};

#define TENSOR_DIMS_MAX 4

/* Not 0-terminated; borrowed from the file. */
typedef struct {
    const char *s;
    size_t len;
} tensor_name_t;

/* Of F8_E4M3 with factors: rows and columns that have one in common. */
#define TENSOR_SCALE_BLOCK 128u

/* What there is to say of a tensor that is not just rows of its type. */
typedef struct {
    const struct tensor_s *scale; /* F32, a factor for each block, or NULL */
    uint32_t row_step;            /* bytes from row to row; 0: it is dense */
    uint32_t elem_step;  /* the same of a row's elements; 0: side by side */
    const uint8_t *exps; /* MXFP4's exponents, apart from its blocks, which */
                         /* have safetensors' order: one for 16 bytes */
    uint32_t scale_row, scale_col; /* where in scale's matrix it begins */
} tensor_lay_t;

typedef struct tensor_s {
    tensor_name_t name;
    uint32_t type; /* TENSOR_* */
    uint32_t dims_n;
    uint64_t dims[TENSOR_DIMS_MAX]; /* dims[0] is the row's length; rest is 1 */
    uint64_t size;                  /* bytes */
    const uint8_t *data;     /* in the file's mapping; may be unaligned */
    const tensor_lay_t *lay; /* NULL: nothing */
} tensor_t;

/* A type's name ("Q8_0"), NULL if the number is unknown. */
const char *tensor_type_name(uint32_t type);

/* The type called so, -1 if there is none. */
int tensor_type_find(const char *name, size_t len);

/* Elements in a block of a known type, and the bytes that they take. */
uint32_t tensor_block_elems(uint32_t type);
uint32_t tensor_block_bytes(uint32_t type);

/*
 * Fills in t's size from type and dims.  0 when the row is no whole number of
 * blocks or the size is beyond 2^63.
 */
int tensor_set_size(tensor_t *t);

/* For sorting and searching: as memcmp. */
int tensor_by_name(const void *a, const void *b);

/* The one called name among n that are sorted by name; NULL if none is. */
const tensor_t *tensor_find(const tensor_t *list, uint32_t n, const char *name);

/* A name fit for a sentence: short, printable. */
typedef struct {
    char s[72];
} tensor_shown_t;

tensor_shown_t tensor_shown(tensor_name_t name);

/*
 * n elements from src as F32, for the types whose elements stand alone: F32,
 * F16, BF16, F8_E4M3.  Exact.  src need not be aligned.
 */
int tensor_is_plain(uint32_t type);
void tensor_plain(uint32_t type, const void *src, uint64_t n, float *dst);

/* Bytes of MXFP4's blocks where their exponents lie apart. */
#define TENSOR_MX_BYTES 16u

/* Bytes of a row's own, wherever its elements lie, and of such blocks. */
uint64_t tensor_row_bytes(const tensor_t *t);

/* Its factors, NULL if there are none. */
const tensor_t *tensor_scale(const tensor_t *t);

/*
 * Are the bytes of t those of its rows, one after another?  If not, they can
 * be made, t->size of them, of a matrix; and this is how many bytes from
 * t->data on it is spread over.
 */
int tensor_is_dense(const tensor_t *t);
void tensor_dense(const tensor_t *t, void *dst);
uint64_t tensor_extent(const tensor_t *t);

/* A part of a tensor, in the same bytes.  Not to be copied: t has lay. */
typedef struct {
    tensor_t t;
    tensor_lay_t lay;
} tensor_part_t;

/*
 * Rows at to at + n - 1 of t, those of all its matrices counted through; and
 * elements at to at + n - 1 of each row, which must be whole blocks.
 */
const tensor_t *tensor_rows(
    tensor_part_t *p, const tensor_t *t, uint64_t at, uint64_t n);
const tensor_t *tensor_cols(
    tensor_part_t *p, const tensor_t *t, uint64_t at, uint64_t n);

/*
 * A plain tensor's elements, times their factors if it has such (it is then a
 * matrix), rounded to BF16, dst [all].  Exact from F8_E4M3 without factors;
 * else no element is off by more than 2^-8 of itself, 0.4 %.
 */
void tensor_bf16(const tensor_t *t, uint16_t *dst);

#endif
