/*
 * A plugin for tests: it does what clients tell it to. What happens to it, and is not seen by a client, is in the journal,
 * logs/plugin.log under the ServerRoot.
 */
#include "httpd.h"
#include "http_log.h"
#include "websocket_plugin.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define THREADS 64

struct connection {
    const WebSocketServer *server;
    int number;
    int inside;
    volatile int over;
    int thread_count;
    pthread_t threads[THREADS];
};

struct sender {
    struct connection *connection;
    int number;
    int count;
    int size;
};

static int journal = -1;
static int connections;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t released = PTHREAD_COND_INITIALIZER;
static int blocked, release_all;
static const WebSocketServer *ghost;
static const WebSocketServer *target;

static void note(const char *format, ...)
{
    char line[512];
    va_list arguments;
    int length;
    va_start(arguments, format);
    length = vsnprintf(line, sizeof(line) - 1, format, arguments);
    va_end(arguments);
    line[length++] = '\n';
    if (write(journal, line, length) != length) {
        abort();
    }
}

static size_t say(const WebSocketServer *server, const char *format, ...)
{
    char text[4096];
    va_list arguments;
    int length;
    va_start(arguments, format);
    length = vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    return server->send(server, MESSAGE_TYPE_TEXT, (unsigned char *)text, length);
}

static void *flood(void *data)
{
    struct sender *sender = data;
    char *text = malloc(sender->size + 32);
    int i, length, refused = 0;
    memset(text, 'x', sender->size + 32);
    for (i = 0; sender->count < 0 || i < sender->count; i++) {
        length = sprintf(text, "%d %d", sender->number, i);
        if (length < sender->size) {
            text[length] = ' ';
            length = sender->size;
        }
        if (sender->connection->server->send(sender->connection->server, MESSAGE_TYPE_TEXT, (unsigned char *)text, length)
            == 0) {
            refused = 1;
            break;
        }
    }
    note("sender %d of %d %s", sender->number, sender->connection->number, refused ? "refused" : "done");
    free(text);
    free(sender);
    return NULL;
}

static void start_senders(struct connection *self, int count, int messages, int size)
{
    while (count-- > 0 && self->thread_count < THREADS) {
        struct sender *sender = malloc(sizeof(*sender));
        sender->connection = self;
        sender->number = self->thread_count;
        sender->count = messages;
        sender->size = size;
        pthread_create(&self->threads[self->thread_count++], NULL, flood, sender);
    }
}

static void *CALLBACK on_connect(const WebSocketServer *server)
{
    const char *wish = server->header_get(server, "X-Wish");
    const char *echo = server->header_get(server, "x-ECHO");
    struct connection *self;
    int i, messages;

    if (server->size != sizeof(WebSocketServer) || server->version != WEBSOCKET_SERVER_VERSION_1
        || !server->request(server)) {
        return NULL;
    }
    wish = wish ? wish : "";
    server->header_set(server, "X-From-Plugin", echo ? echo : "nothing");
    if (!strcmp(wish, "refuse")) {
        server->send(server, MESSAGE_TYPE_TEXT, (unsigned char *)"never seen", 10);
        note("refuse");
        return NULL;
    }
    self = calloc(1, sizeof(*self));
    self->server = server;
    self->number = __sync_add_and_fetch(&connections, 1);
    if (!strncmp(wish, "protocol ", 9)) {
        server->protocol_set(server, wish + 9);
    }
    else if (sscanf(wish, "greet %d", &messages) == 1) {
        for (i = 0; i < messages; i++) {
            say(server, "greeting %d", i);
        }
    }
    else if (!strcmp(wish, "close")) {
        server->close(server);
        note("send after close: %d", (int)say(server, "too late"));
    }
    else if (sscanf(wish, "senders %d", &messages) == 1) {
        start_senders(self, 20, messages, 0);
    }
    else if (!strcmp(wish, "bad header")) {
        server->header_set(server, "X-Bad", "a\r\nX-Injected: yes");
        server->protocol_set(server, "two words");
    }
    note("connect %d", self->number);
    return self;
}

static void wait_for_release(void)
{
    pthread_mutex_lock(&mutex);
    blocked++;
    while (!release_all) {
        pthread_cond_wait(&released, &mutex);
    }
    blocked--;
    pthread_mutex_unlock(&mutex);
}

