/*
 * Logging in nginx's line format, to stderr: time [level] pid#tid: text.
 * A request's id comes first in the text.  Never called per token, never with
 * a prompt, an answer or a key in it.
 */
#ifndef LOG_H
#define LOG_H

enum { LOG_ALERT, LOG_ERROR, LOG_WARN, LOG_NOTICE, LOG_INFO, LOG_DEBUG };

/* Lines above this level are dropped. Set once, before threads start. */
void log_level_set(int level);

/* The level called name ("info"), or -1. */
int log_level(const char *name);

void log_line(int level, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
