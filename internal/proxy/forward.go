package proxy

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/pages"
	"github.com/binder-project/binder-deploy-kubernetes/internal/upstream"
)

// visit is one request of a visitor to an instance.
type visit struct {
	*Proxy
	w       http.ResponseWriter
	r       *http.Request
	control *http.ResponseController
	inst    instance.Instance
	mapping mapping
	visitor *visitor
	body    *requestBody // nil if the request has none
	left    bool         // a part of the body is not needed
	touch   func()
	began   time.Time

	interim  sync.Mutex // guards what is sent before the answer
	answered bool       // the answer has begun
	saidOn   bool       // 100 (Continue) was sent
}

// forward sends one request to the pod and streams both ways.
func (p *Proxy) forward(w http.ResponseWriter, r *http.Request, inst instance.Instance) {
	v := &visit{
		Proxy: p, w: w, r: r, control: http.NewResponseController(w),
		inst: inst, mapping: newMapping(r, inst).within(p.deps.Layout), visitor: watchVisitor(r, p.patience), touch: p.toucher(inst, r), began: p.now(),
	}
	defer v.visitor.release()
	defer v.dropRest()
	// Without full duplex, the server discards the rest of the request once the
	// application begins to answer. An error means HTTP/2, which always has it.
	_ = v.control.EnableFullDuplex()
	v.body = newRequestBody(r, v.control, p.deps.IdleTimeout, v.touch)
	if v.body != nil {
		v.body.passed = p.deps.Metrics.SentToInstance
	}
	x, err := p.pool.Start(v.visitor.ctx, inst.Address, v.request())
	if err != nil {
		v.closeAfterAnswer(v.body != nil)
		v.fail(err)
		return
	}
	defer x.Close()
	answer, err := x.Answer()
	v.beginAnswer()
	v.closeAfterAnswer(x.BodyLeft())
	switch {
	case err != nil:
		v.fail(err)
	case answer.StatusCode == http.StatusSwitchingProtocols:
		v.tunnel(x, answer)
	default:
		v.answer(x, answer)
	}
}

// beginAnswer ends the time of interim answers.
func (v *visit) beginAnswer() {
	v.interim.Lock()
	defer v.interim.Unlock()
	v.answered = true
}

// closeAfterAnswer closes the client's connection after the answer if a part of the
// request is left: that must not be taken for the next request.
func (v *visit) closeAfterAnswer(left bool) {
	if left {
		v.w.Header().Set("Connection", "close")
		v.left = true
	}
}

// dropRest ends the request. Without it, the server would wait for the rest of the body
// before it closes the connection.
func (v *visit) dropRest() {
	if v.left {
		v.body.Abandon()
	}
}

// fail answers for an application that has not answered.
func (v *visit) fail(err error) {
	var fromBody *upstream.BodyError
	switch {
	case errors.Is(err, errClientGone), errors.As(err, &fromBody) && isReset(err):
		v.abort(statusClientGone)
	case fromBody != nil && errors.Is(err, os.ErrDeadlineExceeded):
		v.refuse(v.w, v.r, v.inst.Template, pages.SlowBodyNotice()) // RFC 9110, section 15.5.9
	case fromBody != nil:
		// RFC 9112, sections 7.1 and 8: the request is incomplete or malformed.
		v.refuse(v.w, v.r, v.inst.Template, pages.BadBodyNotice())
	default:
		v.deps.Log.WarnContext(v.r.Context(), "the instance did not answer", "pod", instance.PodName(v.inst.ID), "template", v.inst.Template, "error", v.forLog(err))
		n := pages.NoAnswerNotice(v.inst)
		if errors.Is(err, upstream.ErrIdle) || errors.Is(err, os.ErrDeadlineExceeded) {
			n.Code = http.StatusGatewayTimeout // RFC 9110, section 15.6.5
		}
		v.refuse(v.w, v.r, v.inst.Template, n)
	}
}

// answer sends the application's answer to the client.
func (v *visit) answer(x *upstream.Exchange, answer *http.Response) {
	v.deps.Metrics.Answered(v.inst.Template, answer.StatusCode, v.now().Sub(v.began))
	if isWebSocket(v.r.Header) { // it was refused
		v.touch = func() {}
	}
	v.touch()
	h := v.w.Header()
	v.copyHeader(answer.Header)
	v.share(h, v.r)
	v.confine(answer.Trailer)                              // some recipients merge it into the header
	announced := slices.Collect(maps.Keys(answer.Trailer)) // RFC 9110, section 6.6.2
	for _, name := range announced {
		h.Add("Trailer", name)
	}
	v.w.WriteHeader(answer.StatusCode)
	v.copyBody(x)
	if len(answer.Trailer) > 0 {
		_ = v.control.Flush() // without it, net/http sends a short body with a length, which has no trailer
	}
	v.confine(answer.Trailer)
	for name, values := range answer.Trailer {
		if !slices.Contains(announced, name) {
			name = http.TrailerPrefix + name
		}
		h[name] = values
	}
}

