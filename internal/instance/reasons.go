package instance

import "time"

// Source says what the last activity of an instance was.
type Source string

// What counts as activity.
const (
	SourceLaunch    Source = "launch"     // it was launched, or claimed from the pool
	SourceHTTP      Source = "http"       // a request, or bytes of its body or its answer
	SourceWebSocket Source = "websocket"  // a WebSocket was opened, or carried a data frame
	SourceProbe     Source = "probe"      // the application said that it is, or was, at work
	SourceKeepAlive Source = "keep-alive" // somebody asked for more time
	SourceQueue     Source = "queue"      // somebody asked about its place in the queue
)

// EndReason is why an instance ended: the reason of its tombstone, and the value of
// a metric's label.
type EndReason string

// Why instances end.
const (
	EndCulled    EndReason = "Culled"        // idle for longer than its cull timeout
	EndExpired   EndReason = "Expired"       // older than its max age, used or not
	EndAbandoned EndReason = "Abandoned"     // waited for a place, and nobody asked about it any more
	EndStopped   EndReason = "Stopped"       // a client asked for it
	EndFailed    EndReason = "Failed"        // did not start, or broke down
	EndCompleted EndReason = ReasonCompleted // ended by itself, without an error
	EndGone      EndReason = "Gone"          // was not deleted by this service
)

// EndReasons returns every EndReason.
func EndReasons() []EndReason {
	return []EndReason{EndCulled, EndExpired, EndAbandoned, EndStopped, EndFailed, EndCompleted, EndGone}
}

// End is why an instance ended: what its tombstone says. Message, Detail and Fault are as
// in Instance.
type End struct {
	Reason          EndReason
	Message, Detail string
	Fault           Fault
}

// IdleMessage is the message of an instance that ended as EndCulled: how long it was not used, and
// its cull timeout.
func IdleMessage(idle, timeout time.Duration) string {
	return Fill(notUsed, "{time}", idle.String(), "{timeout}", timeout.String())
}

// AgeMessage is the message of an instance that ended as EndExpired: how long it lived, and its max
// age.
func AgeMessage(lived, maxAge time.Duration) string {
	return Fill(tooOld, "{time}", lived.String(), "{age}", maxAge.String())
}

// AbandonedMessage is the message of an instance that ended as EndAbandoned: for how long nobody
// asked about it.
func AbandonedMessage(silent time.Duration) string {
	return Fill(notWaited, "{time}", silent.String())
}

// Reasons of an Instance that this service gives. All others are EndReasons, or come
// from the kubelet.
const (
	ReasonQueued       = "Queued"       // it waits for a place within the limits
	ReasonDeleting     = "Deleting"     // the pod is being deleted
	ReasonCompleted    = "Completed"    // the application ended by itself, without an error
	ReasonStartTimeout = "StartTimeout" // it was not Ready within the start timeout
	ReasonHelperEnded  = "HelperEnded"  // a container beside the application ended, and is not started again
)

// Fault says who can mend what is wrong with an instance.
type Fault string

// Who can mend it.
const (
	FaultTemplate Fault = "template" // the author of the template or its image
	FaultCluster  Fault = "cluster"  // the operator of the cluster
	FaultVisitor  Fault = "visitor"  // the visitor, by what they do in the application
	FaultChance   Fault = "chance"   // nobody: it passes, or another launch goes well
)
