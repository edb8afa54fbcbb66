package proxy

import (
	"net/http"
	"slices"
	"strings"
)

// anyOrigin in ShareWith stands for all origins.
const anyOrigin = "*"

// sharesWith reports whether pages of a request's origin may read what instances answer, by the
// CORS protocol of the Fetch standard. It is done here and not by the applications, so that
// one list of the operator's holds for all of them.
func (p *Proxy) sharesWith(r *http.Request) (asker string, shares bool) {
	origins := r.Header["Origin"]
	if len(origins) != 1 || origins[0] == "" {
		return "", false
	}
	if slices.Contains(p.deps.ShareWith, anyOrigin) {
		return anyOrigin, true
	}
	return origins[0], slices.Contains(p.deps.ShareWith, origins[0])
}

// share lets the page that asked read an answer with the header h, whatever the application
// says of that. Pages of no other origin are concerned. The page cannot send the visitor's
// cookies, nor read an answer to them: it brings the instance's token itself.
func (p *Proxy) share(h http.Header, r *http.Request) {
	if len(p.deps.ShareWith) == 0 {
		return
	}
	asker, shares := p.sharesWith(r)
	if asker != anyOrigin && !hasToken(h["Vary"], "Origin") {
		h.Add("Vary", "Origin") // also where nothing is shared: no cache may give that to an origin that may
	}
	if !shares {
		return
	}
	for name := range h {
		if strings.HasPrefix(name, "Access-Control-") {
			delete(h, name)
		}
	}
	h["Access-Control-Allow-Origin"] = []string{asker}
	h["Access-Control-Expose-Headers"] = []string{"*"}
}

// answerPreflight answers the question of a browser whether a page may send a request to an
// instance. It is no use of the instance, and the application may know nothing of CORS.
func (p *Proxy) answerPreflight(w http.ResponseWriter, r *http.Request) (answered bool) {
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	if _, shares := p.sharesWith(r); !shares {
		return false
	}
	h := w.Header()
	p.share(h, r)
	h["Access-Control-Allow-Methods"] = []string{"*"}
	h["Access-Control-Allow-Headers"] = []string{"*, Authorization"} // the star does not stand for this one
	h["Access-Control-Max-Age"] = []string{"600"}
	AnswerEarly(w, r, func() { w.WriteHeader(http.StatusNoContent) })
	return true
}

// shareOrigin makes a request of a page of another origin, which may use the instance, one that the
// application takes for its own: an application that compares the Origin with its Host, as
// Jupyter does for WebSockets, would refuse it. The visitor's cookies are taken from it, because that
// comparison was what kept others from using them. A page without an origin stays without.
func (p *Proxy) shareOrigin(h http.Header, r *http.Request, m mapping) {
	_, shares := p.sharesWith(r)
	if _, _, named := cutAuthority(h.Get("Origin")); !shares || !named || !m.fromElsewhere(r.Header) {
		return
	}
	scheme := "http"
	if strings.EqualFold(firstOf(h["X-Forwarded-Proto"][0]), "https") {
		scheme = "https"
	}
	h["Origin"] = []string{scheme + "://" + r.Host}
	delete(h, "Cookie")
}
