
/*
 * llm_zone: the memory that all workers share for tenants, and its
 * housekeeping.
 *
 * DESIGN.  A zone is one block of memory: the ledger (what each tenant has
 * used), the series (what is told of it) and the rows of open requests.  It
 * survives reloads and the death of workers, as nginx's zones do.  With
 * state=FILE the block is that file, mapped by every master that uses it:
 * budgets survive a restart and are one during a binary upgrade, and requests
 * that were running when everything was killed are written down by who comes
 * next.
 *
 * All of it is single words and rows with owners (tenant/): nothing here takes
 * the zone's lock.  Once a second each worker looks for rows whose owner is
 * dead, writes them down and settles them.
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_ZONE_LAYOUT  1


/* at the zone's shpool->data */

typedef struct {
    ngx_uint_t   layout;
    void        *mem;
} ngx_http_llm_zone_head_t;


static ngx_int_t ngx_http_llm_zone_init(ngx_shm_zone_t *shm_zone, void *data);
static ngx_int_t ngx_http_llm_zone_map(ngx_http_llm_zone_t *zone,
    ngx_log_t *log);
static void ngx_http_llm_zone_tick(ngx_event_t *ev);
static ngx_uint_t ngx_http_llm_zone_cancel(ngx_http_llm_zone_t *zone);
static int ngx_http_llm_zone_dead(void *arg, llm_owner_t owner);
static uint64_t ngx_http_llm_zone_started(ngx_pid_t pid);


/* llm_zone NAME:SIZE [state=FILE] */

char *
ngx_http_llm_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_main_conf_t *lmcf = conf;

    u_char     *p;
    ssize_t     size;
    ngx_str_t  *value, name, s;

    if (lmcf->zone) {
        return "is duplicate";
    }

    value = cf->args->elts;

    p = (u_char *) ngx_strchr(value[1].data, ':');

    if (p == NULL || p == value[1].data) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid zone \"%V\": a name, \":\" and a size are "
                           "expected", &value[1]);
        return NGX_CONF_ERROR;
    }

    name.data = value[1].data;
    name.len = p - value[1].data;

    s.data = p + 1;
    s.len = value[1].data + value[1].len - s.data;

    size = ngx_parse_size(&s);

    if (size == NGX_ERROR || size < 256 * 1024) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid size in zone \"%V\": 256k is the least",
                           &value[1]);
        return NGX_CONF_ERROR;
    }

    ngx_str_null(&s);

    if (cf->args->nelts == 3) {

        if (value[2].len <= 6 || ngx_strncmp(value[2].data, "state=", 6) != 0)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\"", &value[2]);
            return NGX_CONF_ERROR;
        }

        s.data = value[2].data + 6;
        s.len = value[2].len - 6;

        if (ngx_conf_full_name(cf->cycle, &s, 0) != NGX_OK) {
            return NGX_CONF_ERROR;
        }
    }

    return ngx_http_llm_zone_add(cf, lmcf, &name, size, &s) == NGX_OK
           ? NGX_CONF_OK : NGX_CONF_ERROR;
}


