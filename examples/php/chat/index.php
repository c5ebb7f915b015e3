<?php
require __DIR__ . '/chat.php';

$user = user();
if ($user === null) {
    header('Location: login.php', true, 303);
    exit;
}
$flags = JSON_HEX_TAG | JSON_UNESCAPED_UNICODE;
?>
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>Chat</title>
<h1>Chat</h1>
<p>You are <b id="user"><?= htmlspecialchars($user) ?></b>. <span id="state">Connecting …</span></p>
<form method="post" action="logout.php"><button>Log out everywhere</button></form>
<ol id="said"></ol>
<form id="say"><input name="text" maxlength="500" required autocomplete="off" autofocus> <button>Say</button></form>
<script>
"use strict";
const said = document.getElementById("said");
const state = document.getElementById("state");

function show(line) {
    const message = JSON.parse(line);
    const item = document.createElement("li");
    item.textContent = `${message.user}: ${message.text}`;
    said.append(item);
}

// What was said before, as PHP has kept it.
for (const line of <?= json_encode(history(), $flags) ?>) show(line);

let wait = 500;
function connect() {
    const url = new URL("socket", location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(url);
    socket.onopen = () => { state.textContent = "Connected."; wait = 500; };
    socket.onmessage = event => show(event.data);
    socket.onclose = event => {
        if (event.code === 4401) {
            // Nobody comes back without a login.
            state.textContent = "Logged out.";
            location.href = "login.php";
            return;
        }
        state.textContent = "Connection lost, trying again …";
        setTimeout(connect, wait);
        wait = Math.min(wait * 2, 30000);
    };
}
connect();

document.getElementById("say").onsubmit = async event => {
    event.preventDefault();
    const form = event.target;
    const answer = await fetch("say.php", { method: "POST", body: new FormData(form) });
    if (answer.ok) form.reset();
    else state.textContent = "That was not said.";
};
</script>
