// Package conformance compares the proxy with no proxy: it sends the same bytes to an
// application directly and through the proxy, and compares what the application and
// the client get. Everything that may differ is in one table with its reasons, which
// [Differences] returns.
//
// It needs a [Target], which can be in the test's process or on a cluster.
package conformance

import (
	"slices"
	"strings"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/rawapp"
)

// Target is a proxy and the application behind it.
type Target struct {
	// Direct and Proxy are the addresses of the application and of the proxy.
	Direct, Proxy string
	// Base is the path of the instance, /user/<id>.
	Base string
	// Control puts scripts into the application.
	Control *rawapp.Client
	// APIKey is a key that must not reach the application.
	APIKey string
}

// act is one thing that a client does. Exactly one field is set.
type act struct {
	write      string // "{raw}" is replaced by the path of the case's script
	repeat     int    // how many times write is written; 0 means once
	untilHeard bool   // stops to repeat once something has arrived
	await      string // waits until this text has arrived
	open       string // opens a gate of the application
	closeWrite bool   // ends the sending side
	gone       bool   // closes the connection; the case ends
}

// test is one case.
type test struct {
	name string
	// client is what the client does. If it is empty, the client writes request.
	client  []act
	request string
	// methods are those of the requests that get an answer. nil means one answer, to
	// the method that request begins with.
	methods []string
	// app is what the application does.
	app []rawapp.Step
	// check judges what came through the proxy, where a comparison would be wrong. nil
	// compares it with what came directly.
	check func(o outcome) error
	// mayClose says that the proxy may close a connection that the application keeps.
	mayClose bool
	// leaves says that the client closes the connection once it has the answers, although
	// the proxy may have announced to do so.
	leaves bool
	// bodyMayBeCut says that the application does not read the whole body, so
	// that how much of it arrives is chance.
	bodyMayBeCut bool
}

// acts returns what the client does.
func (c *test) acts() []act {
	if len(c.client) > 0 {
		return c.client
	}
	return []act{{write: c.request}}
}

// wanted returns the methods of the requests that get an answer.
func (c *test) wanted() []string {
	if c.methods != nil {
		return c.methods
	}
	for _, a := range c.acts() {
		if a.write != "" {
			method, _, _ := strings.Cut(a.write, " ")
			return []string{method}
		}
	}
	return nil
}

// outcome is what came of a case.
type outcome struct {
	answers []message // interim ones too
	ended   ending    // after the last answer
	// kept says that the connection answered another request after the case.
	kept bool
	seen []rawapp.Record
	raw  []byte // everything that the client has got
}

// final returns the last answer that is not interim, or an empty one.
func (o *outcome) final() *message {
	for i := len(o.answers) - 1; i >= 0; i-- {
		if !o.answers[i].interim() {
			return &o.answers[i]
		}
	}
	return &message{}
}

// get is a request with the usual fields, for a path below the case's script.
func get(rest string, fields ...string) string { return request("GET", rest, fields...) }

// request is a request without a body.
func request(method, rest string, fields ...string) string {
	lines := append([]string{method + " {raw}" + rest + " HTTP/1.1", "Host: hub.example"}, fields...)
	return strings.Join(lines, "\r\n") + "\r\n\r\n"
}

// answer is an application's answer with fields, of which Content-Type is one.
func answer(status, body string, fields ...string) string {
	if slices.ContainsFunc(fields, func(f string) bool { return strings.HasPrefix(f, "Content-Type:") }) {
		return bare(status, body, fields...)
	}
	return bare(status, body, append([]string{"Content-Type: text/plain"}, fields...)...)
}

// bare is an application's answer with exactly these fields.
func bare(status, body string, fields ...string) string {
	lines := append([]string{"HTTP/1.1 " + status}, fields...)
	return strings.Join(lines, "\r\n") + "\r\n\r\n" + body
}

// ok is an answer of the application's own, for cases that are about the request.
func ok() rawapp.Step {
	return rawapp.Send(answer("200 OK", "ok", "Content-Type: text/plain", "Content-Length: 2"))
}

// whole is what an application does that reads the request and then answers.
func whole() []rawapp.Step { return []rawapp.Step{rawapp.Read(), ok()} }

// sends is what an application does that answers with these bytes.
func sends(text string) []rawapp.Step { return []rawapp.Step{rawapp.Send(text)} }
