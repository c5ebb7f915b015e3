/* Sends every message back. */
#include "websocket_plugin.h"

static size_t CALLBACK on_message(void *private, const WebSocketServer *server, const int type, unsigned char *buffer,
                                  const size_t size)
{
    (void)private;
    return server->send(server, type, buffer, size);
}

static WebSocketPlugin plugin = {
    sizeof(WebSocketPlugin), WEBSOCKET_PLUGIN_VERSION_0, NULL, NULL, on_message, NULL,
};

EXPORT WebSocketPlugin *CALLBACK echo_init(void)
{
    return &plugin;
}