__attribute__((noinline)) static int overflow(volatile char *stack)
{
    volatile char more[4096];
    more[0] = stack[0];
    if (stack[0] == 77) {
        return 0;
    }
    return overflow(more) + more[4095];
}

static void command(struct connection *self, const WebSocketServer *server, char *text)
{
    char word[64] = "";
    int a = 0, b = 0, c = 0;
    size_t i;

    if (!strcmp(text, "protocols")) {
        char list[512] = "";
        for (i = 0; i < server->protocol_count(server); i++) {
            strcat(strcat(list, server->protocol_index(server, i)), ";");
        }
        say(server, "%s%s", list, server->protocol_index(server, i) ? "?" : "");
    }
    else if (sscanf(text, "header %63s", word) == 1) {
        const char *value = server->header_get(server, word);
        say(server, "%s", value ? value : "none");
    }
    else if (!strcmp(text, "request")) {
        request_rec *r = server->request(server);
        say(server, "%s %s %s", r->method, r->unparsed_uri, r->useragent_ip);
    }
    else if (!strcmp(text, "thread")) {
        say(server, "%d", (int)getpid());
    }
    else if (!strcmp(text, "close")) {
        server->close(server);
        note("send after close: %d", (int)say(server, "too late"));
    }
    else if (sscanf(text, "close %d %63s", &a, word) >= 1) {
        unsigned char payload[80] = { a >> 8, a };
        strcpy((char *)payload + 2, word);
        server->send(server, MESSAGE_TYPE_CLOSE, payload, 2 + strlen(word));
    }
    else if (sscanf(text, "raw %d %63s", &a, word) == 2) {
        say(server, "%d", (int)server->send(server, a, (unsigned char *)word, strlen(word)));
    }
    else if (!strcmp(text, "nothing")) {
        server->send(server, MESSAGE_TYPE_TEXT, NULL, 0);
        server->send(server, MESSAGE_TYPE_BINARY, (unsigned char *)"x", 0);
    }
    else if (!strcmp(text, "bad text")) {
        for (i = 0; i < 3; i++) {
            a += server->send(server, MESSAGE_TYPE_TEXT, (unsigned char *)"caf\xe9", 4);
        }
        say(server, "%d", a);
    }
    else if (!strcmp(text, "block")) {
        wait_for_release();
        say(server, "unblocked");
    }
    else if (!strcmp(text, "blocked")) {
        say(server, "%d", blocked);
    }
    else if (!strcmp(text, "release")) {
        pthread_mutex_lock(&mutex);
        release_all = 1;
        pthread_cond_broadcast(&released);
        pthread_mutex_unlock(&mutex);
    }
    else if (sscanf(text, "senders %d %d %d", &a, &b, &c) == 3) {
        start_senders(self, a, b, c);
    }
    else if (!strcmp(text, "target")) {
        target = server;
    }
    else if (sscanf(text, "bombard %d %d", &a, &b) == 2) {
        char *payload = calloc(1, b);
        while (a-- > 0 && target->send(target, MESSAGE_TYPE_BINARY, (unsigned char *)payload, b)) {
            c++;
        }
        free(payload);
        say(server, "%d", c);
    }
    else if (sscanf(text, "burst %d %d", &a, &b) == 2) {
        char *payload = calloc(1, b);
        while (a-- > 0) {
            server->send(server, MESSAGE_TYPE_BINARY, (unsigned char *)payload, b);
        }
        free(payload);
        note("burst of %d over", self->number);
    }
    else if (!strcmp(text, "ghost")) {
        ghost->close(ghost);
        say(server, "send %d, request %p, header %p, protocols %d", (int)say(ghost, "boo"), (void *)ghost->request(ghost),
            (void *)ghost->header_get(ghost, "Host"), (int)ghost->protocol_count(ghost));
    }
    else if (!strcmp(text, "crash")) {
        *(volatile int *)8 = 1;
    }
    else if (!strcmp(text, "abort")) {
        abort();
    }
    else if (!strcmp(text, "overflow")) {
        char here[1] = { 0 };
        say(server, "%d", overflow(here));
    }
    else if (sscanf(text, "sleep %d", &a) == 1) {
        sleep(a);
        say(server, "slept");
    }
    else {
        server->send(server, MESSAGE_TYPE_TEXT, (unsigned char *)text, strlen(text));
    }
}

