/*
 * Modules that guard a site. Two that let in a client who has not logged in, as mod_auth_openidc (since 2.4.14) and mod_auth_mellon (for SAML's
 * ECP profile) do: a user without a name, and a content handler that says how to log in. They have the names of these modules,
 * and the places of their hooks. And one that sends requests to another server, as mod_security does (`proxy:`), when it has read
 * them or when they are authorized.
 */
#include <apr_strings.h>
#include <httpd.h>
#include <http_config.h>
#include <http_core.h>
#include <http_protocol.h>
#include <http_request.h>
#include <string.h>

static int authenticate(request_rec *r, const char *type)
{
    const char *current = ap_auth_type(r);
    if (current == NULL || strcmp(current, type) != 0) {
        return DECLINED;
    }
    r->ap_auth_type = (char *)current;
    if (apr_table_get(r->headers_in, "Cookie") != NULL) {
        r->user = "alice";
    }
    else {
        r->user = "";
        apr_table_setn(r->notes, type, "deferred");
    }
    return OK;
}

static int answer(request_rec *r, const char *type)
{
    if (apr_table_get(r->notes, type) == NULL) {
        return DECLINED;
    }
    ap_set_content_type(r, "text/html");
    ap_rputs("log in by ", r);
    ap_rputs(type, r);
    return OK;
}

static int openidc_authenticate(request_rec *r)
{
    return authenticate(r, "openid-connect");
}

static int openidc_handler(request_rec *r)
{
    return answer(r, "openid-connect");
}

static void openidc_hooks(apr_pool_t *pool)
{
    static const char *const before[] = { "mod_proxy.c", NULL };
    (void)pool;
    ap_hook_check_authn(openidc_authenticate, NULL, NULL, APR_HOOK_MIDDLE, AP_AUTH_INTERNAL_PER_CONF);
    ap_hook_handler(openidc_handler, NULL, before, APR_HOOK_FIRST);
}

static int mellon_authenticate(request_rec *r)
{
    return authenticate(r, "mellon");
}

static int mellon_handler(request_rec *r)
{
    return answer(r, "mellon");
}

static void mellon_hooks(apr_pool_t *pool)
{
    static const char *const before[] = { "mod_proxy.c", NULL };
    (void)pool;
    ap_hook_check_user_id(mellon_authenticate, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_handler(mellon_handler, NULL, before, APR_HOOK_FIRST);
}

static int send_away(request_rec *r, const char *when)
{
    const char *wanted = apr_table_get(r->headers_in, when);
    if (wanted == NULL || r->proxyreq != PROXYREQ_NONE) {
        return DECLINED;
    }
    r->filename = apr_pstrcat(r->pool, "proxy:", wanted, NULL);
    r->proxyreq = PROXYREQ_REVERSE;
    r->handler = "proxy-server";
    return OK;
}

static int firewall_read(request_rec *r)
{
    return send_away(r, "X-Away-When-Read");
}

static int firewall_fixups(request_rec *r)
{
    return send_away(r, "X-Away-When-Authorized");
}

static void firewall_hooks(apr_pool_t *pool)
{
    (void)pool;
    ap_hook_post_read_request(firewall_read, NULL, NULL, APR_HOOK_REALLY_FIRST);
    ap_hook_fixups(firewall_fixups, NULL, NULL, APR_HOOK_REALLY_FIRST);
}

#define NAMED(name, hooks)                                                                                             \
    { MODULE_MAGIC_NUMBER_MAJOR, MODULE_MAGIC_NUMBER_MINOR, -1, name, NULL, NULL, MODULE_MAGIC_COOKIE, NULL, NULL,     \
      NULL, NULL, NULL, NULL, hooks, 0 }

module AP_MODULE_DECLARE_DATA auth_openidc_module = NAMED("mod_auth_openidc.c", openidc_hooks);
module AP_MODULE_DECLARE_DATA auth_mellon_module = NAMED("mod_auth_mellon.c", mellon_hooks);
module AP_MODULE_DECLARE_DATA firewall_module = NAMED("mod_firewall.c", firewall_hooks);
