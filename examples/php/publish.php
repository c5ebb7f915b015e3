<?php
// Publishes ?text= to the channel ?channel=, and says how many clients it was given to.
$url = 'http://127.0.0.1:' . $_SERVER['SERVER_PORT'] . '/publish?channel=' . rawurlencode($_GET['channel']);
$context = stream_context_create(['http' => [
    'method' => 'POST',
    'header' => 'Content-Type: text/plain',
    'content' => $_GET['text'],
]]);
$receipts = json_decode(file_get_contents($url, false, $context), true);
echo $receipts[$_GET['channel']]['subscribers'], " clients have it\n";
