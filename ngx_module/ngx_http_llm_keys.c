
/*
 * llm_key_file: the keys that open the API, taken up anew when the file
 * changes.
 *
 * DESIGN.  The file is read and checked with the configuration, so that a
 * mistake is found by `nginx -t`, and each worker begins with that table.
 * From then on each worker looks at the file's inode, size and time, and
 * reads a changed one by itself, a piece a turn of the event loop, into a new
 * table, which takes the old one's place when it is whole.  No lock, no
 * reload; for as long as a check's interval workers may differ.  A file that
 * is wrong, or that changes while it is read, leaves the old table where it
 * is; the log says which line, once.
 *
 * A worker has dropped root: the file must be readable for its user, or keys
 * change with reloads only, which the log says too.
 */


#include "ngx_http_llm_module.h"
#include "keyfile.h"


#define NGX_HTTP_LLM_KEYS_PIECE  (64 * 1024)


struct ngx_http_llm_keys_s {
    ngx_str_t        path;
    ngx_msec_t       check;             /* 0: never */
    llm_keyfile_t   *table;

    ino_t            ino;               /* of what was read last */
    off_t            size;
    struct timespec  mtime;
    ngx_err_t        failed;            /* of the last look; to log it once */

    ngx_event_t      timer;
    ngx_event_t      turn;
    ngx_fd_t         fd;                /* NGX_INVALID_FILE: not reading */
    off_t            offset;
    llm_keyfile_t   *next;
    u_char          *buf;
};


static void ngx_http_llm_keys_cleanup(void *data);
static ngx_int_t ngx_http_llm_keys_begin(ngx_http_llm_keys_t *keys,
    ngx_uint_t level, ngx_log_t *log);
static ngx_int_t ngx_http_llm_keys_read(ngx_http_llm_keys_t *keys,
    ngx_uint_t level, ngx_log_t *log);
static void ngx_http_llm_keys_end(ngx_http_llm_keys_t *keys);
static void ngx_http_llm_keys_timer(ngx_event_t *ev);
static void ngx_http_llm_keys_turn(ngx_event_t *ev);


/* llm_key_file PATH [check=TIME] */

