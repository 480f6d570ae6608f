/*
 * Catches: structural tags that crash their reader or take more than their
 * share of time and memory, and free text that gets stuck.
 *
 * The first byte is options; the rest is the text.
 */
#include "grammar_use.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    return grammar_use(grammar_open_tags, p, len);
}
