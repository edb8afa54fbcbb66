package protocol

import (
	"cmp"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// ProgressEvent tells a waiting client one step of a launch. It is the data of a
// server-sent event. This stream is an addition to the Binder deploy protocol.
type ProgressEvent struct {
	// Phase is the instance's status.
	Phase instance.Status `json:"phase"`
	// Message is a sentence for people.
	Message string `json:"message"`
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
		event.Message, event.Location = cmp.Or(inst.Message, "Ready."), location
	}
	return event
}
