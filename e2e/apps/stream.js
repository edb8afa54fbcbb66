// A Node application that streams both ways at once, sends trailers and events. Run
// it with the path that it serves: node stream.js /user/<id>/
const http = require("http");

const base = process.argv[2] || "/";
const page = `<!doctype html><title>Events</title><p id="out"></p>
<script>
const out = document.getElementById("out");
const events = new EventSource("events");
events.onmessage = (event) => { out.textContent += event.data + " "; if (event.data === "done") events.close(); };
</script>`;

// shout answers each piece of the body at once, in capitals, and counts the pieces
// in a trailer. It repeats a trailer of the request.
function shout(req, res) {
  let count = 0;
  res.writeHead(200, { "Content-Type": "text/plain", Trailer: "X-Count, X-Repeated" });
  res.flushHeaders();
  req.on("data", (piece) => { count++; res.write(piece.toString().toUpperCase()); });
  req.on("end", () => {
    res.addTrailers({ "X-Count": String(count), "X-Repeated": req.trailers["x-sum"] || "" });
    res.end();
  });
}

// events sends two events on each connection. A browser then connects again and
// says which was the last.
function events(req, res) {
  const next = Number(req.headers["last-event-id"] || 0) + 1;
  res.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-cache" });
  res.write("retry: 50\n\n");
  for (const id of [next, next + 1]) res.write(`id: ${id}\ndata: ${id < 6 ? id : "done"}\n\n`);
  res.end();
}

http.createServer((req, res) => {
  switch (req.url.slice(base.length)) {
    case "shout": return shout(req, res);
    case "events": return events(req, res);
    default: res.setHeader("Content-Type", "text/html").end(page);
  }
}).listen(process.env.PORT || 8888);
