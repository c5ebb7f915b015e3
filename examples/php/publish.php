<?php
// A page that tells everybody who is subscribed to the channel "news" (see docs/channels/guide.md).

/** Publishes a message; returns its id and the number of its subscribers. */
function publish(string $channel, string $message, string $type = 'text/plain; charset=utf-8'): array
{
    $url = (getenv('PUBLISH_URL') ?: 'http://127.0.0.1/publish') . '?channel=' . rawurlencode($channel);
    $request = ['method' => 'POST', 'header' => "Content-Type: $type", 'content' => $message, 'ignore_errors' => true];
    $answer = json_decode((string) file_get_contents($url, false, stream_context_create(['http' => $request])), true);
    return $answer[$channel] ?? throw new RuntimeException($answer['error'] ?? "$url does not answer as it should");
}

$event = ['event' => 'order', 'number' => 4711, 'for' => 'Zoë'];
$published = publish('news', json_encode($event), 'application/json');

header('Content-Type: text/plain; charset=utf-8');
echo "Message {$published['id']} went to {$published['subscribers']} subscribers.\n";