ngx_int_t
ngx_http_llm_zone_add(ngx_conf_t *cf, ngx_http_llm_main_conf_t *lmcf,
    ngx_str_t *name, size_t size, ngx_str_t *state)
{
    ngx_http_llm_zone_t  *zone;

    zone = ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_zone_t));
    if (zone == NULL) {
        return NGX_ERROR;
    }

    zone->state = *state;
    zone->lmcf = lmcf;

    zone->shm = ngx_shared_memory_add(cf, name, size, &ngx_http_llm_module);
    if (zone->shm == NULL) {
        return NGX_ERROR;
    }

    zone->shm->init = ngx_http_llm_zone_init;
    zone->shm->data = zone;

    lmcf->zone = zone;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_zone_init(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_http_llm_zone_t  *old = data;

    u_char                    *p;
    size_t                     size, series;
    ngx_log_t                 *log;
    ngx_slab_pool_t           *shpool;
    ngx_http_llm_zone_t       *zone;
    ngx_http_llm_zone_head_t  *head;

    zone = shm_zone->data;
    log = shm_zone->shm.log;

    /* what the slab allocator needs for itself is left to it */

    zone->size = shm_zone->shm.size / 4 * 3 / ngx_pagesize * ngx_pagesize;

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    head = shpool->data;

    if (head == NULL) {

        head = ngx_slab_calloc(shpool, sizeof(ngx_http_llm_zone_head_t));
        if (head == NULL) {
            return NGX_ERROR;
        }

        head->layout = NGX_HTTP_LLM_ZONE_LAYOUT;
        head->mem = ngx_slab_calloc(shpool, zone->size);

        if (head->mem == NULL) {
            ngx_log_error(NGX_LOG_EMERG, log, 0, "llm zone \"%V\" is too small",
                          &shm_zone->shm.name);
            return NGX_ERROR;
        }

        shpool->data = head;

    } else if (head->layout != NGX_HTTP_LLM_ZONE_LAYOUT) {
        ngx_log_error(NGX_LOG_EMERG, log, 0,
                      "llm zone \"%V\" has the layout of another version",
                      &shm_zone->shm.name);
        return NGX_ERROR;
    }

    zone->mem = head->mem;

    if (zone->state.len) {

        if (old && old->mapped && old->state.len == zone->state.len
            && ngx_strcmp(old->state.data, zone->state.data) == 0)
        {
            zone->mem = old->mem;
            zone->mapped = 1;

        } else if (ngx_http_llm_zone_map(zone, log) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    /* a third for the ledger, a 24th for the series, rows in the rest */

    size = zone->size / 3 / ngx_pagesize * ngx_pagesize;
    series = ngx_align(zone->size / 24, ngx_pagesize);

    p = zone->mem;

    if (llm_ledger_open(&zone->ledger, p, size) != 0
        || llm_series_open(&zone->series, p + size, series) != 0
        || llm_rows_open(&zone->rows, p + size + series,
                         zone->size - size - series)
           != 0)
    {
        ngx_log_error(NGX_LOG_EMERG, log, 0,
                      "\"%V\" is not the state of an llm zone of this size",
                      &zone->state);
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* the file; a mere test of the configuration does not make one */

static ngx_int_t
ngx_http_llm_zone_map(ngx_http_llm_zone_t *zone, ngx_log_t *log)
{
    int               fd;
    void             *p;
    ngx_file_info_t   fi;

    fd = open((char *) zone->state.data,
              O_RDWR|O_CLOEXEC|(ngx_test_config ? 0 : O_CREAT), 0600);

    if (fd == -1) {

        if (ngx_test_config && ngx_errno == NGX_ENOENT) {
            return NGX_OK;
        }

        ngx_log_error(NGX_LOG_EMERG, log, ngx_errno,
                      ngx_open_file_n " \"%V\" failed", &zone->state);
        return NGX_ERROR;
    }

    if (ngx_fd_info(fd, &fi) == NGX_FILE_ERROR || !ngx_is_file(&fi)) {
        ngx_log_error(NGX_LOG_EMERG, log, 0, "\"%V\" is not a file",
                      &zone->state);
        goto failed;
    }

    if (ngx_file_size(&fi) == 0 && ngx_test_config) {
        (void) close(fd);
        return NGX_OK;
    }

    if (ngx_file_size(&fi) == 0
        && posix_fallocate(fd, 0, zone->size) != 0)
    {
        ngx_log_error(NGX_LOG_EMERG, log, 0, "no room for \"%V\": %uz bytes",
                      &zone->state, zone->size);
        goto failed;
    }

    if (ngx_file_size(&fi) && ngx_file_size(&fi) != (off_t) zone->size)
    {
        ngx_log_error(NGX_LOG_EMERG, log, 0,
                      "\"%V\" has %O bytes, a zone of this size needs %uz",
                      &zone->state, ngx_file_size(&fi), zone->size);
        goto failed;
    }

    p = mmap(NULL, zone->size, PROT_READ|PROT_WRITE, MAP_SHARED, fd, 0);

    if (p == MAP_FAILED) {
        ngx_log_error(NGX_LOG_EMERG, log, ngx_errno, "mmap(\"%V\") failed",
                      &zone->state);
        goto failed;
    }

    (void) close(fd);

    zone->mem = p;
    zone->mapped = 1;

    return NGX_OK;

failed:

    (void) close(fd);

    return NGX_ERROR;
}


ngx_int_t
ngx_http_llm_zone_open(ngx_http_llm_zone_t *zone, ngx_log_t *log)
{
    ngx_core_conf_t  *ccf;

    zone->held = ngx_calloc((zone->ledger.mask + 1) * sizeof(uint32_t), log);
    if (zone->held == NULL) {
        return NGX_ERROR;
    }

    /* no tenant may have more than half of the rows, over all workers */

    ccf = (ngx_core_conf_t *) ngx_get_conf(ngx_cycle->conf_ctx,
                                           ngx_core_module);

    zone->share = zone->rows.n / 2 / ngx_max(ccf->worker_processes, 1);
    zone->share = ngx_max(zone->share, 8);

    zone->self = llm_owner(ngx_pid, ngx_http_llm_zone_started(ngx_pid));

    ngx_queue_init(&zone->open);

    zone->tick.handler = ngx_http_llm_zone_tick;
    zone->tick.data = zone;
    zone->tick.log = log;
    zone->tick.cancelable = 1;

    ngx_add_timer(&zone->tick, 1000);

    return NGX_OK;
}


void
ngx_http_llm_zone_close(ngx_http_llm_zone_t *zone)
{
    uint32_t    i;
    llm_row_t  *row;

    for (i = 0; i < zone->rows.n; i++) {

        row = llm_rows_mine(&zone->rows, i, zone->self);

        if (row) {
            llm_row_close(row);
            ngx_http_llm_usage_close(zone, row, 0);
        }
    }
}


static void
ngx_http_llm_zone_tick(ngx_event_t *ev)
{
    int                   again;
    uint32_t              at;
    llm_row_t            *row;
    ngx_http_llm_zone_t  *zone;

    zone = ev->data;

    zone->asked_n = 0;
    at = 0;

    for ( ;; ) {

        row = llm_rows_recover(&zone->rows, &at, zone->self,
                               ngx_http_llm_zone_dead, zone, &again);
        if (row == NULL) {
            break;
        }

        ngx_http_llm_usage_close(zone, row, 1);
    }

    while (ngx_http_llm_zone_cancel(zone)) { /* void */ }

    if (zone->mapped) {
        (void) msync(zone->mem, zone->size, MS_ASYNC);
    }

    ngx_add_timer(ev, 1000);
}


/* ends one request that an administrator has marked; 0: there is none */

static ngx_uint_t
ngx_http_llm_zone_cancel(ngx_http_llm_zone_t *zone)
{
    ngx_queue_t           *q;
    ngx_http_llm_ctx_t    *ctx;
    ngx_http_llm_usage_t  *u;

    for (q = ngx_queue_head(&zone->open);
         q != ngx_queue_sentinel(&zone->open);
         q = ngx_queue_next(q))
    {
        u = ngx_queue_data(q, ngx_http_llm_usage_t, queue);
        ctx = u->ctx;

        if (__atomic_load_n(&u->row->cancel, __ATOMIC_RELAXED)
            && ctx->channel && !ctx->end)
        {
            ngx_http_llm_stream_stop(ctx, LLM_ERR_STOPPED);
            return 1;
        }
    }

    return 0;
}


/*
 * Many rows have few owners: answers are kept for a round, and who is not
 * asked for in this one is in the next.
 */

static int
ngx_http_llm_zone_dead(void *arg, llm_owner_t owner)
{
    ngx_http_llm_zone_t *zone = arg;

    uint64_t    started;
    ngx_pid_t   pid;
    ngx_uint_t  i;

    for (i = 0; i < zone->asked_n; i++) {
        if (zone->asked[i].owner == owner) {
            return zone->asked[i].dead;
        }
    }

    if (zone->asked_n == NGX_HTTP_LLM_OWNERS) {
        return 0;
    }

    pid = (ngx_pid_t) llm_owner_pid(owner);

    /* what cannot be found out, for lack of descriptors or rights, is alive */

    if (kill(pid, 0) == -1 && ngx_errno == ESRCH) {
        zone->asked[i].dead = 1;

    } else {
        started = ngx_http_llm_zone_started(pid);

        zone->asked[i].dead = started && llm_owner_started(owner)
                              && llm_owner(pid, started) != owner;
    }

    zone->asked[i].owner = owner;
    zone->asked_n++;

    return zone->asked[i].dead;
}


/*
 * Clock ticks since boot at which a process began: the 22nd word of its stat
 * file, counted behind the name, which may hold anything.  0: there is none.
 */

static uint64_t
ngx_http_llm_zone_started(ngx_pid_t pid)
{
    int       fd, i;
    char     *p;
    ssize_t   n;
    u_char    path[sizeof("/proc//stat") + NGX_INT64_LEN];
    char      buf[1024];

    ngx_sprintf(path, "/proc/%P/stat%Z", pid);

    fd = open((char *) path, O_RDONLY|O_CLOEXEC);
    if (fd == -1) {
        return 0;
    }

    n = read(fd, buf, sizeof(buf) - 1);
    (void) close(fd);

    if (n <= 0) {
        return 0;
    }

    buf[n] = '\0';
    p = strrchr(buf, ')');

    for (i = 0; p && i < 20; i++) {
        p = strchr(p + 1, ' ');
    }

    return p ? strtoull(p, NULL, 10) : 0;
}