// copyHeader adds the fields of an application's answer that are for the client.
func (v *visit) copyHeader(from http.Header) {
	v.confine(from)
	h := v.w.Header()
	maps.Copy(h, from)
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // net/http would guess one (RFC 9110, section 8.3)
	}
	if _, ok := h["Referrer-Policy"]; !ok && v.deps.Layout.Apart() {
		// The host has the id, and browsers tell it to other sites by default.
		h["Referrer-Policy"] = []string{"same-origin"}
	}
}

// confine changes the header of an application's answer, or of an interim one, to what
// the instance may tell a client.
func (v *visit) confine(h http.Header) {
	removeConnectionFields(h)
	if v.deps.Layout.Apart() {
		removeFarReaching(h, onOrigin)
	} else {
		removeFarReaching(h, onAnswer)
		limitServiceWorkers(h, v.inst.ID)
	}
	v.mapping.header(h)
	if cookies, ok := h["Set-Cookie"]; ok {
		for i, value := range cookies {
			cookies[i] = v.confineCookie(v.mapping, value)
		}
		h["Set-Cookie"] = slices.DeleteFunc(cookies, func(value string) bool { return value == "" })
	}
}

// copyBody sends the body of an answer. Each part is sent on as it comes. An answer
// that breaks off must not look complete to the client.
func (v *visit) copyBody(x *upstream.Exchange) {
	unsent := true // the head, for a start
	x.BeforeWait(func() {
		if unsent {
			_ = v.control.Flush() // the next write has the same error
			unsent = false
		}
	})
	buffer := v.buffers.Get()
	defer func() { v.buffers.Put(buffer) }()
	for {
		n, err := x.Read(buffer)
		if n > 0 {
			v.touch()
			if _, err := v.w.Write(buffer[:n]); err != nil {
				v.abort(statusClientGone)
			}
			v.deps.Metrics.SentToVisitor(n)
			v.visitor.answered()
			unsent = true
			buffer = v.buffers.Next(buffer, n)
		}
		switch {
		case errors.Is(err, io.EOF):
			return
		case errors.Is(err, errClientGone), errors.As(err, new(*upstream.BodyError)):
			v.abort(statusClientGone)
		case err != nil:
			v.deps.Log.WarnContext(v.r.Context(), "the instance broke off its answer", "pod", instance.PodName(v.inst.ID), "template", v.inst.Template, "error", v.forLog(err))
			v.abort(http.StatusBadGateway)
		}
	}
}

// forLog returns the text of an error, which can quote what an application has sent: bounded,
// and without the id.
func (v *visit) forLog(err error) string {
	return instance.Clip(strings.ReplaceAll(err.Error(), v.inst.ID, instance.PodName(v.inst.ID)))
}

// abort closes the client's connection before the end of an answer. The request is
// counted under the code.
func (v *visit) abort(code int) {
	if counted, ok := v.w.(interface{ Broke(code int) }); ok {
		counted.Broke(code)
	}
	if client := clientConnOf(v.r); client != nil && !v.r.ProtoAtLeast(1, 1) {
		client.tear() // the mere end of the connection is the end of such an answer
	}
	panic(http.ErrAbortHandler)
}

// inform sends an interim answer.
func (v *visit) inform(code int, header http.Header) {
	v.confine(header)
	v.interim.Lock()
	defer v.interim.Unlock()
	if code == http.StatusContinue && v.saidOn {
		return
	}
	v.saidOn = v.saidOn || code == http.StatusContinue
	h := v.w.Header()
	maps.Copy(h, header)
	v.w.WriteHeader(code)
	for name := range header { // the final answer has its own
		delete(h, name)
	}
}

// sayContinue sends 100 (Continue) to a client that has not waited for it, so that
// net/http does not send it in the middle of another interim answer.
func (v *visit) sayContinue() {
	v.interim.Lock()
	defer v.interim.Unlock()
	if !v.answered && !v.saidOn {
		v.saidOn = true
		v.w.WriteHeader(http.StatusContinue)
	}
}

// limitServiceWorkers keeps an application's service workers to its own path where all
// instances share one origin: a worker with a larger scope could read other instances'
// traffic. The header is replaced and not checked, because a scope can
// be written in many ways: /user/<id>/.. is another instance's path.
func limitServiceWorkers(header http.Header, id string) {
	if _, present := header["Service-Worker-Allowed"]; present {
		header.Set("Service-Worker-Allowed", instance.BaseURL(id))
	}
}
