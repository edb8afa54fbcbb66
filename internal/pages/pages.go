package pages

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// pageFiles are the pages that people see on the proxy's address. Style and
// script are put into them: they load nothing.
//
//go:embed pages
var pageFiles embed.FS

var (
	launchTemplate   = parsePage("launch.html")
	progressTemplate = parsePage("progress.html")
	noticeTemplate   = parsePage("notice.html")

	pagePolicy = contentSecurityPolicy()
)

// launchView is what the launch page shows.
type launchView struct {
	Title    string
	Template string
	Path     string // the deep link
	Button   string
}

// progressView is what the page of an instance that starts shows.
type progressView struct {
	Title    string
	Template string
	Phase    instance.Status
	Message  string
	Events   string // where its changes are streamed
}

// Notice is an answer that says what is the matter: to browsers a page, to
// others a line.
type Notice struct {
	Code       int
	RetryAfter time.Duration // 0: nothing comes of trying again
	Plain      string        // the line
	Title      string
	Text       string
	// Reason and Message come from pods, registries and the kubelet.
	Reason, Message string
	When            time.Time // zero: not known
	// Template is what the page's button launches, with the deep link Path; ""
	// for no button.
	Template, Path, Button string
	// Waiting is the page of an instance that starts, in place of the notice.
	Waiting *progressView
}

// Serve answers with the page, or with the line who does not ask for HTML.
func (n Notice) Serve(w http.ResponseWriter, r *http.Request) {
	if !acceptsHTML(r) {
		n.ServePlain(w)
		return
	}
	n.setRetryAfter(w)
	if n.Waiting != nil {
		writePage(w, n.Code, progressTemplate, n.Waiting)
		return
	}
	writePage(w, n.Code, noticeTemplate, n)
}

func (n Notice) ServePlain(w http.ResponseWriter) {
	n.setRetryAfter(w)
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, n.Plain, n.Code)
}

func (n Notice) setRetryAfter(w http.ResponseWriter) {
	if n.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(n.RetryAfter.Seconds())))
	}
}

// acceptsHTML reports whether a client asks for a page. What a page loads does
// not: browsers ask for HTML only to show it.
func acceptsHTML(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

// writePage sends a page. It is rendered first, so that an error is none half
// way through; a client that has gone is all that can fail after that.
func writePage(w http.ResponseWriter, code int, page *template.Template, view any) {
	var body bytes.Buffer
	if err := page.Execute(&body, view); err != nil { // the views are known: tests render them all
		panic(err)
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	// The id in an address is a capability: no Referer may hold it. Not
	// no-referrer, which makes a form's Origin null, and so a launch from our
	// own page look like one from elsewhere.
	h.Set("Referrer-Policy", "strict-origin")
	w.WriteHeader(code)
	_, _ = body.WriteTo(w)
}

// parsePage puts a page into the layout.
func parsePage(name string) *template.Template {
	return template.Must(template.New("layout.html").Funcs(template.FuncMap{
		"pathEscape": url.PathEscape,
		"style":      func() template.CSS { return template.CSS(pageFile("style.css")) },
		"script":     func(name string) template.JS { return template.JS(pageFile(name)) },
	}).ParseFS(pageFiles, "pages/layout.html", "pages/"+name))
}

func pageFile(name string) string {
	data, err := pageFiles.ReadFile(path.Join("pages", name))
	if err != nil { // it is embedded
		panic(err)
	}
	return string(data)
}

// contentSecurityPolicy lets the pages run and look like what is embedded, by
// its hash, and nothing else.
func contentSecurityPolicy() string {
	hash := func(name string) string {
		sum := sha256.Sum256([]byte(pageFile(name)))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	return strings.Join([]string{
		"default-src 'none'",
		"style-src " + hash("style.css"),
		fmt.Sprintf("script-src %s %s %s", hash("launch.js"), hash("progress.js"), hash("notice.js")),
		"img-src data:", // the icon, which is empty
		"connect-src 'self'",
		"form-action 'self'",
		"base-uri 'none'",
		"frame-ancestors 'none'",
	}, "; ")
}
