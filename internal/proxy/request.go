package proxy

import (
	"cmp"
	"context"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/binder-project/binder-deploy-kubernetes/internal/pages"
	"github.com/binder-project/binder-deploy-kubernetes/internal/upstream"
)

// request turns a visitor's request into the one that the application gets.
func (v *visit) request() *upstream.Request {
	r := v.r
	path, query := splitTarget(r)
	req := &upstream.Request{
		Method: r.Method, Target: strings.TrimPrefix(path, v.mapping.prefix) + query, Host: r.Host, Header: v.requestHeader(r, v.mapping),
		ContentLength: r.ContentLength, Trailer: func() http.Header { return trailerOf(r) },
	}
	pages.RemoveRestartCookie(req.Header, v.inst.ID)
	v.confineCookies(req.Header)
	if !v.mapping.fromElsewhere(r.Header) {
		v.inst.Token.Set(req.Header)
	}
	if r.ContentLength == 0 && r.Header.Get("Content-Length") == "" {
		req.ContentLength = -1
	}
	if v.body != nil {
		req.Body = v.body
		req.Continue = v.continueFunc()
	}
	if r.ProtoAtLeast(1, 1) { // others do not know interim answers (RFC 9110, section 15.2)
		req.Inform = v.inform
	}
	return req
}

// requestHeader returns the header fields that the application gets.
func (p *Proxy) requestHeader(r *http.Request, m mapping) http.Header {
	h := maps.Clone(r.Header)
	protocol := upgradeOf(h)
	removeConnectionFields(h)
	if protocol != "" && (r.Body == nil || r.Body == http.NoBody) {
		h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{protocol}
	}
	if hasToken(r.Header["Te"], "trailers") {
		h["Te"] = []string{"trailers"}
	}
	delete(h, "Content-Length")
	if !r.ProtoAtLeast(1, 1) {
		delete(h, "Expect") // it means nothing in HTTP/1.0 (RFC 9110, section 10.1.1)
	}
	setForwarded(h, r, m)
	// Applications use this header for tokens of their own. The API key is not theirs.
	if slices.ContainsFunc(h["Authorization"], p.deps.IsAPIKey) {
		delete(h, "Authorization")
	}
	confineReferer(h, m)
	confineOrigin(h, m)
	p.shareOrigin(h, r, m)
	if destination, ok := h["Destination"]; ok && len(destination) == 1 {
		h["Destination"] = []string{m.destination(destination[0])}
	}
	return h
}

// setForwarded tells the application who asked, and how. The Host stays the
// browser's, so that the application's origin check works. The host and scheme
// that an ingress in front of this service reported are kept: only the ingress
// knows them. A visitor can forge them, but only towards an instance whose id the
// visitor knows.
func setForwarded(h http.Header, r *http.Request, m mapping) {
	delete(h, "Forwarded")
	if client, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		h["X-Forwarded-For"] = []string{strings.Join(append(slices.Clone(r.Header["X-Forwarded-For"]), client), ", ")}
	}
	h["X-Forwarded-Host"] = []string{cmp.Or(r.Header.Get("X-Forwarded-Host"), r.Host)}
	h["X-Forwarded-Proto"] = []string{cmp.Or(r.Header.Get("X-Forwarded-Proto"), "http")}
	delete(h, "X-Forwarded-Prefix")
	if m.prefix != "" {
		h["X-Forwarded-Prefix"] = []string{m.prefix}
	}
}

// continueFunc returns what a body waits for that the client announces with "Expect:
// 100-continue": until the client sends it anyway. Then the client gets its 100. It is nil
// for all other bodies, for HTTP/1.0, and where the server cannot watch the client's
// connection.
func (v *visit) continueFunc() func(context.Context) bool {
	client := clientConnOf(v.r)
	if client == nil || !v.r.ProtoAtLeast(1, 1) || !hasToken(v.r.Header["Expect"], "100-continue") {
		return nil
	}
	return func(ctx context.Context) bool {
		began := client.awaitBody(ctx)
		if began {
			v.sayContinue()
		}
		return began
	}
}

// trailerOf returns the trailer fields of a request, but those that are not allowed there
// (RFC 9110, section 6.5.1): what frames or routes a message, or proves who sent it.
func trailerOf(r *http.Request) http.Header {
	h := maps.Clone(r.Trailer)
	removeConnectionFields(h)
	for _, name := range []string{"Authorization", "Content-Length", "Cookie", "Host"} {
		delete(h, name)
	}
	return h
}

// upgradeOf returns the protocol that a message wants to change to, or "".
func upgradeOf(h http.Header) string {
	if !hasToken(h["Connection"], "upgrade") {
		return ""
	}
	return h.Get("Upgrade")
}

// removeConnectionFields removes the fields that are meant for one connection only:
// those that Connection names, and those that have always been (RFC 9110, section
// 7.6.1).
func removeConnectionFields(h http.Header) {
	for _, value := range h["Connection"] {
		for name := range strings.SplitSeq(value, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range []string{
		"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade",
	} {
		delete(h, name)
	}
}

// hasToken reports whether a field that is a list of tokens has one, in any case.
func hasToken(values []string, token string) bool {
	for _, value := range values {
		for each := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.TrimSpace(each), token) {
				return true
			}
		}
	}
	return false
}
