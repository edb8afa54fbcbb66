package instance

// Source is what an instance's last activity was.
type Source string

const (
	SourceLaunch    Source = "launch"    // it was launched, or claimed from a warm pool
	SourceHTTP      Source = "http"      // a request, or its bytes
	SourceWebSocket Source = "websocket" // a WebSocket that was opened, or a data frame
	SourceProbe     Source = "probe"     // the application itself said that it is busy
)

// EndReason is the reason of a tombstone, and the label of what counts culls.
type EndReason string

const (
	EndCulled  EndReason = "Culled"  // idle for longer than its cull timeout
	EndExpired EndReason = "Expired" // older than its max age, used or not
	EndStopped EndReason = "Stopped" // somebody asked for it
	EndFailed  EndReason = "Failed"  // did not start, or broke down
	EndGone    EndReason = "Gone"    // ended by itself, or deleted by other means than ours
)

// EndReasons lists every EndReason.
func EndReasons() []EndReason {
	return []EndReason{EndCulled, EndExpired, EndStopped, EndFailed, EndGone}
}

// Reasons of our own, beside those that the kubelet and the scheduler give.
const (
	ReasonDeleting     = "Deleting"
	ReasonCompleted    = "Completed"
	ReasonStartTimeout = "StartTimeout"
)
