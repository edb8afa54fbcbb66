package pages

import (
	"net/http"
	"strconv"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// Notice is an answer that explains itself: a page for browsers, a line of text for
// other clients.
type Notice struct {
	// Code is the HTTP status code.
	Code int
	// RetryAfter is when the same request can succeed; 0 if trying again is useless.
	RetryAfter time.Duration
	// Plain is the line of text.
	Plain string
	// Title is the heading of the page, and Text are sentences that explain what happened.
	Title phrase
	Text  []phrase
	// Reason is the failure or the end in one word, for who reports it. Message is a
	// further detail, in plain words.
	Reason, Message string
	// Output is what a container that failed said last, in lines.
	Output string
	// When is the time at which the instance ended; zero if it is not known.
	When time.Time
	// Template is what the page's button launches; "" for no button. Path is the deep
	// link that the new instance opens at. Button is the button's text.
	Template, Path string
	Button         phrase
	// LaunchPage is the address of the launch page, if it is at another host than this
	// page; "" if there is none. Then a link that leads there takes the button's place:
	// another host's form would look like one of another site.
	LaunchPage string
	// Link is an address that the page leads to; "" for none. LinkText is its text.
	Link     string
	LinkText phrase
	// FrameAncestors are the origins whose pages may show this one in a frame, besides
	// our own.
	FrameAncestors []string

	// again says that the page's button is for the same launch once more, which can succeed
	// after RetryAfter: then a script presses it.
	again bool
	// asked says that the notice answers a GET, which loading the page again repeats.
	asked bool
	// unframed keeps the page out of all frames.
	unframed bool
	// progress, if it is not nil, makes the page that shows the progress of a launch,
	// in place of the fields from Title on.
	progress *progressView
}

// Serve writes a notice: a page, or plain text to clients that do not accept HTML.
func (s *Site) Serve(w http.ResponseWriter, r *http.Request, n Notice) {
	if !acceptsHTML(r) {
		n.ServePlain(w)
		return
	}
	n.setRetryAfter(w)
	n.asked = r.Method == http.MethodGet
	ancestors := framedBy(n.FrameAncestors)
	if n.unframed {
		ancestors = neverFramed
	}
	if n.progress != nil {
		s.write(w, r, n.Code, progressPage, n.progress.withUsual(), ancestors, n.progress.hosts...)
		return
	}
	s.write(w, r, n.Code, noticePage, n, ancestors)
}

// ServeNoTemplate answers a link to a repository from which nothing can be launched, and says
// why. No frame shows the page.
func (s *Site) ServeNoTemplate(w http.ResponseWriter, r *http.Request, repository string, answer *protocol.Error) {
	n := noTemplateNotice(repository, answer)
	n.unframed = true
	s.Serve(w, r, n)
}

// Retry returns after how many seconds the page launches by itself; 0 for never. Only what has
// launched does: a link launches nothing.
func (n Notice) Retry() int {
	if !n.again || n.asked || n.Template == "" {
		return 0
	}
	return int(n.RetryAfter.Seconds())
}

// Reload returns after how many seconds the page loads again by itself; 0 for never.
func (n Notice) Reload() int {
	if !n.asked || n.Template != "" && !n.again {
		return 0
	}
	return int(n.RetryAfter.Seconds())
}

// RetryWords returns the time of Retry as people write it.
func (n Notice) RetryWords() phrase { return inWords(roughly(n.RetryAfter)) }

// HasEnded reports whether it is known when the instance ended.
func (n Notice) HasEnded() bool { return !n.When.IsZero() }

// ServePlain writes the plain text.
func (n Notice) ServePlain(w http.ResponseWriter) {
	n.setRetryAfter(w)
	setOwnHeaders(w.Header())
	http.Error(w, n.Plain, n.Code)
}

func (n Notice) setRetryAfter(w http.ResponseWriter) {
	if n.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(n.RetryAfter.Seconds())))
	}
}

// acceptsHTML reports whether a client asks for a page. Browsers name HTML only when
// they are going to show it, and not for what a page loads.
func acceptsHTML(r *http.Request) bool {
	return protocol.Accepts(r, "text/html")
}
