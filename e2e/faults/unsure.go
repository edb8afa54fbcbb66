package faults

import (
	"strings"
	"time"
)

// unsure is a fault that keeps replicas from hearing of the cluster.
type unsure struct {
	since, until time.Time // until is zero while it lasts
	// away says that it lasts for so long that replicas refuse what may have ended.
	away bool
	// blind is how long a replica need not notice it.
	blind time.Duration
}

// lostAfter is how long a replica that has no contact with the API server vouches for an
// instance that should have ended by what it knows: docs/operate.md says a minute. It was last
// answered some seconds before the fault.
const lostAfter = time.Minute - 5*time.Second

// hearsAgain is how long after the end of such a fault replicas may not have heard of all yet:
// client-go tries a watch again after 30 s at the latest.
const hearsAgain = 35 * time.Second

// Marks of requests that a replica has refused with reason, because it is unsure.
const (
	mayHaveEnded = ", may have ended"
	notYetKnown  = ", not yet known"
)

// refusal returns the mark of a request about an instance that has failed; "" if a replica had no
// reason for that. One that does not know that an instance is deployed lets its visitors wait.
func (u *unsure) refusal(kind Kind, of Entry, failure string, now time.Time) string {
	refused, waits := strings.HasSuffix(failure, "503"), strings.HasSuffix(failure, noAnswer) && kind != Polls
	switch {
	case !u.lasts(now):
		return ""
	case strings.HasSuffix(failure, "404") && u.isBlind(now):
		return notYetKnown
	case (refused || waits) && (of.Deployed.IsZero() || of.Deployed.After(u.since.Add(-time.Second))): // a watch takes a moment
		return notYetKnown
	case refused && u.away && now.Sub(u.since) > max(lostAfter, of.Timeout):
		return mayHaveEnded
	}
	return ""
}

// lasts reports whether replicas may not have heard of all.
func (u *unsure) lasts(now time.Time) bool {
	return u != nil && (u.until.IsZero() || now.Sub(u.until) <= hearsAgain)
}

// isBlind reports whether a replica may say that it does not know an instance.
func (u *unsure) isBlind(now time.Time) bool { return u != nil && now.Sub(u.since) < u.blind }
