<?php
// Somebody says something: PHP keeps it, and gives it to all who are there.
require __DIR__ . '/chat.php';

$user = user();
$text = trim((string) ($_POST['text'] ?? ''));
if ($user === null || $_SERVER['REQUEST_METHOD'] !== 'POST') {
    http_response_code(403);
    exit;
}
if ($text === '' || strlen($text) > 2000 || !preg_match('//u', $text)) {
    http_response_code(400);
    exit;
}
$line = json_encode(['id' => bin2hex(random_bytes(8)), 'user' => $user, 'text' => $text], JSON_UNESCAPED_UNICODE);
remember($line);
if (publishing('POST', ['channel' => 'lobby'], $line) === null) {
    http_response_code(502);
}
