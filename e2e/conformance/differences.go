package conformance

import (
	"net/http"
	"slices"
	"strings"
	"sync"
)

// Difference is one thing that may differ between a message that went through the
// proxy and one that did not.
type Difference struct {
	// To is who gets the message: "client" or "application".
	To string
	// What the proxy changes.
	What string
	// Why it may.
	Why string
	// Source is where that is said.
	Source string

	// level changes both messages so that the difference is gone. It reports whether
	// there was one.
	level func(t Target, direct, proxied *message) bool
}

// Differences returns the table of all allowed differences. Everything else must be
// the same, byte for byte.
func Differences() []Difference {
	return append(answerDifferences(), requestDifferences()...)
}

func answerDifferences() []Difference {
	const to = "client"
	return []Difference{
		{to, "the version is the highest that proxy and client share", "the version is that of the sender, not of the content", "RFC 9110, section 2.5", levelVersion},
		{to, "the reason phrase", "it has no meaning, and a client should ignore it", "RFC 9112, section 4", levelReason},
		{to, "the case of field names", "names are case-insensitive", "RFC 9110, section 5.1", levelCase},
		{to, "the order of fields with different names", "the order has no meaning; that of equal names is kept", "RFC 9110, section 5.3", levelOrder},
		{to, "Connection, the fields it names, Keep-Alive, Proxy-Authenticate, Proxy-Connection, TE, Upgrade", "they are for one connection", "RFC 9110, sections 7.6.1 and 11.7.1", levelConnection},
		{to, "Transfer-Encoding and Content-Length of a body with no length in the application's answer", "each connection has its own framing", "RFC 9112, sections 6 and 7.1", levelFraming},
		{to, "Content-Length of an answer that cannot have a body", "a 1xx, 204 or 205 must not have one", "RFC 9110, sections 8.6 and 15.3.6", levelForbiddenLength},
		{to, "Content-Type and Content-Length of a 304", "the client has them: a 304 need not repeat what is known of the content", "RFC 9110, sections 8.6 and 15.4.5", levelNotModified},
		{to, "several equal Content-Length fields become one", "a proxy must merge them or refuse", "RFC 9110, section 8.6", levelEqualLengths},
		{to, "Date is added", "a recipient with a clock adds a missing Date", "RFC 9110, section 6.6.1", levelDate},
		{to, "Vary: Origin is added where the proxy answers for pages of other origins", "caches must keep apart what depends on the asker", "Fetch, section 3.2.5", levelVary},
		{to, "the Trailer field", "it is a hint about the trailers of one connection; the trailers themselves are the same", "RFC 9110, section 6.6.2", levelTrailer},
		{to, "fields that act on the whole origin are removed", "all instances share one origin", "docs/proxy.md", levelFarReaching},
		{to, "the path of a cookie is the instance's", "all instances share one origin", "RFC 6265, section 8.5", levelCookiePath},
		{to, "Service-Worker-Allowed is the instance's path", "all instances share one origin", "Service Workers, section 6.3", levelServiceWorker},
	}
}

func requestDifferences() []Difference {
	const to = "application"
	return []Difference{
		{to, "the version is HTTP/1.1", "the version is that of the sender, not of the content", "RFC 9110, section 2.5", levelVersionOfRequest},
		{to, "bytes that a path cannot have are escaped", "a request target holds only what the grammar allows", "RFC 3986, section 2.1", levelEscapes},
		{to, "the absolute form becomes the origin form, and Host that of the target", "the absolute form is for proxies that the client has chosen", "RFC 9112, sections 3.2.1 and 3.2.2", levelAbsolute},
		{to, "the case of field names", "names are case-insensitive", "RFC 9110, section 5.1", levelCase},
		{to, "the order of fields with different names", "the order has no meaning; that of equal names is kept", "RFC 9110, section 5.3", levelOrder},
		{to, "Connection, the fields it names, Keep-Alive, Proxy-Authorization, Proxy-Connection, TE, Upgrade", "they are for one connection", "RFC 9110, sections 7.6.1 and 11.7.2", levelConnection},
		{to, "chunked or Content-Length", "each connection has its own framing", "RFC 9112, sections 6 and 7.1", levelFraming},
		{to, "Content-Length: 0 of a request without a body", "both say the same", "RFC 9110, section 8.6", levelEmptyLength},
		{to, "the Trailer field", "it is a hint about the trailers of one connection; the trailers themselves are the same", "RFC 9110, section 6.6.2", levelTrailer},
		{to, "X-Forwarded-For, -Host, -Proto and -Prefix are set, and Forwarded is removed", "the application learns who asked, and how", "docs/proxy.md", levelForwarded},
		{to, "a Referer of another address is cut to its origin", "the address of an instance is secret", "RFC 9110, section 17.9", levelReferer},
		{to, "an Authorization with the API key is removed", "the key is not the application's", "docs/proxy.md", levelAPIKey},
	}
}

// Counter counts how often each difference was met.
type Counter struct {
	mu    sync.Mutex
	count map[string]int
}

