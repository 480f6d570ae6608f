/*
 * Log lines as nginx writes them, one write each, to stderr.
 *
 * DESIGN.  A line is formatted on the stack and leaves in one write, so lines
 * of several threads never mix and no lock is needed.  The level is the only
 * state of the file; it is set once before the threads start.
 */
#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LOG_LINE_MAX 2048 /* bytes; a longer line is cut */

static const char *const log_names[] = {
    "alert", "error", "warn", "notice", "info", "debug"};

static int log_level_max = LOG_INFO;


void
log_level_set(int level)
{
    log_level_max = level;
}


int
log_level(const char *name)
{
    int i;

    for (i = LOG_ALERT; i <= LOG_DEBUG; i++) {
        if (strcmp(log_names[i], name) == 0) {
            return i;
        }
    }

    return -1;
}


void
log_line(int level, const char *fmt, ...)
{
    char line[LOG_LINE_MAX];
    size_t n;
    int k;
    time_t now;
    struct tm tm;
    va_list args;

    if (level > log_level_max) {
        return;
    }

    now = time(NULL);
    (void) localtime_r(&now, &tm);
    n = strftime(line, sizeof(line), "%Y/%m/%d %H:%M:%S ", &tm);
    k = snprintf(line + n, sizeof(line) - n, "[%s] %d#%d: ", log_names[level],
        (int) getpid(), (int) gettid());
    n += (size_t) k;

    va_start(args, fmt);
    k = vsnprintf(line + n, sizeof(line) - n - 1, fmt, args);
    va_end(args);

    n = k < 0                               ? n
        : (size_t) k < sizeof(line) - n - 1 ? n + (size_t) k
                                            : sizeof(line) - 2;
    line[n++] = '\n';

    /* nowhere to complain to if stderr is gone */
    if (write(STDERR_FILENO, line, n) < 0) {
        return;
    }
}
