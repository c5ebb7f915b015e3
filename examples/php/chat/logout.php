<?php
// All sessions of the user end, and with them all sockets: those of other tabs and browsers, too.
require __DIR__ . '/chat.php';

if ($_SERVER['REQUEST_METHOD'] === 'POST') {
    $user = user();
    session_start();
    $_SESSION = [];
    session_destroy();
    if ($user !== null) {
        // First, so that no socket comes back.
        file_put_contents(logout_mark($user), (string) microtime(true), LOCK_EX);
        $closed = publishing('DELETE', ['user' => $user, 'code' => 4401, 'reason' => 'logged out']);
        if ($closed === null) {
            error_log("the sockets of $user could not be closed");
        }
    }
}
header('Location: login.php?logged-out', true, 303);
