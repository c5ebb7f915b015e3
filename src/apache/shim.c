#include "shim.h"

int shim_status_is_eagain(apr_status_t status)
{
    return APR_STATUS_IS_EAGAIN(status);
}

int shim_brigade_is_empty(const apr_bucket_brigade *brigade)
{
    return APR_BRIGADE_EMPTY(brigade);
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
