<?php
// What the pages of the chat have in common.
declare(strict_types=1);

session_set_cookie_params(['httponly' => true, 'samesite' => 'Lax', 'path' => '/php-chat/']);

/** Who is logged in. The session is not written, and not locked: requests of one browser do not wait for each other. */
function user(): ?string
{
    session_start(['read_and_close' => true]);
    $user = $_SESSION['user'] ?? null;
    // Whoever has logged out since has done so in all browsers.
    $is_over = $user !== null && $_SESSION['since'] <= (float) @file_get_contents(logout_mark($user));
    return $is_over ? null : $user;
}

/** The file with the time at which a user has logged out last. */
function logout_mark(string $user): string
{
    return "{$_SERVER['CHAT_DATA']}/logout-$user";
}

/** A request to the publishing location. What it answers, or null where it gives no answer that is good. */
function publishing(string $method, array $query, ?string $body = null): ?array
{
    $url = $_SERVER['CHAT_PUBLISH'] . '?' . http_build_query($query);
    $http = ['method' => $method, 'content' => $body ?? '', 'header' => 'Content-Type: application/json', 'timeout' => 10];
    $answer = @file_get_contents($url, false, stream_context_create(['http' => $http]));
    return $answer === false ? null : json_decode($answer, true);
}

/** The last of what was said: one JSON object a line. */
function history(int $count = 50): array
{
    $lines = @file("{$_SERVER['CHAT_DATA']}/said", FILE_IGNORE_NEW_LINES) ?: [];
    return array_slice($lines, -$count);
}

/** Keeps what was said. */
function remember(string $line): void
{
    file_put_contents("{$_SERVER['CHAT_DATA']}/said", "$line\n", FILE_APPEND | LOCK_EX);
}
