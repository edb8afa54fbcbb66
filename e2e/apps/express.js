// A Node Express application with a login, sessions and redirects of every form.
// Run it with the path that it serves: node express.js /user/<id>/
const express = require("express");
const session = require("express-session");

const base = process.argv[2] || "/";
const port = process.env.PORT || 8888;
const app = express();
app.set("trust proxy", true); // the visitor's protocol and host
app.use(session({
  secret: "a-secret", resave: false, saveUninitialized: false, cookie: { path: base },
}));
app.use(express.urlencoded({ extended: false }));

const pages = express.Router();
pages.get("/login", (req, res) => {
  res.send(`<form method="post"><input name="user"><button>Log in</button></form>`);
});
pages.post("/login", (req, res) => {
  req.session.user = req.body.user;
  // As applications do that build complete addresses.
  res.redirect(303, `${req.protocol}://${req.get("host")}${req.query.next}`);
});
pages.get("/logout", (req, res) => req.session.destroy(() => {
  res.clearCookie("connect.sid", { path: base });
  res.redirect(base);
}));
pages.use((req, res, next) => {
  if (req.session.user) return next();
  res.redirect(`${base}login?next=${encodeURIComponent(req.originalUrl)}`);
});
pages.get("/", (req, res) => res.send(`Hello ${req.session.user}`));
pages.get("/list", (req, res) => {
  // Two cookies of one answer, each with another path, and links to other pages.
  res.cookie("theme", "dark", { path: base });
  res.cookie("filter", "all", { path: `${base}list` });
  res.links({ next: `${base}list?page=2`, help: "https://help.example/list" });
  res.send(`theme=${/theme=\w+/.test(req.headers.cookie)} filter=${/filter=\w+/.test(req.headers.cookie)}`);
});
pages.post("/list", (req, res) => res.status(201).location(`${base}list/1`).send("created"));
pages.get("/list/1", (req, res) => res.send("the first"));
// Redirects to a page of this application.
pages.get("/relative", (req, res) => res.redirect("list/1"));
pages.get("/path", (req, res) => res.redirect(`${base}list/1`));
pages.get("/scheme-relative", (req, res) => res.redirect(`//${req.get("host")}${base}list/1`));
pages.get("/own-address", (req, res) => res.redirect(`http://localhost:${port}${base}list/1`));
pages.get("/refresh", (req, res) => res.set("Refresh", `0; url=${base}list/1`).send("wait"));
pages.get("/elsewhere", (req, res) => res.redirect("https://elsewhere.example/list/1"));
// express.static redirects a directory to its path with a slash.
pages.use("/static", express.static(__dirname));

app.use(base, pages);
app.listen(port);
