<?php
// A real site asks for a password here.
require __DIR__ . '/chat.php';

$user = trim((string) ($_POST['user'] ?? ''));
if ($_SERVER['REQUEST_METHOD'] === 'POST' && preg_match('/^[\w-]{1,32}$/', $user)) {
    session_start();
    session_regenerate_id(true);
    $_SESSION['user'] = $user;
    header('Location: /php-chat/', true, 303);
    exit;
}
?>
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>Log in</title>
<h1>Log in</h1>
<form method="post">
    <label>Your name <input name="user" pattern="[A-Za-z0-9_\-]{1,32}" required autofocus></label>
    <button>Log in</button>
</form>