// NewCounter returns a counter at zero.
func NewCounter() *Counter { return &Counter{count: map[string]int{}} }

// Count returns how often a difference was met.
func (c *Counter) Count(d Difference) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count[d.To+d.What]
}

func (c *Counter) add(d Difference) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count[d.To+d.What]++
}

// level applies a table to a pair of messages.
func level(table []Difference, t Target, direct, proxied *message, used *Counter) {
	for _, d := range table {
		if d.level(t, direct, proxied) {
			used.add(d)
		}
	}
}

func levelVersion(_ Target, direct, proxied *message) bool {
	one, rest, _ := strings.Cut(direct.start, " ")
	other, _, _ := strings.Cut(proxied.start, " ")
	if one == other || one != "HTTP/1.0" && one != "HTTP/1.1" || other != "HTTP/1.0" && other != "HTTP/1.1" {
		return false
	}
	direct.start = other + " " + rest
	return true
}

func levelReason(_ Target, direct, proxied *message) bool {
	if direct.start == proxied.start {
		return false
	}
	for _, m := range []*message{direct, proxied} {
		if parts := strings.SplitN(m.start, " ", 3); len(parts) > 1 {
			m.start = parts[0] + " " + parts[1]
		}
	}
	return true
}

func levelCase(_ Target, direct, proxied *message) (met bool) {
	for _, list := range [][]field{direct.fields, proxied.fields, direct.trailers, proxied.trailers} {
		for i := range list {
			canonical := http.CanonicalHeaderKey(list[i].name)
			met = met || canonical != list[i].name
			list[i].name = canonical
		}
	}
	return met
}

func levelOrder(_ Target, direct, proxied *message) bool {
	before := slices.Clone(direct.fields)
	for _, list := range [][]field{direct.fields, proxied.fields, direct.trailers, proxied.trailers} {
		slices.SortStableFunc(list, func(a, b field) int { return strings.Compare(a.name, b.name) })
	}
	return !slices.Equal(before, direct.fields)
}

func levelConnection(_ Target, direct, proxied *message) (met bool) {
	names := []string{"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Upgrade"}
	if direct.code() == 101 {
		names = []string{"Keep-Alive", "Proxy-Connection"}
	}
	for _, value := range direct.values("Connection") {
		for name := range strings.SplitSeq(value, ",") {
			if name = strings.TrimSpace(name); !slices.ContainsFunc([]string{"Host", "Content-Length"}, field{name: name}.is) {
				names = append(names, name)
			}
		}
	}
	if upgrade := direct.values("Upgrade"); len(upgrade) > 0 && slices.Equal(upgrade, proxied.values("Upgrade")) {
		names = slices.DeleteFunc(names, field{name: "Upgrade"}.is)
	}
	for _, m := range []*message{direct, proxied} {
		met = m.remove(names...) || met
	}
	return met
}

// levelFraming leaves a Content-Length that the direct message has, so that it must
// be there in the other, too.
func levelFraming(_ Target, direct, proxied *message) bool {
	met := direct.framing != proxied.framing
	if len(direct.values("Content-Length")) == 0 || len(direct.values("Transfer-Encoding")) > 0 {
		for _, m := range []*message{direct, proxied} {
			met = m.remove("Content-Length", "Transfer-Encoding") || met
		}
		direct.framing, proxied.framing = "", ""
	}
	return met
}

func levelForbiddenLength(_ Target, direct, proxied *message) bool {
	code := direct.code()
	if code/100 != 1 && code != 204 && code != 205 || len(direct.body) > 0 || len(proxied.body) > 0 {
		return false
	}
	direct.framing, proxied.framing = "", ""
	met := direct.remove("Content-Length")
	// 205 is sent with an empty body.
	return code == 205 && proxied.remove("Content-Length", "Transfer-Encoding") || met
}

func levelNotModified(_ Target, direct, proxied *message) bool {
	if direct.code() != 304 {
		return false
	}
	direct.framing, proxied.framing = "", ""
	one, other := direct.remove("Content-Type", "Content-Length"), proxied.remove("Content-Type", "Content-Length")
	return one || other
}

func levelEqualLengths(_ Target, direct, _ *message) bool {
	values := direct.values("Content-Length")
	if len(values) < 2 || slices.ContainsFunc(values, func(v string) bool { return v != values[0] }) {
		return false
	}
	direct.remove("Content-Length")
	direct.fields = append(direct.fields, field{"Content-Length", values[0]})
	slices.SortStableFunc(direct.fields, func(a, b field) int { return strings.Compare(a.name, b.name) })
	return true
}

func levelDate(_ Target, direct, proxied *message) bool {
	return len(direct.values("Date")) == 0 && !direct.interim() && proxied.remove("Date")
}

