<?php
// What was said before: the page asks for it whenever its socket opens.
require __DIR__ . '/chat.php';

if (user() === null) {
    http_response_code(403);
    exit;
}
header('Content-Type: application/json');
header('Cache-Control: no-store');
echo '[', implode(',', history()), ']';
