package proxy

import (
	"net/http"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// toucher returns the function to call when a request, or a part of its body or
// its answer, is use of an instance.
//
// An answer counts, and every later byte does; of a WebSocket only data frames. Only
// the application's answer makes a request count: a forgotten page keeps asking for
// what is broken. For the same reason a refused WebSocket does not count: a forgotten
// page keeps trying to open it.
func (p *Proxy) toucher(inst instance.Instance, r *http.Request) (touch func()) {
	if p.idle.match(inst, r) {
		return func() {}
	}
	source := instance.SourceHTTP
	if isWebSocket(r.Header) {
		source = instance.SourceWebSocket
	}
	return func() { p.deps.Touch(inst.ID, source) }
}

func anyByte(p []byte) bool { return len(p) > 0 }
