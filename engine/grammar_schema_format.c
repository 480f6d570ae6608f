/*
 * The formats of JSON Schema as regular expressions over the whole text.
 *
 * DESIGN.  What RFC 3339, 3986, 4122, 4291, 5321, 6570 and 6901 say, as far as
 * it is regular; where a rule is not (lengths of host names), the form is kept
 * narrower, so that nothing wrong is taken.  Names that the standard does not
 * have ask for nothing, as it says.
 *
 * A leap second is one only at midnight in Greenwich; a day is one that its
 * month has, with leap years; labels of host names neither begin nor end with
 * a hyphen, and names of other scripts are refused by name, for they are not
 * told by a pattern.
 */
#include "grammar_schema.h"

#include <assert.h>
#include <string.h>

#define DATE                                                                   \
    "(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"             \
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"                                   \
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))"                                            \
    "|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])"                            \
    "|(?:[02468][048]|[13579][26])00)-02-29)"
#define TIME                                                                   \
    "(?:(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]+)?"              \
    "(?:[zZ]|[-+](?:[01][0-9]|2[0-3]):[0-5][0-9])"                             \
    "|23:59:60(?:\\.[0-9]+)?(?:[zZ]|[-+]00:00))"

#define HMS "T(?:[0-9]+H(?:[0-9]+M(?:[0-9]+S)?)?|[0-9]+M(?:[0-9]+S)?|[0-9]+S)"
#define DURATION                                                               \
    "P(?:(?:[0-9]+Y(?:[0-9]+M(?:[0-9]+D)?)?|[0-9]+M(?:[0-9]+D)?|[0-9]+D)"      \
    "(?:" HMS ")?|" HMS "|[0-9]+W)"

#define LABEL "[A-Za-z0-9](?:(?:[A-Za-z0-9]|-[A-Za-z0-9])*)"
#define HOST  LABEL "(?:\\." LABEL ")*"
#define OCTET "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define IPV4  OCTET "(?:\\." OCTET "){3}"

#define H16  "[0-9A-Fa-f]{1,4}"
#define LS32 "(?:" H16 ":" H16 "|" IPV4 ")"
#define IPV6                                                                   \
    "(?:(?:" H16 ":){6}" LS32 "|::(?:" H16 ":){5}" LS32 "|(?:" H16             \
    ")?::(?:" H16 ":){4}" LS32 "|(?:(?:" H16 ":){0,1}" H16 ")?::(?:" H16       \
    ":){3}" LS32 "|(?:(?:" H16 ":){0,2}" H16 ")?::(?:" H16 ":){2}" LS32        \
    "|(?:(?:" H16 ":){0,3}" H16 ")?::" H16 ":" LS32 "|(?:(?:" H16              \
    ":){0,4}" H16 ")?::" LS32 "|(?:(?:" H16 ":){0,5}" H16 ")?::" H16           \
    "|(?:(?:" H16 ":){0,6}" H16 ")?::)"

#define ATOM "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
#define EMAIL                                                                  \
    "(?:" ATOM "(?:\\." ATOM ")*|\"(?:[ !#-\\[\\]-~]|\\\\[ -~])*\")"           \
    "@(?:" HOST "|\\[(?:" IPV4 "|IPv6:" IPV6 ")\\])"

#define ESCAPED "%[0-9A-Fa-f]{2}"
#define PCHAR   "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|" ESCAPED ")"
#define AUTHORITY                                                              \
    "(?:(?:[A-Za-z0-9._~!$&'()*+,;=:-]|" ESCAPED ")*@)?"                       \
    "(?:\\[(?:" IPV6 "|[vV][0-9A-Fa-f]+\\.[A-Za-z0-9._~!$&'()*+,;=:-]+)\\]"    \
    "|(?:[A-Za-z0-9._~!$&'()*+,;=-]|" ESCAPED ")*)(?::[0-9]*)?"
#define HIER                                                                   \
    "(?://" AUTHORITY "(?:/" PCHAR "*)*"                                       \
    "|/(?:" PCHAR "+(?:/" PCHAR "*)*)?"
#define QUERY "(?:\\?(?:" PCHAR "|[/?])*)?(?:#(?:" PCHAR "|[/?])*)?"
#define URI                                                                    \
    "[A-Za-z][A-Za-z0-9+.-]*:" HIER "|" PCHAR "+(?:/" PCHAR "*)*)?" QUERY
#define SEGMENT   "(?:[A-Za-z0-9._~!$&'()*+,;=@-]|" ESCAPED ")+"
#define REFERENCE HIER "|" SEGMENT "(?:/" PCHAR "*)*)?" QUERY

#define VARNAME                                                                \
    "(?:[A-Za-z0-9_]|" ESCAPED ")(?:\\.?(?:[A-Za-z0-9_]|" ESCAPED "))*"
#define VARSPEC VARNAME "(?::[1-9][0-9]{0,3}|\\*)?"
#define TEMPLATE                                                               \
    "(?:[!#$&(-;=?-\\[\\]_a-z~\\xa0-\\ud7ff\\uf900-\\ufffd]|" ESCAPED          \
    "|\\{[+#./;?&=,!@|]?" VARSPEC "(?:," VARSPEC ")*\\})*"

#define POINTER "(?:/(?:[^~/]|~[01])*)*"


const char *
grammar_schema_format(const char *name)
{
    static const struct {
        const char *name, *regex;
    } list[] = {{"date", DATE}, {"time", TIME}, {"date-time", DATE "[tT]" TIME},
        {"duration", DURATION}, {"email", EMAIL}, {"hostname", HOST},
        {"ipv4", IPV4}, {"ipv6", IPV6}, {"uri", URI},
        {"uri-reference", "(?:" URI "|" REFERENCE ")"},
        {"uri-template", TEMPLATE},
        {"uuid", "[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"},
        {"json-pointer", POINTER},
        {"relative-json-pointer", "(?:0|[1-9][0-9]*)(?:#|" POINTER ")"},
        {"regex", ""}, {"idn-email", ""}, {"idn-hostname", ""}, {"iri", ""},
        {"iri-reference", ""}};
    size_t i;

    assert(name != NULL);
    for (i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        if (strcmp(list[i].name, name) == 0) {
            return list[i].regex;
        }
    }

    return NULL;
}
