#include "shim.h"

int shim_status_is_eagain(apr_status_t status)
{
    return APR_STATUS_IS_EAGAIN(status);
}

int shim_status_is_eof(apr_status_t status)
{
    return APR_STATUS_IS_EOF(status);
}

apr_bucket *shim_brigade_first(apr_bucket_brigade *brigade)
{
    return APR_BRIGADE_EMPTY(brigade) ? NULL : APR_BRIGADE_FIRST(brigade);
}

apr_bucket *shim_brigade_next(apr_bucket_brigade *brigade, apr_bucket *bucket)
{
    apr_bucket *next = APR_BUCKET_NEXT(bucket);
    return next == APR_BRIGADE_SENTINEL(brigade) ? NULL : next;
}

int shim_bucket_is_metadata(const apr_bucket *bucket)
{
    return APR_BUCKET_IS_METADATA(bucket);
}

int shim_bucket_is_eos(const apr_bucket *bucket)
{
    return APR_BUCKET_IS_EOS(bucket);
}

int shim_bucket_is_socket(const apr_bucket *bucket)
{
    return APR_BUCKET_IS_SOCKET(bucket);
}

apr_status_t shim_bucket_read(apr_bucket *bucket, const char **data, apr_size_t *length, apr_read_type_e block)
{
    return apr_bucket_read(bucket, data, length, block);
}

void shim_brigade_end(apr_bucket_brigade *brigade)
{
    APR_BRIGADE_INSERT_TAIL(brigade, apr_bucket_eos_create(brigade->bucket_alloc));
}

unsigned int shim_expr_without_files(void)
{
#ifdef AP_EXPR_FLAG_RESTRICTED_FILE_FUNC
    return AP_EXPR_FLAG_RESTRICTED_FILE_FUNC;
#else
    return 0;
#endif
}

void shim_connection_abandon(conn_rec *c)
{
    c->aborted = 1;
    c->keepalive = AP_CONN_CLOSE;
}

int shim_connection_is_aborted(const conn_rec *c)
{
    return c->aborted;
}

int shim_connection_is_suspended(const conn_rec *c)
{
    return c->cs && c->cs->state == CONN_STATE_SUSPENDED;
}

void shim_connection_set_suspended(conn_rec *c)
{
    c->cs->state = CONN_STATE_SUSPENDED;
}

int shim_connection_has_output(const conn_rec *c)
{
    return c->data_in_output_filters;
}

apr_status_t shim_connection_flush(conn_rec *c)
{
    ap_filter_t *network = c->output_filters;
    while (network->next) {
        network = network->next;
    }
    return network->frec->filter_func.out_func(network, NULL);
}

/* Both are new in httpd 2.4.58 (MMN 20120211.129): weak, so that the module also loads where they are not, wherever it was built. */
#if !AP_MODULE_MAGIC_AT_LEAST(20120211, 129)
apr_status_t ap_get_pollfd_from_conn(conn_rec *c, apr_pollfd_t *pollfd, apr_interval_time_t *timeout);
void ap_hook_get_pollfd_from_conn(shim_get_pollfd_fn *function, const char *const *before, const char *const *after, int order);
#endif
#pragma weak ap_get_pollfd_from_conn
#pragma weak ap_hook_get_pollfd_from_conn

int shim_connection_pollfd(conn_rec *c)
{
    apr_os_sock_t fd = -1;
    apr_pollfd_t pollfd;
    memset(&pollfd, 0, sizeof(pollfd));
    if (!ap_get_pollfd_from_conn || ap_get_pollfd_from_conn(c, &pollfd, NULL) != APR_SUCCESS) {
        return -1;
    }
    switch (pollfd.desc_type) {
    case APR_POLL_SOCKET:
        apr_os_sock_get(&fd, pollfd.desc.s);
        break;
    case APR_POLL_FILE:
        apr_os_file_get(&fd, pollfd.desc.f);
        break;
    default:
        break;
    }
    return fd;
}

int shim_has_get_pollfd(void)
{
    return ap_hook_get_pollfd_from_conn != NULL;
}

void shim_hook_get_pollfd(shim_get_pollfd_fn *function)
{
    if (ap_hook_get_pollfd_from_conn) {
        ap_hook_get_pollfd_from_conn(function, NULL, NULL, APR_HOOK_REALLY_FIRST);
    }
}

void shim_pollfd_set_none(apr_pollfd_t *pollfd)
{
    pollfd->desc_type = APR_NO_DESC;
}

void shim_connection_set_aborted(conn_rec *c)
{
    c->aborted = 1;
}

void shim_connection_close_after(conn_rec *c)
{
    c->keepalive = AP_CONN_CLOSE;
}

static apr_status_t without_mutex(void *allocator)
{
    apr_allocator_mutex_set(allocator, NULL);
    return APR_SUCCESS;
}

void shim_connection_share_memory(conn_rec *c)
{
    apr_allocator_t *allocator = apr_pool_allocator_get(c->pool);
    apr_thread_mutex_t *mutex;

    if (!allocator || apr_allocator_mutex_get(allocator)
        || apr_thread_mutex_create(&mutex, APR_THREAD_MUTEX_DEFAULT, c->pool) != APR_SUCCESS) {
        return;
    }
    apr_allocator_mutex_set(allocator, mutex);
    /* Registered last, it runs before the mutex is destroyed. */
    apr_pool_cleanup_register(c->pool, allocator, without_mutex, apr_pool_cleanup_null);
}

