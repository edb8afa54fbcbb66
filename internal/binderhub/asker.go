package binderhub

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// verdict says what to do with a request to build, by what its header fields tell of the asker.
type verdict int

const (
	refused  verdict = iota // a page that may not launch could have sent it
	leads                   // a person opens the address: the launch page asks them
	admitted                // it may launch
)

// judge decides whether a request may launch. Those may: pages of this address, pages of the
// origins that are allowed to, and clients that are not browsers. A browser that opens the address
// in a window may not, whatever led it there: a link in a mail is opened, and an address that is
// being typed is fetched early, without a word from the person.
//
// Over HTTPS, browsers tell from where a request comes in fields that no page can change (Fetch
// Metadata). Over plain HTTP they send none of them, and a page can leave out Origin and
// Referer (fetch with the modes no-cors and no-referrer). But in the mode no-cors it cannot change
// the User-Agent, by which all browsers call themselves Mozilla.
func (b *BinderHub) judge(r *http.Request) verdict {
	asker, site, from := r.Header.Get("Origin"), r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Referer")
	may := false
	switch {
	case isPrefetch(r):
	case isNavigation(r):
		return leads
	case site == "none": // not from a page, and not from a window either
	case slices.Contains(b.deps.AllowOrigins, "*"):
		may = true
	case asker != "":
		may = slices.Contains(b.deps.AllowOrigins, asker) || asker == address(r, "")
	case site != "":
		may = site == "same-origin"
	case from != "":
		page, err := url.Parse(from)
		may = err == nil && page.Host == r.Host
	case strings.HasPrefix(r.UserAgent(), "Mozilla/"):
	default:
		// A client of this stream says so, and what follows links or loads pictures does not.
		may = protocol.Accepts(r, "text/event-stream")
	}
	if may {
		return admitted
	}
	return refused
}

// isPrefetch reports whether a browser asks for what a person may want next.
func isPrefetch(r *http.Request) bool {
	for _, field := range []string{"Sec-Purpose", "Purpose", "X-Moz"} {
		if purpose := r.Header.Get(field); strings.Contains(purpose, "prefetch") || strings.Contains(purpose, "prerender") {
			return true
		}
	}
	return false
}

// isNavigation reports whether a browser is going to show the answer. Over plain HTTP it does
// not say so, but asks for HTML, which it does for nothing else.
func isNavigation(r *http.Request) bool {
	mode := r.Header.Get("Sec-Fetch-Mode")
	return mode == "navigate" || mode == "" && protocol.Accepts(r, "text/html")
}
