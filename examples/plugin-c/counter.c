/*
 * Counts, twenty times a second, from a thread of its own for each connection. It speaks the subprotocol "counter" and no
 * other, and starts again when a client says "reset".
 */
#include "websocket_plugin.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define PROTOCOL "counter"

struct counter {
    const WebSocketServer *server;
    pthread_t thread;
    atomic_int number;
    atomic_int active;
};

static void *count(void *data)
{
    const struct timespec pause = { 0, 50 * 1000 * 1000 };
    struct counter *counter = data;
    char text[16];

    while (atomic_load(&counter->active)) {
        int length = snprintf(text, sizeof(text), "%d", atomic_fetch_add(&counter->number, 1));
        /* 0: the connection is closing, and on_disconnect is about to be called. */
        if (counter->server->send(counter->server, MESSAGE_TYPE_TEXT, (unsigned char *)text, length) == 0) {
            break;
        }
        nanosleep(&pause, NULL);
    }
    return NULL;
}

static int is_offered(const WebSocketServer *server, const char *protocol)
{
    size_t i;
    for (i = 0; i < server->protocol_count(server); i++) {
        if (strcmp(server->protocol_index(server, i), protocol) == 0) {
            return 1;
        }
    }
    return 0;
}

static void *CALLBACK on_connect(const WebSocketServer *server)
{
    struct counter *counter;

    if (!is_offered(server, PROTOCOL)) {
        return NULL;
    }
    server->protocol_set(server, PROTOCOL);
    counter = calloc(1, sizeof(*counter));
    if (counter) {
        counter->server = server;
        atomic_store(&counter->active, 1);
        if (pthread_create(&counter->thread, NULL, count, counter) != 0) {
            free(counter);
            counter = NULL;
        }
    }
    return counter;
}

static size_t CALLBACK on_message(void *private, const WebSocketServer *server, const int type, unsigned char *buffer,
                                  const size_t size)
{
    struct counter *counter = private;
    (void)server;
    /* Not a string: it does not end with a NUL. */
    if (type == MESSAGE_TYPE_TEXT && size == 5 && memcmp(buffer, "reset", 5) == 0) {
        atomic_store(&counter->number, 0);
    }
    return 0;
}

static void CALLBACK on_disconnect(void *private, const WebSocketServer *server)
{
    struct counter *counter = private;
    (void)server;
    atomic_store(&counter->active, 0);
    pthread_join(counter->thread, NULL);
    free(counter);
}

static WebSocketPlugin plugin = {
    sizeof(WebSocketPlugin), WEBSOCKET_PLUGIN_VERSION_0, NULL, on_connect, on_message, on_disconnect,
};

EXPORT WebSocketPlugin *CALLBACK counter_init(void)
{
    return &plugin;
}
