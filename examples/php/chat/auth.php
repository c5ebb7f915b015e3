<?php
// WebSocketAuthorize asks this page at each opening handshake, and WebSocketRecheck again later.
require __DIR__ . '/chat.php';

$user = user();
if ($user === null) {
    http_response_code(403);
    header('WebSocket-Close: 4401 log in again');
    exit;
}
header('WebSocket-User: ' . rawurlencode($user));
header('WebSocket-Channel: lobby, user/' . rawurlencode($user));
