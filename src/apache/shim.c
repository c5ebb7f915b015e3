#include "shim.h"

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

int shim_bucket_is_socket(const apr_bucket *bucket)
{
    return APR_BUCKET_IS_SOCKET(bucket);
}

apr_status_t shim_bucket_read(apr_bucket *bucket, const char **data, apr_size_t *length)
{
    return apr_bucket_read(bucket, data, length, APR_NONBLOCK_READ);
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
