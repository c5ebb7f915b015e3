/*
 * The interface between mod_websocket and its plugins: shared objects whose functions handle the WebSockets of a location.
 *
 *     WebSocketHandler /path/to/plugin.so my_init
 *
 * in httpd's configuration loads the object and calls its function `WebSocketPlugin *my_init(void)`. The binary layout is
 * that of the modules of this name since 2010: plugins built for those run unchanged, and the other way round.
 *
 * Where the functions are called, and what they may do:
 *
 *  - Of one connection at most one of on_connect, on_message and on_disconnect runs at a time, in this order; of different
 *    connections several do. on_connect runs on the thread of the request, before the client has an answer; the others on a
 *    few threads that all connections of a process share (WebSocketPluginThreads). One that waits for long holds a thread,
 *    and says so in the error log after some seconds.
 *  - The functions of WebSocketServer may be called from any thread, several at once, from on_connect on. After
 *    on_disconnect has returned they do nothing, and return 0 or NULL.
 */
#ifndef MOD_WEBSOCKET_PLUGIN_H
#define MOD_WEBSOCKET_PLUGIN_H

#include <stddef.h>
#include <stdlib.h>

#ifdef __cplusplus
extern "C" {
#endif

/* For the function that the configuration names: `extern EXPORT WebSocketPlugin *CALLBACK my_init(void)`. */
#ifndef EXPORT
#define EXPORT __attribute__((visibility("default")))
#endif
#ifndef CALLBACK
#define CALLBACK
#endif

/* What on_message gets and send takes. on_message gets text and binary messages only. */
#define MESSAGE_TYPE_INVALID (-1)
#define MESSAGE_TYPE_TEXT 0
#define MESSAGE_TYPE_BINARY 128
#define MESSAGE_TYPE_CLOSE 255
#define MESSAGE_TYPE_PING 256
#define MESSAGE_TYPE_PONG 257

struct request_rec;
struct _WebSocketState;
struct _WebSocketServer;
struct _WebSocketPlugin;

/* The request_rec of the handshake (httpd.h); valid until on_disconnect has returned. */
typedef struct request_rec *(CALLBACK *WS_Request)(const struct _WebSocketServer *server);

/* The value of a header line of the handshake, or NULL. */
typedef const char *(CALLBACK *WS_Header_Get)(const struct _WebSocketServer *server, const char *key);

/* In on_connect: sets a header line of the answer. */
typedef void(CALLBACK *WS_Header_Set)(const struct _WebSocketServer *server, const char *key, const char *value);

/* The subprotocols that the client offers, its favourite first. */
typedef size_t(CALLBACK *WS_Protocol_Count)(const struct _WebSocketServer *server);
typedef const char *(CALLBACK *WS_Protocol_Index)(const struct _WebSocketServer *server, const size_t index);

/* In on_connect: the subprotocol of the answer. It should be one that the client offers. */
typedef void(CALLBACK *WS_Protocol_Set)(const struct _WebSocketServer *server, const char *protocol);

/*
 * Sends a message; the buffer is the caller's again when it returns. The result is the size, or 0 when the connection is
 * closing, and for a text that is not UTF-8. MESSAGE_TYPE_CLOSE, and every type that is not known, sends a Close frame with
 * the buffer as its payload: two bytes of code and a reason, or nothing; nothing can be sent after it.
 *
 * On a thread of the plugin's own it waits while the client does not keep up, and returns when the connection ends. Inside
 * of the plugin's functions it never waits; a client of another connection that does not keep up is disconnected then
 * (WebSocketSendBuffer).
 */
typedef size_t(CALLBACK *WS_Send)(const struct _WebSocketServer *server, const int type, const unsigned char *buffer,
                                  const size_t buffer_size);

/* Sends a Close frame without a code. */
typedef void(CALLBACK *WS_Close)(const struct _WebSocketServer *server);

#define WEBSOCKET_SERVER_VERSION_1 1

/* A connection, at the same address from on_connect to on_disconnect. */
typedef struct _WebSocketServer {
    unsigned int size;             /* of this structure */
    unsigned int version;          /* WEBSOCKET_SERVER_VERSION_1 */
    struct _WebSocketState *state; /* the module's own */
    WS_Request request;
    WS_Header_Get header_get;
    WS_Header_Set header_set;
    WS_Protocol_Count protocol_count;
    WS_Protocol_Index protocol_index;
    WS_Protocol_Set protocol_set;
    WS_Send send;
    WS_Close close;
} WebSocketServer;

/* The function that the configuration names. It is called each time httpd reads its configuration. */
typedef struct _WebSocketPlugin *(CALLBACK *WS_Init)(void);

/* When the configuration goes, before the object is unloaded. */
typedef void(CALLBACK *WS_Destroy)(struct _WebSocketPlugin *plugin);

/*
 * A client wants to connect, and the handshake is correct. The result is handed to the functions below; NULL refuses the
 * connection with 403, and nothing more is heard of it. What is sent in here goes out behind the answer.
 */
typedef void *(CALLBACK *WS_OnConnect)(const WebSocketServer *server);

/*
 * A whole message. The buffer is valid, and may be changed, during the call; text is UTF-8 and not terminated. The result
 * is not looked at.
 */
typedef size_t(CALLBACK *WS_OnMessage)(void *plugin_private, const WebSocketServer *server, const int type,
                                       unsigned char *buffer, const size_t buffer_size);

/* The connection is over, for whatever reason: once for each that on_connect has accepted. Nobody waits in send any more. */
typedef void(CALLBACK *WS_OnDisconnect)(void *plugin_private, const WebSocketServer *server);

#define WEBSOCKET_PLUGIN_VERSION_0 0

/* A plugin. Only on_message must be there. */
typedef struct _WebSocketPlugin {
    unsigned int size;    /* sizeof(WebSocketPlugin) */
    unsigned int version; /* WEBSOCKET_PLUGIN_VERSION_0 */
    WS_Destroy destroy;
    WS_OnConnect on_connect; /* without it every connection is accepted, with NULL */
    WS_OnMessage on_message;
    WS_OnDisconnect on_disconnect;
} WebSocketPlugin;

#ifdef __cplusplus
}
#endif

#endif
