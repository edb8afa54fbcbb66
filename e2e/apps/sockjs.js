// A SockJS application, which echoes. Its page uses each transport in turn. Run it
// with the path that it serves: node sockjs.js /user/<id>/
const fs = require("fs");
const http = require("http");
const sockjs = require("sockjs");

const base = process.argv[2] || "/";
const client = fs.readFileSync(require.resolve("sockjs-client/dist/sockjs.min.js"));
const page = `<!doctype html><title>SockJS</title><p id="out"></p>
<script src="sockjs.min.js"></script>
<script>
const out = document.getElementById("out");
async function use(transport) {
  const socket = new SockJS("echo", null, { transports: [transport] });
  const answer = await new Promise((resolve) => {
    socket.onopen = () => socket.send("hello");
    socket.onmessage = (event) => resolve(event.data);
    socket.onclose = (event) => resolve("closed: " + event.reason);
  });
  out.textContent += transport + " has " + answer + "; ";
  socket.close();
}
(async () => {
  for (const transport of ["websocket", "xhr-streaming", "eventsource", "xhr-polling", "jsonp-polling"]) await use(transport);
  out.textContent += "done";
})();
</script>`;
const server = http.createServer((req, res) => {
  if (req.url.endsWith("/sockjs.min.js")) res.setHeader("Content-Type", "text/javascript").end(client);
  else res.setHeader("Content-Type", "text/html").end(page);
});
const echo = sockjs.createServer({ log: () => {} });
echo.on("connection", (socket) => socket.on("data", (message) => socket.write(message)));
echo.installHandlers(server, { prefix: `${base}echo` });
server.listen(process.env.PORT || 8888);