void shim_connection_release_memory(conn_rec *c)
{
    /* As many nodes as what reads and writes leaves of a connection; if there are fewer, the others are new, and free again. */
    apr_memnode_t *nodes[4];
    apr_allocator_t *allocator = apr_pool_allocator_get(c->pool);
    size_t i;

    /* The smallest limit that is one: the allocator keeps no node of those that it gets back. */
    apr_allocator_max_free_set(allocator, 1);
    for (i = 0; i < sizeof(nodes) / sizeof(*nodes); i++) {
        /* It looks for free nodes of that size and larger ones first. */
        nodes[i] = apr_allocator_alloc(allocator, 1);
    }
    while (i-- > 0) {
        if (nodes[i]) {
            nodes[i]->next = NULL;
            apr_allocator_free(allocator, nodes[i]);
        }
    }
    apr_allocator_max_free_set(allocator, ap_max_mem_free);
}

const char *shim_request_location(const request_rec *r)
{
    const core_dir_config *core = ap_get_core_module_config(r->per_dir_config);
    return core->d;
}

void shim_connection_send(conn_rec *c, apr_pool_t *pool, const char *data, apr_size_t length)
{
    apr_bucket_brigade *bb = apr_brigade_create(pool, c->bucket_alloc);
    ap_fwrite(c->output_filters, bb, data, length);
    ap_fflush(c->output_filters, bb);
    apr_brigade_destroy(bb);
}

void shim_connection_send_all(conn_rec *c)
{
    apr_bucket_brigade *bb = apr_brigade_create(c->pool, c->bucket_alloc);
    ap_fflush(c->output_filters, bb);
    apr_brigade_destroy(bb);
}

void shim_connection_count_sent(conn_rec *c, apr_off_t bytes)
{
    APR_OPTIONAL_FN_TYPE(ap_logio_add_bytes_out) *count = APR_RETRIEVE_OPTIONAL_FN(ap_logio_add_bytes_out);

    if (count) {
        count(c, bytes);
    }
}

apr_status_t shim_socket_lay_bare(apr_socket_t *socket)
{
    /* Neither asks the system where APR knows that it is so. */
    apr_status_t status = apr_socket_opt_set(socket, APR_SO_NONBLOCK, 1);

    return status == APR_SUCCESS ? apr_socket_opt_set(socket, APR_TCP_NODELAY, 1) : status;
}

static apr_bucket_brigade *only_flush(request_rec *r)
{
    apr_bucket_brigade *bb = apr_brigade_create(r->pool, r->connection->bucket_alloc);
    APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_flush_create(r->connection->bucket_alloc));
    return bb;
}

static apr_status_t drop(ap_filter_t *f, apr_bucket_brigade *bb)
{
    (void)f;
    return apr_brigade_cleanup(bb);
}

void shim_request_run_filter(request_rec *r, const char *name)
{
    static ap_filter_rec_t nothing = {.name = "websocket_nothing", .filter_func = {.out_func = drop}, .ftype = AP_FTYPE_NETWORK};
    ap_filter_t end = {.frec = &nothing, .r = r, .c = r->connection};
    ap_filter_t *f = r->output_filters;

    while (f && f->frec->ftype < AP_FTYPE_PROTOCOL) {
        ap_filter_t *next = f->next;
        if (!ap_cstr_casecmp(f->frec->name, name)) {
            apr_bucket_brigade *bb = only_flush(r);
            ap_remove_output_filter(f);
            f->next = &end;
            f->frec->filter_func.out_func(f, bb);
            f->next = NULL;
            apr_brigade_destroy(bb);
        }
        f = next;
    }
}

int shim_request_respond_by(request_rec *r, const char *name)
{
    ap_filter_t *f;

    for (f = r->output_filters; f; f = f->next) {
        if (!ap_cstr_casecmp(f->frec->name, name)) {
            apr_bucket_brigade *bb = only_flush(r);
            f->frec->filter_func.out_func(f, bb);
            apr_brigade_destroy(bb);
            return 1;
        }
    }
    return 0;
}

/* SetHandler in a section, or in one within it */
static int sets_handler(const ap_conf_vector_t *section, const ap_expr_info_t *handler)
{
    const core_dir_config *core = ap_get_core_module_config(section);
    const apr_array_header_t *within[2];
    int i, j;

    if (core == NULL) {
        return 0;
    }
    if (core->expr_handler == handler) {
        return 1;
    }
    within[0] = core->sec_file;
    within[1] = core->sec_if;
    for (i = 0; i < 2; i++) {
        for (j = 0; within[i] != NULL && j < within[i]->nelts; j++) {
            if (sets_handler(APR_ARRAY_IDX(within[i], j, const ap_conf_vector_t *), handler)) {
                return 1;
            }
        }
    }
    return 0;
}

int shim_handler_is_from_htaccess(request_rec *r)
{
    const core_dir_config *core = ap_get_core_module_config(r->per_dir_config);
    const ap_expr_info_t *handler = core->expr_handler;
    const struct htaccess_result *read;
    const char *error = NULL, *value;
    int any = 0;

    /* httpd also remembers where there was no such file */
    for (read = r->htaccess; read != NULL; read = read->next) {
        if (read->htaccess == NULL) {
            continue;
        }
        any = 1;
        if (handler != NULL && sets_handler(read->htaccess, handler)) {
            return 1;
        }
    }
    if (!any) {
        return 0;
    }
    /* AddHandler and RewriteRule's [H=] may stand in such a file as well, and leave no trace of it */
    if (handler == NULL || r->handler == NULL) {
        return 1;
    }
    value = ap_expr_str_exec(r, handler, &error);
    return error != NULL || value == NULL || strcasecmp(value, r->handler) != 0;
}
