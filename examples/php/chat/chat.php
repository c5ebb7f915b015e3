<?php
// What the pages of the chat have in common.
declare(strict_types=1);

session_set_cookie_params(['httponly' => true, 'samesite' => 'Lax', 'path' => '/php-chat/']);

/** Who is logged in. The session is not written, and not locked: requests of one browser do not wait for each other. */
function user(): ?string
{
    session_start(['read_and_close' => true]);
    return $_SESSION['user'] ?? null;
}

/** A request to the publishing location. What it answers, or null where it gives no answer that is good. */
function publishing(string $method, array $query, ?string $body = null): ?array
{
    $url = 'http://localhost:' . $_SERVER['SERVER_PORT'] . '/php-chat/publish?' . http_build_query($query);
    $http = ['method' => $method, 'content' => $body ?? '', 'header' => 'Content-Type: application/json', 'timeout' => 10];
    $answer = @file_get_contents($url, false, stream_context_create(['http' => $http]));
    return $answer === false ? null : json_decode($answer, true);
}

/** The last of what was said: one JSON object a line. */
function history(int $count = 50): array
{
    $lines = @file($_SERVER['CHAT_HISTORY'], FILE_IGNORE_NEW_LINES) ?: [];
    return array_slice($lines, -$count);
}

/** Keeps what was said. */
function remember(string $line): void
{
    file_put_contents($_SERVER['CHAT_HISTORY'], "$line\n", FILE_APPEND | LOCK_EX);
}
