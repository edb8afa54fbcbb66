// Package pages is what people see on the public port besides their instances: the
// launch page, the progress of a launch, and notices that say why an instance cannot
// be reached. It also has the admin page, which is on the API's port.
//
// It must never know how visitors are brought to instances, nor call the API server.
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
)

// pageFiles are the pages and what they need. Style and scripts are inlined, so that
// a page loads nothing else.
//
//go:embed assets
var pageFiles embed.FS

// These never change. The files are embedded, so an error in one is found by any test.
var (
	launchTemplate   = parsePage("launch.html")
	progressTemplate = parsePage("progress.html")
	openTemplate     = parsePage("open.html")
	noticeTemplate   = parsePage("notice.html")
	sessionTemplate  = parsePage("session.html")
	startTemplate    = parsePage("start.html")
	adminTemplate    = parsePage("admin.html")

	loadPolicy = contentSecurityPolicy()
)

// launchView is what the launch page shows.
type launchView struct {
	Title    string
	Template string
	Name     string // the template's title; "" if it has none
	Path     string // the deep link
	Button   string
	Has      bool   // the visitor has an instance of the template
	Back     string // its address; "" if the page must not show it
	Session  string // that of its session page

	Description string // of the template
}

// openView is what the page shows that leads from a launch to the instance.
type openView struct {
	Title    string
	Template string
	Address  string // of the instance, with the deep link
}

// neverFramed keeps a page out of all frames.
const neverFramed = "'none'"

// framedBy returns who may show a page in a frame, in the words of the directive
// frame-ancestors: our own origin, where the instances are too, and the given ones.
func framedBy(origins []string) string {
	return strings.Join(append([]string{"'self'"}, origins...), " ")
}

// writePage writes a page. ancestors is neverFramed, or what framedBy returns. sources are
// the hosts besides the page's own that its script asks. The page is rendered before
// anything is sent. After that, writing fails only when the client has gone, so that error
// is ignored.
func writePage(w http.ResponseWriter, code int, page *template.Template, view any, ancestors string, sources ...string) {
	var body bytes.Buffer
	if err := page.Execute(&body, view); err != nil { // impossible: tests render every view
		panic(err)
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	connect := strings.Join(append([]string{"connect-src 'self'"}, sources...), " ")
	h.Set("Content-Security-Policy", loadPolicy+"; "+connect+"; frame-ancestors "+ancestors)
	h.Set("X-Content-Type-Options", "nosniff")
	setOwnHeaders(h)
	w.WriteHeader(code)
	_, _ = body.WriteTo(w)
}

// unusedFeatures is a Permissions Policy (W3C) that turns off the browser's features that
// ask a visitor for leave. Our pages use none, and the question would name our origin.
const unusedFeatures = "camera=(), clipboard-read=(), display-capture=(), geolocation=(), hid=(), " +
	"microphone=(), midi=(), payment=(), publickey-credentials-get=(), serial=(), usb=()"

// Redirect answers a request of any method with the address at which the same request is
// answered (RFC 9110, section 15.4.8).
func Redirect(w http.ResponseWriter, r *http.Request, address string) {
	setOwnHeaders(w.Header())
	http.Redirect(w, r, address, http.StatusTemporaryRedirect)
}

// setOwnHeaders sets what every answer of ours has, and no answer of an instance.
//
// The id in an address is all that guards an instance, so no Referer header may carry it.
// The policy no-referrer would do so too, but it makes the Origin of a form "null", and
// then a launch from our own page looks like one from another site.
//
// Pages of instances and of other sites run code that we do not trust. They cannot keep a
// hold on a window that shows one of our pages (COOP), nor load our answers as images,
// scripts or the like (CORP); see sections 7.1.3 of the HTML standard and 3.6 of Fetch.
func setOwnHeaders(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "strict-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", unusedFeatures)
}

// parsePage combines a page with the layout.
func parsePage(name string) *template.Template {
	return template.Must(template.New("layout.html").Funcs(template.FuncMap{
		"pathEscape": url.PathEscape,
		"style":      func(name string) template.CSS { return template.CSS(pageFile(name)) },
		"script":     func(name string) template.JS { return template.JS(pageFile(name)) },
	}).ParseFS(pageFiles, "assets/layout.html", "assets/"+name))
}

func pageFile(name string) string {
	data, err := pageFiles.ReadFile(path.Join("assets", name))
	if err != nil { // impossible: it is embedded
		panic(err)
	}
	return string(data)
}

// contentSecurityPolicy allows the pages exactly the style and the scripts that are
// embedded, by their hashes. Who may frame a page, and whom it asks, differs from page to
// page.
func contentSecurityPolicy() string {
	hash := func(name string) string {
		sum := sha256.Sum256([]byte(pageFile(name)))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	return strings.Join([]string{
		"default-src 'none'",
		fmt.Sprintf("style-src %s %s", hash("style.css"), hash("admin.css")),
		fmt.Sprintf("script-src %s %s %s %s %s",
			hash("launch.js"), hash("progress.js"), hash("notice.js"), hash("session.js"), hash("admin.js")),
		"img-src data:", // the icon, which is empty
		"form-action 'self'",
		"base-uri 'none'",
	}, "; ")
}
