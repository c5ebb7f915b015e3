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
#include "ap_mmn.h"
#include "ap_mpm.h"
#include "mpm_common.h"
#include "unixd.h"
#include "apr_buckets.h"
#include "apr_portable.h"
#include "apr_strings.h"
#include "apr_thread_proc.h"

/* 2.4.52 is the oldest httpd that is built against: its ap_ssl_conn_is_ssl and its process life cycle are relied on. */
#if !AP_MODULE_MAGIC_AT_LEAST(20120211, 121)
#error "mod_websocket needs httpd 2.4.52 or later"
#endif

/* APR_STATUS_IS_EAGAIN */
int shim_status_is_eagain(apr_status_t status);
/* APR_BRIGADE_EMPTY */
int shim_brigade_is_empty(const apr_bucket_brigade *brigade);
/* What ends a connection without a word: aborted (a bit field in some versions), and not kept alive. */
void shim_connection_abandon(conn_rec *c);
int shim_connection_is_aborted(const conn_rec *c);

#endif
