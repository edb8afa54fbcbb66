// Package pages is what people see on the public port besides their instances: the
// launch page, the progress of a launch, and notices that say why an instance cannot
// be reached. It also has the admin page, which is on the API's port.
//
// It must never know how visitors are brought to instances, nor call the API server.
package pages

import (
	"html/template"
	"net/http"
	"strings"
)

// launchView is what the launch page shows.
type launchView struct {
	Title    phrase
	Template string
	Name     string // the template's title; "" if it has none
	Path     string // the deep link
	Button   phrase
	Has      bool   // the visitor has an instance of the template
	Back     string // its address; "" if the page must not show it
	Session  string // that of its session page

	Description string       // of the template
	Icon        template.URL // the same; a data URL, or ""
}

// openView is what the page shows that leads from a launch to the instance.
type openView struct {
	Title    phrase
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
