<?php
// The session ends, and with it all sockets of its user: those of other tabs and browsers, too.
require __DIR__ . '/chat.php';

if ($_SERVER['REQUEST_METHOD'] === 'POST') {
    session_start();
    $user = $_SESSION['user'] ?? null;
    $_SESSION = [];
    session_destroy();
    if ($user !== null) {
        $closed = publishing('DELETE', ['user' => $user, 'code' => 4401, 'reason' => 'logged out']);
        if ($closed === null) {
            error_log("the sockets of $user could not be closed");
        }
    }
}
header('Location: login.php', true, 303);