char *
ngx_http_llm_key_file(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_main_conf_t *lmcf = conf;

    ngx_int_t             rc;
    ngx_str_t            *value, s;
    ngx_pool_cleanup_t   *cln;
    ngx_http_llm_keys_t  *keys;

    if (lmcf->keys) {
        return "is duplicate";
    }

    value = cf->args->elts;

    keys = ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_keys_t));
    if (keys == NULL) {
        return NGX_CONF_ERROR;
    }

    keys->path = value[1];
    keys->check = 5000;
    keys->fd = NGX_INVALID_FILE;

    if (ngx_conf_full_name(cf->cycle, &keys->path, 1) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (cf->args->nelts == 3) {

        if (value[2].len <= 6 || ngx_strncmp(value[2].data, "check=", 6) != 0)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\"", &value[2]);
            return NGX_CONF_ERROR;
        }

        s.data = value[2].data + 6;
        s.len = value[2].len - 6;

        keys->check = ngx_parse_time(&s, 0);

        if (keys->check == (ngx_msec_t) NGX_ERROR) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid time in \"%V\"", &value[2]);
            return NGX_CONF_ERROR;
        }
    }

    cln = ngx_pool_cleanup_add(cf->pool, 0);
    if (cln == NULL) {
        return NGX_CONF_ERROR;
    }

    cln->handler = ngx_http_llm_keys_cleanup;
    cln->data = keys;

    if (ngx_http_llm_keys_begin(keys, NGX_LOG_EMERG, cf->log) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    do {
        rc = ngx_http_llm_keys_read(keys, NGX_LOG_EMERG, cf->log);
    } while (rc == NGX_AGAIN);

    ngx_http_llm_keys_end(keys);

    if (rc != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    lmcf->keys = keys;

    return NGX_CONF_OK;
}


static void
ngx_http_llm_keys_cleanup(void *data)
{
    ngx_http_llm_keys_t *keys = data;

    ngx_http_llm_keys_end(keys);
    llm_keyfile_free(keys->table);
}


const llm_key_t *
ngx_http_llm_keys_find(ngx_http_llm_keys_t *keys, const u_char *digest)
{
    return llm_keyfile_find(keys->table, digest);
}


void
ngx_http_llm_keys_open(ngx_http_llm_keys_t *keys, ngx_log_t *log)
{
    if (keys->check == 0) {
        return;
    }

    keys->timer.handler = ngx_http_llm_keys_timer;
    keys->timer.data = keys;
    keys->timer.log = log;
    keys->timer.cancelable = 1;

    keys->turn.handler = ngx_http_llm_keys_turn;
    keys->turn.data = keys;
    keys->turn.log = log;

    ngx_add_timer(&keys->timer, keys->check);
}


static void
ngx_http_llm_keys_timer(ngx_event_t *ev)
{
    ngx_err_t             err;
    ngx_file_info_t       fi;
    ngx_http_llm_keys_t  *keys;

    keys = ev->data;

    if (ngx_file_info(keys->path.data, &fi) == NGX_FILE_ERROR) {

        err = ngx_errno;

        if (keys->failed != err) {
            ngx_log_error(NGX_LOG_ERR, ev->log, err,
                          ngx_file_info_n " \"%V\" failed, its keys stay as "
                          "they are", &keys->path);
            keys->failed = err;
        }

        ngx_add_timer(ev, keys->check);
        return;
    }

    if (fi.st_ino == keys->ino && fi.st_size == keys->size
        && fi.st_mtim.tv_sec == keys->mtime.tv_sec
        && fi.st_mtim.tv_nsec == keys->mtime.tv_nsec)
    {
        ngx_add_timer(ev, keys->check);
        return;
    }

    if (ngx_http_llm_keys_begin(keys, NGX_LOG_ERR, ev->log) != NGX_OK) {
        ngx_add_timer(ev, keys->check);
        return;
    }

    ngx_post_event(&keys->turn, &ngx_posted_next_events);
}


static void
ngx_http_llm_keys_turn(ngx_event_t *ev)
{
    ngx_int_t             rc;
    ngx_http_llm_keys_t  *keys;

    keys = ev->data;

    rc = ngx_http_llm_keys_read(keys, NGX_LOG_ERR, ev->log);

    if (rc == NGX_AGAIN) {
        ngx_post_event(ev, &ngx_posted_next_events);
        return;
    }

    ngx_http_llm_keys_end(keys);

    if (rc == NGX_OK) {
        ngx_log_error(NGX_LOG_NOTICE, ev->log, 0, "\"%V\": %uD keys",
                      &keys->path, llm_keyfile_count(keys->table));
    }

    ngx_add_timer(&keys->timer, keys->check);
}


/* opens the file, and remembers which state of it is going to be read */

static ngx_int_t
ngx_http_llm_keys_begin(ngx_http_llm_keys_t *keys, ngx_uint_t level,
    ngx_log_t *log)
{
    ngx_err_t        err;
    ngx_file_info_t  fi;

    keys->fd = ngx_open_file(keys->path.data, NGX_FILE_RDONLY|O_CLOEXEC,
                             NGX_FILE_OPEN, 0);

    if (keys->fd == NGX_INVALID_FILE) {

        err = ngx_errno;

        if (keys->failed != err) {
            ngx_log_error(level, log, err, ngx_open_file_n " \"%V\" failed",
                          &keys->path);
            keys->failed = err;
        }

        return NGX_ERROR;
    }

    if (ngx_fd_info(keys->fd, &fi) == NGX_FILE_ERROR || !ngx_is_file(&fi)) {
        ngx_log_error(level, log, 0, "\"%V\" is not a file", &keys->path);
        ngx_http_llm_keys_end(keys);
        return NGX_ERROR;
    }

    keys->failed = 0;
    keys->ino = fi.st_ino;
    keys->size = fi.st_size;
    keys->mtime = fi.st_mtim;
    keys->offset = 0;

    keys->next = llm_keyfile_create();
    keys->buf = ngx_alloc(NGX_HTTP_LLM_KEYS_PIECE, log);

    if (keys->next == NULL || keys->buf == NULL) {
        keys->ino = 0;          /* to be tried again */
        ngx_http_llm_keys_end(keys);
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* a piece; NGX_OK when it was the last one and the table is in its place */

static ngx_int_t
ngx_http_llm_keys_read(ngx_http_llm_keys_t *keys, ngx_uint_t level,
    ngx_log_t *log)
{
    int              rv;
    ssize_t          n;
    llm_keyfile_t   *old;
    ngx_file_info_t  fi;
    char             err[LLM_KEYFILE_ERR];

    n = pread(keys->fd, keys->buf, NGX_HTTP_LLM_KEYS_PIECE, keys->offset);

    if (n == -1) {
        ngx_log_error(level, log, ngx_errno, "pread() \"%V\" failed",
                      &keys->path);
        keys->ino = 0;
        return NGX_ERROR;
    }

    keys->offset += n;

    rv = n ? llm_keyfile_feed(keys->next, (char *) keys->buf, n, err)
           : llm_keyfile_end(keys->next, err);

    if (rv < 0) {
        ngx_log_error(level, log, 0, "\"%V\", %s", &keys->path, err);
        return NGX_ERROR;
    }

    if (n) {
        return NGX_AGAIN;
    }

    /* half of what somebody is writing may look like a whole */

    if (ngx_fd_info(keys->fd, &fi) == NGX_FILE_ERROR
        || fi.st_size != keys->offset
        || fi.st_mtim.tv_sec != keys->mtime.tv_sec
        || fi.st_mtim.tv_nsec != keys->mtime.tv_nsec)
    {
        ngx_log_error(level, log, 0, "\"%V\" changed while it was read",
                      &keys->path);
        return NGX_ERROR;
    }

    old = keys->table;
    keys->table = keys->next;
    keys->next = NULL;

    llm_keyfile_free(old);

    return NGX_OK;
}


static void
ngx_http_llm_keys_end(ngx_http_llm_keys_t *keys)
{
    llm_keyfile_free(keys->next);
    keys->next = NULL;

    if (keys->buf) {
        ngx_free(keys->buf);
        keys->buf = NULL;
    }

    if (keys->fd != NGX_INVALID_FILE) {
        (void) ngx_close_file(keys->fd);
        keys->fd = NGX_INVALID_FILE;
    }
}
