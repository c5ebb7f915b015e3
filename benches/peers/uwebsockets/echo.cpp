// uWebSockets as a peer: sends every message back. Arguments: port [certificate key]; with these, over TLS.

#include "App.h"

#include <cstdio>
#include <cstdlib>
#include <string_view>

struct NoData {};

template <bool TLS>
static void serve(uWS::TemplatedApp<TLS> app, int port) {
    typename uWS::TemplatedApp<TLS>::template WebSocketBehavior<NoData> echo;
    echo.compression = uWS::DISABLED;
    echo.maxPayloadLength = 64 * 1024 * 1024;
    echo.maxBackpressure = 64 * 1024 * 1024;
    echo.message = [](auto *socket, std::string_view message, uWS::OpCode code) { socket->send(message, code); };
    app.template ws<NoData>("/*", std::move(echo));
    app.listen("127.0.0.1", port, [port](auto *listening) {
        if (!listening) {
            std::fprintf(stderr, "cannot listen on port %d\n", port);
            std::exit(1);
        }
    });
    app.run();
}

int main(int count, char **arguments) {
    if (count != 2 && count != 4) {
        std::fprintf(stderr, "usage: %s port [certificate key]\n", arguments[0]);
        return 2;
    }
    int port = std::atoi(arguments[1]);
    if (count == 4) {
        serve<true>(uWS::SSLApp({.key_file_name = arguments[3], .cert_file_name = arguments[2]}), port);
    } else {
        serve<false>(uWS::App(), port);
    }
}
