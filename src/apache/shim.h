/* What bindgen reads: httpd's headers, and functions for what is a macro there. */
#ifndef MOD_WEBSOCKET_SHIM_H
#define MOD_WEBSOCKET_SHIM_H

#include "httpd.h"
#include "http_config.h"
#include "http_connection.h"
#include "http_core.h"
#include "http_log.h"
#include "http_main.h"
#include "http_protocol.h"
#include "http_request.h"
#include "http_ssl.h"
#include "ap_expr.h"
#include "ap_listen.h"
#include "ap_mmn.h"
#include "ap_mpm.h"
#include "mpm_common.h"
#include "scoreboard.h"
#include "unixd.h"
#include "apr_allocator.h"
#include "apr_buckets.h"
#include "apr_dso.h"
#include "apr_optional_hooks.h"
#include "apr_poll.h"
#include "apr_portable.h"
#include "apr_strings.h"
#include "apr_thread_mutex.h"
#include "apr_thread_proc.h"
#include "util_filter.h"
#include "util_script.h"

/* 2.4.52 is the oldest httpd that is built against: its ap_ssl_conn_is_ssl and its process life cycle are relied on. */
#if !AP_MODULE_MAGIC_AT_LEAST(20120211, 121)
#error "mod_websocket needs httpd 2.4.52 or later"
#endif

/* APR_STATUS_IS_EAGAIN, APR_STATUS_IS_EOF */
int shim_status_is_eagain(apr_status_t status);
int shim_status_is_eof(apr_status_t status);
/* APR_BRIGADE_FIRST and APR_BUCKET_NEXT; NULL in the place of APR_BRIGADE_SENTINEL */
apr_bucket *shim_brigade_first(apr_bucket_brigade *brigade);
apr_bucket *shim_brigade_next(apr_bucket_brigade *brigade, apr_bucket *bucket);
/* APR_BUCKET_IS_METADATA, APR_BUCKET_IS_EOS, APR_BUCKET_IS_SOCKET, apr_bucket_read */
int shim_bucket_is_metadata(const apr_bucket *bucket);
int shim_bucket_is_eos(const apr_bucket *bucket);
int shim_bucket_is_socket(const apr_bucket *bucket);
apr_status_t shim_bucket_read(apr_bucket *bucket, const char **data, apr_size_t *length, apr_read_type_e block);
/* Puts an EOS at the end: apr_bucket_eos_create, APR_BRIGADE_INSERT_TAIL */
void shim_brigade_end(apr_bucket_brigade *brigade);
/* AP_EXPR_FLAG_RESTRICTED_FILE_FUNC, where this httpd has it: no files are read through expressions */
unsigned int shim_expr_without_files(void);
/* c->cs and its CONN_STATE_SUSPENDED: the connection is nobody's but its suspender's */
int shim_connection_is_suspended(const conn_rec *c);
void shim_connection_set_suspended(conn_rec *c);
/* c->data_in_output_filters (a bit field in some versions) */
int shim_connection_has_output(const conn_rec *c);
/* The network filter, called without data as the MPM does in CONN_STATE_WRITE_COMPLETION: it writes what it can */
apr_status_t shim_connection_flush(conn_rec *c);
/* ap_get_pollfd_from_conn (2.4.58, MMN 20120211.129): the descriptor to poll for input, -1 where there is none */
int shim_connection_pollfd(conn_rec *c);
/* The hook of the same name, where this httpd has it */
typedef apr_status_t shim_get_pollfd_fn(conn_rec *c, apr_pollfd_t *pollfd, apr_interval_time_t *timeout);
int shim_has_get_pollfd(void);
void shim_hook_get_pollfd(shim_get_pollfd_fn *function);
/* What it answers where there is no input any more: APR_NO_DESC */
void shim_pollfd_set_none(apr_pollfd_t *pollfd);
/* What ends a connection without a word: aborted (a bit field in some versions), and not kept alive. */
void shim_connection_abandon(conn_rec *c);
int shim_connection_is_aborted(const conn_rec *c);
/* c->aborted alone: nothing is written any more */
void shim_connection_set_aborted(conn_rec *c);
/* Gives the allocator of the connection's pool a mutex, until the pool is cleared */
void shim_connection_share_memory(conn_rec *c);
/* Gives the system back what the allocator of the connection's pool keeps for the next use */
void shim_connection_release_memory(conn_rec *c);
/* c->keepalive: the connection is closed after this request */
void shim_connection_close_after(conn_rec *c);
/* Writes to the client what goes before the output filters of a request, and waits until it has gone */
void shim_connection_send(conn_rec *c, apr_pool_t *pool, const char *data, apr_size_t length);
/* As that, of what the filters hold */
void shim_connection_send_all(conn_rec *c);
/* Has mod_logio count bytes that somebody else sends */
void shim_connection_count_sent(conn_rec *c, apr_off_t bytes);
/* Sees to it that a socket does not block, and delays nothing (RFC 896): mostly it is so already */
apr_status_t shim_socket_lay_bare(apr_socket_t *socket);
/* Runs an output filter of a request, below those of the protocol, with a flush and no body; it is no longer in the request's
   chain then. What it passes on is dropped: its work was on the request's header lines. */
void shim_request_run_filter(request_rec *r, const char *name);
/* Passes a response without a body to the first output filter of that name; 0: there is none */
int shim_request_respond_by(request_rec *r, const char *name);
/* The path, or pattern, of the innermost section that a request is in; NULL outside of all */
const char *shim_request_location(const request_rec *r);

/* The handler of a request may come from an .htaccess file: what the server's configuration alone would say is another one */
int shim_handler_is_from_htaccess(request_rec *r);

#endif
