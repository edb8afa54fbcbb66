package protocol

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

const (
	// keepAlivePeriod is how often a stream without news sends a comment, so that no
	// proxy on the way takes the connection for dead.
	keepAlivePeriod = 10 * time.Second
	// eventWriteTimeout bounds the write of one event. It ends the stream of a client
	// that does not read.
	eventWriteTimeout = 30 * time.Second
)

// keepAliveComment is a line that clients of server-sent events ignore.
const keepAliveComment = ":\n\n"

// AcceptsEvents reports whether a client asks for a stream of server-sent events.
func AcceptsEvents(r *http.Request) bool {
	return r.Method == http.MethodGet && Accepts(r, "text/event-stream")
}

// StreamEvents sends server-sent events (section 9.2 of the HTML standard) about an
// instance: one for its present state and one for each change. describe makes the
// events. The stream ends with the event that says how the launch ended: deployed,
// failed or deleted; if watch is true, with the one that says how the instance ended. It
// ends early when draining is done: the client then connects to another replica, which
// starts with the present state.
func StreamEvents(w http.ResponseWriter, r *http.Request, instances Awaiter, id string, watch bool,
	draining context.Context, describe func(instance.Instance) ProgressEvent) {
	ctx, end := BeginEvents(w, r, draining)
	defer end()
	last := instance.Status.Settled
	if watch {
		last = instance.Status.Over
	}
	_ = StreamChanges(ctx, w, instances, id, last, describe, encodeEvent) // the client has gone, or comes back
}

// StreamChanges sends an event for the present state of an instance, and one for each change
// of what describe says of it, until one with the last state was sent. What describe says can
// change with time: it is asked again each keepAlivePeriod. It is an error if the client has
// gone, if ctx is done, or if the instance is not known.
func StreamChanges[E comparable](ctx context.Context, w http.ResponseWriter, instances Awaiter, id string,
	last func(instance.Status) bool, describe func(instance.Instance) E, encode func(E) string) error {
	var sent E
	for {
		period, stop := context.WithTimeout(ctx, keepAlivePeriod)
		inst, known := instances.Await(period, id, func(inst instance.Instance, known bool) bool {
			return !known || describe(inst) != sent
		})
		stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !known {
			return errNotKnown
		}
		text := keepAliveComment
		if event := describe(inst); event != sent {
			text, sent = encode(event), event
		}
		if err := SendNow(w, text); err != nil {
			return err
		}
		if last(inst.Status) {
			return nil
		}
	}
}

// errNotKnown ends the stream of an instance that is not known any more.
var errNotKnown = errors.New("the instance is not known")

// KeepAlive sends comments, the first at once, until ctx is done or the client has gone.
func KeepAlive(ctx context.Context, w http.ResponseWriter) {
	send := func(text string) error { return SendNow(w, text) }
	if send(keepAliveComment) == nil {
		KeepAliveBy(ctx, send)
	}
}

// KeepAliveBy sends a comment each keepAlivePeriod by a function, until ctx is done or that fails.
func KeepAliveBy(ctx context.Context, send func(text string) error) {
	period := time.NewTicker(keepAlivePeriod)
	defer period.Stop()
	for {
		select {
		case <-period.C:
		case <-ctx.Done():
			return
		}
		if send(keepAliveComment) != nil {
			return
		}
	}
}

// statePause is the least time between two states of a stream.
const statePause = time.Second

// StreamState sends server-sent events named state: one with the present state, and one with
// each that is different, but no more than one each statePause. changed receives when the
// state may be different; it is also looked at each keepAlivePeriod, because some of it
// changes with time. The stream ends when the client goes, draining is done, or state
// returns no ok.
func StreamState(w http.ResponseWriter, r *http.Request, draining context.Context,
	changed <-chan struct{}, state func(context.Context) (data []byte, ok bool)) {
	ctx, end := BeginEvents(w, r, draining)
	defer end()
	var sent []byte
	for {
		data, ok := state(ctx)
		if !ok || ctx.Err() != nil {
			return
		}
		text := keepAliveComment
		if !bytes.Equal(data, sent) {
			text, sent = fmt.Sprintf("event: state\ndata: %s\n\n", data), data
		}
		if err := SendNow(w, text); err != nil {
			return
		}
		select {
		case <-time.After(statePause):
		case <-ctx.Done():
			return
		}
		select {
		case <-changed:
		case <-time.After(keepAlivePeriod - statePause):
		case <-ctx.Done():
			return
		}
	}
}

// BeginEvents begins an answer of server-sent events. ctx is done when it must end.
func BeginEvents(w http.ResponseWriter, r *http.Request, draining context.Context) (ctx context.Context, end func()) {
	ctx, cancel := context.WithCancel(r.Context())
	stop := context.AfterFunc(draining, cancel)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would hold the events back
	w.WriteHeader(http.StatusOK)
	return ctx, func() { stop(); cancel() }
}

// encodeEvent returns an event as it is sent.
func encodeEvent(event ProgressEvent) string {
	name := "progress"
	if event.warning {
		name = "warning"
	}
	data, err := json.Marshal(event)
	if err != nil { // impossible: its fields are strings
		panic(err)
	}
	return fmt.Sprintf("event: %s\ndata: %s\n\n", name, data)
}

// SendNow writes a text and flushes it. It gives up after eventWriteTimeout.
func SendNow(w http.ResponseWriter, text string) error {
	connection := http.NewResponseController(w)
	_ = connection.SetWriteDeadline(time.Now().Add(eventWriteTimeout)) // not every writer supports deadlines
	if _, err := fmt.Fprint(w, text); err != nil {
		return err
	}
	return connection.Flush()
}
