// A WebSocket echo server with the package ws: node ws.js PORT [CERTIFICATE KEY]
const fs = require("fs");
const { WebSocketServer } = require("ws");

const [port, cert, key] = process.argv.slice(2);
const server = cert
    ? require("https").createServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) })
    : require("http").createServer();
new WebSocketServer({ server }).on("connection", (socket) => {
    socket.on("message", (data, binary) => socket.send(data, { binary }));
    // A client that goes without a closing handshake.
    socket.on("error", () => {});
});
server.listen(Number(port), "127.0.0.1");
