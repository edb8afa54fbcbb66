package protocol

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

const (
	// eventsPulse is how often a stream with nothing to tell shows that it is
	// alive, so that no proxy in between takes it for dead.
	eventsPulse = 10 * time.Second
	// EventsWriteTimeout is for one event: a client that does not read is let go.
	EventsWriteTimeout = 30 * time.Second
)

// ProgressEvent is one step of a launch, for who watches it.
type ProgressEvent struct {
	Phase    instance.Status `json:"phase"`
	Message  string          `json:"message"`
	Reason   string          `json:"reason,omitempty"`
	Location string          `json:"location,omitempty"`
}

// NewProgressEvent has always a message, for people read nothing else.
func NewProgressEvent(inst instance.Instance, location string) ProgressEvent {
	event := ProgressEvent{Phase: inst.Status, Message: inst.Message, Reason: inst.Reason}
	if inst.Status == instance.StatusDeployed {
		event.Message, event.Location = "ready", location
	}
	return event
}

// AcceptsEvents reports whether a client asks for a stream of events.
func AcceptsEvents(r *http.Request) bool {
	return r.Method == http.MethodGet &&
		strings.Contains(strings.ToLower(strings.Join(r.Header.Values("Accept"), ",")), "text/event-stream")
}

// StreamEvents sends an event for the present state of an instance and one for
// each change, as server-sent events, and ends with the one that settles the
// launch. It ends early when draining is done: the client connects anew, to a
// replica that stays, and gets the present state first.
func StreamEvents(w http.ResponseWriter, r *http.Request, instances Awaiter, id string,
	draining context.Context, describe func(instance.Instance) ProgressEvent) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(draining, cancel)()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would collect them
	w.WriteHeader(http.StatusOK)
	stream := http.NewResponseController(w)

	var sent ProgressEvent
	for {
		pulse, done := context.WithTimeout(ctx, eventsPulse)
		inst, known := instances.Await(pulse, id, func(inst instance.Instance, known bool) bool {
			return !known || describe(inst) != sent
		})
		done()
		if !known || ctx.Err() != nil {
			return
		}
		_ = stream.SetWriteDeadline(time.Now().Add(EventsWriteTimeout)) // not all writers have one
		line := ":\n\n"
		if event := describe(inst); event != sent {
			data, err := json.Marshal(event)
			if err != nil { // strings only
				panic(err)
			}
			line, sent = fmt.Sprintf("event: progress\ndata: %s\n\n", data), event
		}
		if _, err := fmt.Fprint(w, line); err != nil {
			return
		}
		if err := stream.Flush(); err != nil || instance.Settled(sent.Phase) {
			return
		}
	}
}
