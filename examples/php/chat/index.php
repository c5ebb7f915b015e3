<?php
require __DIR__ . '/chat.php';

header('Cache-Control: no-store');
$user = user();
if ($user === null) {
    header('Location: login.php', true, 303);
    exit;
}
?>
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<link rel="icon" href="data:,">
<title>Chat</title>
<h1>Chat</h1>
<p>You are <b id="user"><?= htmlspecialchars($user) ?></b>. <span id="state">Connecting …</span></p>
<form method="post" action="logout.php"><button id="log-out">Log out everywhere</button></form>
<ol id="said"></ol>
<form id="say">
    <input id="text" name="text" maxlength="500" required autocomplete="off" autofocus> <button id="send">Say</button>
</form>
<script>
"use strict";
const said = document.getElementById("said");
const state = document.getElementById("state");

// Each message once: what comes while the history is on its way may be in it, too.
const shown = new Set();
function show(message) {
    if (shown.has(message.id)) return;
    shown.add(message.id);
    const item = document.createElement("li");
    item.textContent = `${message.user}: ${message.text}`;
    said.append(item);
}

function leave() {
    location.href = "login.php?logged-out";
}

let wait = 500;
function connect() {
    const url = new URL("socket", location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(url);
    // What comes before the history is there waits for it.
    let early = [];
    socket.onmessage = event => {
        const message = JSON.parse(event.data);
        if (early) early.push(message);
        else show(message);
    };
    socket.onopen = async () => {
        const answer = await fetch("history.php").catch(() => null);
        if (!answer?.ok) {
            socket.close();
            return;
        }
        (await answer.json()).concat(early).forEach(show);
        early = null;
        state.textContent = "Connected.";
        wait = 500;
    };
    socket.onclose = async event => {
        if (event.code === 4401) {
            leave();
            return;
        }
        state.textContent = "Connection lost, trying again …";
        // A script is not told why a handshake was refused. This page knows: without a login it is a redirection.
        const page = await fetch(location.href, { redirect: "manual" }).catch(() => null);
        if (page?.type === "opaqueredirect") {
            leave();
            return;
        }
        setTimeout(connect, wait);
        wait = Math.min(wait * 2, 30000);
    };
}
connect();

document.getElementById("say").onsubmit = async event => {
    event.preventDefault();
    const form = event.target;
    const answer = await fetch("say.php", { method: "POST", body: new FormData(form) }).catch(() => null);
    if (answer?.ok) form.reset();
    else if (answer?.status === 403) leave();
    else state.textContent = "That was not said.";
};
</script>
