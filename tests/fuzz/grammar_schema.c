/*
 * Catches: a JSON schema that crashes its reader or takes more than its
 * share of time and memory, and a grammar that gets stuck.
 *
 * The first byte is options; the rest is the text.
 */
#include "grammar_use.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    return grammar_use(grammar_open_schema, p, len);
}
