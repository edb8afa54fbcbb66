// A Socket.IO application. Its page begins with long polling and upgrades to a
// WebSocket. Run it with the path that it serves: node socketio.js /user/<id>/
const http = require("http");
const { Server } = require("socket.io");

const base = process.argv[2] || "/";
const page = `<!doctype html><title>Socket.IO</title><p id="out"></p>
<script src="socket.io/socket.io.js"></script>
<script>
const out = document.getElementById("out");
const transports = new URLSearchParams(location.search).getAll("transport");
const socket = io({
  path: new URL("socket.io/", document.baseURI).pathname,
  ...(transports.length ? { transports } : {}),
});
const say = () => socket.emit("say", "hello", new Uint8Array(300000), (reply) => { out.textContent += reply; });
socket.once("connect", () => {
  const engine = socket.io.engine;
  if (transports.length || engine.transport.name === "websocket") say();
  else engine.once("upgrade", say);
});
</script>`;
const server = http.createServer((req, res) => res.setHeader("Content-Type", "text/html").end(page));
const io = new Server(server, { path: `${base}socket.io/` });
io.on("connection", (socket) => socket.on("say", (text, data, reply) =>
  reply(`${socket.conn.transport.name} has ${text} and ${data.length} bytes`)));
server.listen(process.env.PORT || 8888);
