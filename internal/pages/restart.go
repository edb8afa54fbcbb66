package pages

import (
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

const (
	// restartCookiePrefix and an instance's id are the name of the cookie that holds
	// how many restarts of the instance the visitor has been told of. With the id in its
	// name, other instances, which share the origin, cannot forge it. An application
	// that forges its own cookie only hides the notice about itself.
	restartCookiePrefix = "binder-restarts-"
	// restartParameter of an address says the same for this one request. It lets
	// visitors go on whose browsers keep no cookies, such as in a frame of another site.
	restartParameter = "binder-restarts"
)

// RestartNotice tells a visitor who comes back to a deployed instance that its container
// was restarted since, once for each restart. It answers only a GET by which a browser
// loads a page. A visitor without the cookie has been told of no restart, so somebody who
// comes for the first time is told of earlier ones too: nobody knows that he is new.
//
// If it has not answered, it returns the request for the application, which does not have
// our parameter. RemoveRestartCookie removes the cookie.
func (s *Site) RestartNotice(w http.ResponseWriter, r *http.Request, inst instance.Instance, frameAncestors []string) (forward *http.Request, answered bool) {
	if inst.Restarts == 0 || !isPageLoad(r) {
		return r, false
	}
	cookie, err := r.Cookie(restartCookiePrefix + inst.ID)
	told := err == nil && parseRestarts(cookie.Value) >= inst.Restarts
	path := pathAsSent(r)
	query, parameter := cutRestarts(r.URL.RawQuery)
	switch {
	case told && parameter == "":
		return r, false
	case told: // the parameter has done its work; the application's scripts must not see it
		setOwnHeaders(w.Header())
		w.Header().Set("Location", withQuery(path, query))
		w.WriteHeader(http.StatusSeeOther)
		return nil, true
	case parseRestarts(parameter) >= inst.Restarts: // the browser keeps no cookies
		changed, address := r.WithContext(r.Context()), *r.URL
		address.RawQuery = query
		changed.URL, changed.RequestURI = &address, withQuery(path, query)
		return changed, false
	}
	http.SetCookie(w, &http.Cookie{
		Name: restartCookiePrefix + inst.ID, Value: strconv.Itoa(int(inst.Restarts)), Path: instance.BaseURL(inst.ID),
		HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
	notice := restartedNotice(inst)
	notice.FrameAncestors = frameAncestors
	notice.Link = withQuery(path, strings.TrimPrefix(fmt.Sprintf("%s&%s=%d", query, restartParameter, inst.Restarts), "&"))
	s.Serve(w, r, notice)
	return nil, true
}

// isPageLoad reports whether a browser is going to show the answer as a page of its own
// or in a frame of another site. A request by a script, for a part of a page or for a
// page that may never be shown does not count. Browsers tell by Fetch Metadata, but not over
// plain HTTP; there only the loading of pages asks to upgrade insecure requests.
func isPageLoad(r *http.Request) bool {
	h := r.Header
	if r.Method != http.MethodGet || !acceptsHTML(r) || h.Get("Upgrade") != "" ||
		strings.Contains(h.Get("Sec-Purpose")+h.Get("Purpose")+h.Get("X-Moz"), "prefetch") {
		return false
	}
	switch h.Get("Sec-Fetch-Mode") {
	case "":
		return h.Get("Upgrade-Insecure-Requests") == "1"
	case "navigate":
		dest := h.Get("Sec-Fetch-Dest")
		// A frame within the application has no place for the notice.
		return dest == "document" || (dest == "iframe" || dest == "frame") && h.Get("Sec-Fetch-Site") != "same-origin"
	}
	return false
}

// parseRestarts reads what a browser sends; -1 if it is not a number of restarts.
func parseRestarts(text string) int32 {
	count, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return -1
	}
	return int32(count)
}

// cutRestarts cuts our parameter out of a query, and leaves all other bytes as they are.
func cutRestarts(query string) (rest, value string) {
	var kept []string
	for pair := range strings.SplitSeq(query, "&") {
		if given, ours := strings.CutPrefix(pair, restartParameter+"="); ours && parseRestarts(given) >= 0 {
			value = given
			continue
		}
		kept = append(kept, pair)
	}
	return strings.Join(kept, "&"), value
}

func withQuery(path, query string) string {
	if query == "" {
		return path
	}
	return path + "?" + query
}

// pathAsSent returns the path of a request in the bytes that the browser sent.
func pathAsSent(r *http.Request) string {
	if !strings.HasPrefix(r.RequestURI, "/") { // the absolute form (RFC 9112, section 3.2.2)
		return r.URL.EscapedPath()
	}
	path, _, _ := strings.Cut(r.RequestURI, "?")
	return path
}

// RemoveRestartCookie removes our cookie from the header of a request for the
// application of an instance. It leaves all other bytes of its Cookie fields as they are.
func RemoveRestartCookie(h http.Header, id string) {
	const field = "Cookie"
	name := restartCookiePrefix + id
	isOurs := func(pair string) bool {
		given, _, _ := strings.Cut(pair, "=")
		return textproto.TrimString(given) == name
	}
	var lines []string
	changed := false
	for _, line := range h[field] {
		pairs := strings.Split(line, ";")
		if others := slices.DeleteFunc(slices.Clone(pairs), isOurs); len(others) < len(pairs) {
			line, changed = textproto.TrimString(strings.Join(others, ";")), true
		}
		if line != "" {
			lines = append(lines, line)
		}
	}
	switch {
	case !changed:
	case len(lines) == 0:
		delete(h, field)
	default:
		h[field] = lines
	}
}

// restartedNotice says that an instance's container was restarted, how often, and why.
// RestartReason is in our own words.
func restartedNotice(inst instance.Instance) Notice {
	n := Notice{
		Code: http.StatusOK, Plain: "This instance was restarted.",
		Title:    say("%s was restarted", called(inst.Template)),
		LinkText: say("Go on"),
	}
	often := say("It was started again, once.")
	if inst.Restarts > 1 {
		often = say("It was started again, %d times so far.", inst.Restarts)
	}
	ended := say("The application in this instance ended.")
	if inst.RestartReason != "" {
		ended = say("The application in this instance ended (%s).", quote(inst.RestartReason))
	}
	n.Text = []phrase{
		ended, often,
		say("What was running in it is gone. So are files that you made or changed in it, unless this kind of instance keeps them in a volume."),
	}
	return n
}