static size_t CALLBACK on_message(void *private, const WebSocketServer *server, const int type, unsigned char *buffer,
                                  const size_t size)
{
    struct connection *self = private;
    if (__sync_add_and_fetch(&self->inside, 1) != 1 || self->over) {
        note("two at a time");
    }
    if (type == MESSAGE_TYPE_TEXT && size < 512) {
        char text[512];
        memcpy(text, buffer, size);
        text[size] = 0;
        command(self, server, text);
    }
    else if (type == MESSAGE_TYPE_TEXT || type == MESSAGE_TYPE_BINARY) {
        /* The buffer is the plugin's to write to. */
        if (size > 0) {
            buffer[0] ^= 1;
            buffer[size - 1] ^= 1;
            buffer[0] ^= 1;
            buffer[size - 1] ^= 1;
        }
        server->send(server, type, buffer, size);
    }
    else {
        note("type %d", type);
    }
    __sync_sub_and_fetch(&self->inside, 1);
    return 0;
}

static void CALLBACK on_disconnect(void *private, const WebSocketServer *server)
{
    struct connection *self = private;
    int i;
    if (self->inside || self->over || server != self->server) {
        note("on_disconnect at the wrong time");
    }
    self->over = 1;
    for (i = 0; i < self->thread_count; i++) {
        pthread_join(self->threads[i], NULL);
    }
    if (!server->request(server) || say(server, "too late") != 0) {
        note("on_disconnect does not find what it should");
    }
    ghost = server;
    note("disconnect %d", self->number);
    free(self);
}

static void CALLBACK destroy(WebSocketPlugin *plugin)
{
    note("destroy%s", plugin->on_message == on_message ? "" : " of something else");
    close(journal);
}

static WebSocketPlugin rules = {
    sizeof(WebSocketPlugin), WEBSOCKET_PLUGIN_VERSION_0, destroy, on_connect, on_message, on_disconnect,
};

EXPORT WebSocketPlugin *CALLBACK rules_init(void)
{
    const char *root = getenv("MOD_WEBSOCKET_TEST_ROOT");
    char path[512];
    if (root) {
        snprintf(path, sizeof(path), "%s/logs/plugin.log", root);
        journal = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
        note("init");
    }
    return &rules;
}

/* A plugin with nothing but what it must have. */
static size_t CALLBACK echo(void *private, const WebSocketServer *server, const int type, unsigned char *buffer,
                            const size_t size)
{
    return private ? 0 : server->send(server, type, buffer, size);
}

static WebSocketPlugin least = { sizeof(WebSocketPlugin), WEBSOCKET_PLUGIN_VERSION_0, NULL, NULL, echo, NULL };

EXPORT WebSocketPlugin *CALLBACK least_init(void)
{
    return &least;
}

/* Those that cannot be loaded. */
static WebSocketPlugin of_the_future = { sizeof(WebSocketPlugin), 3, NULL, NULL, echo, NULL };
static WebSocketPlugin too_small = { 32, 0, NULL, NULL, echo, NULL };
static WebSocketPlugin without_on_message = { sizeof(WebSocketPlugin), 0, NULL, on_connect, NULL, on_disconnect };

EXPORT WebSocketPlugin *CALLBACK future_init(void)
{
    return &of_the_future;
}

EXPORT WebSocketPlugin *CALLBACK small_init(void)
{
    return &too_small;
}

EXPORT WebSocketPlugin *CALLBACK deaf_init(void)
{
    return &without_on_message;
}

EXPORT WebSocketPlugin *CALLBACK null_init(void)
{
    return NULL;
}

/* The object is a module of httpd, too. */
static int loaded_as_module;

static void register_hooks(apr_pool_t *pool)
{
    (void)pool;
    loaded_as_module = 1;
}

module AP_MODULE_DECLARE_DATA rules_module = { STANDARD20_MODULE_STUFF, NULL, NULL, NULL, NULL, NULL, register_hooks, 0 };

EXPORT WebSocketPlugin *CALLBACK module_init(void)
{
    return loaded_as_module ? &least : NULL;
}
