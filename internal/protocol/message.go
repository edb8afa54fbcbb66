package protocol

import (
	"cmp"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// ProgressEvent tells a waiting client one step of a launch. It is the data of a
// server-sent event. This stream is an addition to the Binder deploy protocol.
type ProgressEvent struct {
	// Phase is the instance's status.
	Phase instance.Status `json:"phase"`
	// Message is a sentence for people.
	Message string `json:"message"`
	// Lang is the language of Message, if it is not that of the page which reads the stream:
	// only the pages set it.
	Lang string `json:"lang,omitempty"`
	// Reason says in one word why an instance failed or ended.
	Reason string `json:"reason,omitempty"`
	// Fault says who can mend a failure, or what delays a start.
	Fault instance.Fault `json:"fault,omitempty"`
	// Detail is the cluster's own text. NewProgressEvent leaves it out: only holders of
	// the API key may see it.
	Detail string `json:"detail,omitempty"`
	// Restarts is how often the application's container was restarted, and
	// RestartReason says why, the last time.
	Restarts      int32  `json:"restarts,omitempty"`
	RestartReason string `json:"restart-reason,omitempty"`
	// Location is where a deployed instance is, without a scheme.
	Location string `json:"location,omitempty"`
	// These are as in StatusResponse.
	LastActivity       string          `json:"last-activity,omitempty"`
	LastActivitySource instance.Source `json:"last-activity-source,omitempty"`
	CullAt             string          `json:"cull-at,omitempty"`

	// Step is which step of its start an instance is in. Only the page that shows them sets it.
	Step string `json:"step,omitempty"`

	warning bool // the name of the event is warning
}

// NewProgressEvent returns the event that describes an instance. location is sent
// only if the instance is deployed; "" leaves it out.
func NewProgressEvent(inst instance.Instance, location string) ProgressEvent {
	event := ProgressEvent{
		Phase: inst.Status, Message: inst.Message, Reason: inst.Reason, Fault: inst.Fault,
		Restarts: inst.Restarts, RestartReason: inst.RestartReason,
	}
	if inst.Status == instance.StatusDeployed {
		// A deployed instance may have no message, but people read nothing else of an event.
		event.Message, event.Location = cmp.Or(inst.Message, readyText), location
	}
	event.LastActivity, event.LastActivitySource, event.CullAt = activityOf(inst)
	return event
}

// Warnings say when clients are warned of the end of an instance.
type Warnings struct {
	Before time.Duration // the end; 0 turns them off
	Now    func() time.Time
}

// For returns the warnings of a client that watches, or none.
func (w Warnings) For(watch bool) Warnings {
	if !watch {
		w.Before = 0
	}
	return w
}

// Event returns an event about an instance, which is a warning if the instance is due to end
// within Before. One that is in use gets none, however short its cull timeout is: it is warned
// once half of the time since its last use is over.
func (w Warnings) Event(inst instance.Instance, location string) ProgressEvent {
	event := NewProgressEvent(inst, location)
	if message, due := w.Of(inst); due {
		event.Message, event.warning = message, true
	}
	return event
}

// Of returns the message of an instance, and whether it warns of its end.
func (w Warnings) Of(inst instance.Instance) (message string, warns bool) {
	if w.Before == 0 || inst.Status != instance.StatusDeployed || inst.CullAt.IsZero() {
		return inst.Message, false
	}
	since, message := inst.LastActivity, idleWarning
	if inst.Expires() {
		since, message = inst.Launched, ageWarning
	}
	before := min(w.Before, inst.CullAt.Sub(since)/2)
	if w.Now().Before(inst.CullAt.Add(-before)) {
		return inst.Message, false
	}
	return message, true
}
