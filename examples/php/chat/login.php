<?php
// A real site asks for a password here.
require __DIR__ . '/chat.php';

$user = trim((string) ($_POST['user'] ?? ''));
if ($_SERVER['REQUEST_METHOD'] === 'POST' && preg_match('/^[\w-]{1,32}$/D', $user)) {
    session_start();
    session_regenerate_id(true);
    $_SESSION = ['user' => $user, 'since' => microtime(true)];
    header('Location: /php-chat/', true, 303);
    exit;
}
?>
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<link rel="icon" href="data:,">
<title>Log in</title>
<h1>Log in</h1>
<?php if (isset($_GET['logged-out'])): ?>
<p id="note">You are logged out.</p>
<?php endif ?>
<form method="post" action="login.php">
    <label>Your name <input id="name" name="user" pattern="[A-Za-z0-9_\-]{1,32}" required autofocus></label>
    <button id="log-in">Log in</button>
</form>
