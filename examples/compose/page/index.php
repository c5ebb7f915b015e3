<?php
// The page of compose.yaml: what is written into its form reaches everybody who has it open, at either httpd.

/** Publishes a message; returns the number of its subscribers. */
function publish(string $channel, string $message): int
{
    $header = ['Content-Type: text/plain; charset=utf-8', 'Authorization: Basic ' . base64_encode(getenv('PUBLISH_LOGIN'))];
    $request = ['method' => 'POST', 'header' => $header, 'content' => $message, 'ignore_errors' => true];
    $url = getenv('PUBLISH_URL') . '?channel=' . rawurlencode($channel);
    $answer = json_decode((string) file_get_contents($url, false, stream_context_create(['http' => $request])), true);
    return $answer[$channel]['subscribers'] ?? throw new RuntimeException($answer['error'] ?? "$url does not answer as it should");
}

if ($_SERVER['REQUEST_METHOD'] === 'POST') {
    header('Content-Type: text/plain; charset=utf-8');
    // Pages of other sites may not publish with the login of this one.
    if (($_SERVER['HTTP_ORIGIN'] ?? '') !== "http://{$_SERVER['HTTP_HOST']}") {
        http_response_code(403);
        exit("from another site\n");
    }
    exit('to ' . publish('news', (string) file_get_contents('php://input')) . " subscribers\n");
}
?>
<!DOCTYPE html>
<meta charset="utf-8">
<title>Two httpds, one channel</title>
<form><input name="text" autofocus> <button>Publish</button> <output name="state"></output></form>
<ul></ul>
<script>
  const form = document.forms[0];
  for (const port of [8081, 8082]) {
    const open = () => {
      const socket = new WebSocket(`ws://localhost:${port}/news`);
      socket.onmessage = ({ data }) => {
        const item = document.createElement("li");
        item.textContent = `${port}: ${data}`;
        document.querySelector("ul").prepend(item);
      };
      // After a restart of the container too.
      socket.onclose = () => setTimeout(open, 1000);
    };
    open();
  }
  form.onsubmit = async (event) => {
    event.preventDefault();
    const answer = await fetch("", { method: "POST", body: form.elements.text.value });
    form.elements.state.value = await answer.text();
  };
</script>
