"""Sets cookies by the query, and another header."""


def web_socket_do_extra_handshake(request):
    _, _, query = request.uri.partition("?")
    for cookie in filter(None, query.split("&")):
        request.extra_headers.append(("Set-Cookie", cookie + "; Max-Age=60; HttpOnly"))
    request.extra_headers.append(("Strict-Transport-Security", "max-age=86400"))


def web_socket_transfer_data(request):
    request.ws_stream.send_message(request.headers_in.get("Cookie", "no cookie"))