// levelVary removes what the proxy adds: one field, after those of the application.
func levelVary(_ Target, direct, proxied *message) bool {
	after := proxied.values("Vary")
	if direct.interim() || len(after) != len(direct.values("Vary"))+1 || after[len(after)-1] != "Origin" {
		return false
	}
	i := len(proxied.fields) - 1
	for !proxied.fields[i].is("Vary") {
		i--
	}
	proxied.fields = slices.Delete(proxied.fields, i, i+1)
	return true
}

func levelTrailer(_ Target, direct, proxied *message) bool {
	one, other := direct.remove("Trailer"), proxied.remove("Trailer")
	return one || other
}

func levelFarReaching(_ Target, direct, proxied *message) (met bool) {
	for _, name := range []string{"Alt-Svc", "Clear-Site-Data", "Strict-Transport-Security"} {
		if len(proxied.values(name)) == 0 && direct.remove(name) {
			met = true
		}
	}
	return met
}

func levelCookiePath(t Target, direct, proxied *message) (met bool) {
	const field = "Set-Cookie"
	for i := range direct.fields {
		if f := &direct.fields[i]; f.name == field && strings.Contains(f.value, "; Path=/") && !strings.Contains(f.value, "; Path="+t.Base) {
			f.value, met = strings.Replace(f.value, "; Path=/", "; Path="+t.Base+"/", 1), true
		}
	}
	return met
}

func levelReferer(_ Target, direct, proxied *message) bool {
	one, other := direct.values("Referer"), proxied.values("Referer")
	if len(one) != 1 || len(other) != 1 || one[0] == other[0] || !strings.HasPrefix(one[0], other[0]) || strings.Count(other[0], "/") != 3 {
		return false
	}
	return direct.remove("Referer") && proxied.remove("Referer")
}

func levelServiceWorker(t Target, direct, proxied *message) bool {
	if got := proxied.values("Service-Worker-Allowed"); !slices.Equal(got, []string{t.Base + "/"}) || !direct.remove("Service-Worker-Allowed") {
		return false
	}
	return proxied.remove("Service-Worker-Allowed")
}

func levelVersionOfRequest(_ Target, direct, proxied *message) bool {
	rest, ok := strings.CutSuffix(direct.start, " HTTP/1.0")
	if !ok || !strings.HasSuffix(proxied.start, " HTTP/1.1") {
		return false
	}
	direct.start = rest + " HTTP/1.1"
	return true
}

// levelEscapes escapes in the direct request what RFC 3986 does not allow in a path.
// Square brackets may be escaped or not: browsers send them.
func levelEscapes(_ Target, direct, proxied *message) bool {
	before := direct.start
	for _, allowed := range []string{"[]", ""} {
		if direct.start = escapePath(before, allowed); direct.start == proxied.start {
			break
		}
	}
	return direct.start != before
}

func escapePath(start, allowed string) string {
	const always = "-._~!$&'()*+,;=:@/%?"
	first, last := strings.Index(start, " "), strings.LastIndex(start, " ")
	if first < 0 || first == last {
		return start
	}
	path, query, found := strings.Cut(start[first+1:last], "?")
	var escaped strings.Builder
	for i := range len(path) {
		c := path[i]
		if c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || strings.IndexByte(always+allowed, c) >= 0 {
			escaped.WriteByte(c)
			continue
		}
		escaped.WriteString("%" + strings.ToUpper(string("0123456789abcdef"[c>>4])+string("0123456789abcdef"[c&15])))
	}
	if found {
		escaped.WriteString("?" + query)
	}
	return start[:first+1] + escaped.String() + start[last:]
}

func levelAbsolute(_ Target, direct, proxied *message) bool {
	method, rest, _ := strings.Cut(direct.start, " ")
	after, ok := strings.CutPrefix(rest, "http://")
	if !ok || strings.Contains(proxied.start, "://") {
		return false
	}
	host, path, _ := strings.Cut(after, "/")
	direct.start = method + " /" + path
	direct.remove("Host")
	direct.fields = append(direct.fields, field{"Host", host})
	return true
}

// levelEmptyLength allows a Content-Length of 0 in one of the two.
func levelEmptyLength(_ Target, direct, proxied *message) bool {
	empty := func(m *message) bool { return slices.Equal(m.values("Content-Length"), []string{"0"}) }
	if len(direct.body) > 0 || len(proxied.body) > 0 || empty(direct) == empty(proxied) {
		return false
	}
	for _, m := range []*message{direct, proxied} {
		if empty(m) {
			m.remove("Content-Length")
		}
	}
	direct.framing, proxied.framing = "", ""
	return true
}

// levelForwarded removes what a client can send, too: the cases about that are
// checked by themselves.
func levelForwarded(_ Target, direct, proxied *message) bool {
	names := []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Prefix", "Forwarded", "X-Binder-Token"}
	direct.remove(names...)
	return proxied.remove(names...)
}

func levelAPIKey(t Target, direct, proxied *message) bool {
	if t.APIKey == "" || !strings.Contains(strings.Join(direct.values("Authorization"), " "), t.APIKey) || len(proxied.values("Authorization")) > 0 {
		return false
	}
	return direct.remove("Authorization")
}
