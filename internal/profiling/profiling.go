// Package profiling serves the profiles of this process that Go's tools read: where it
// spends time, and what holds memory.
//
// It must never know the service, and never show its data or its command line, which can
// have a key in it. Profiles name functions only.
package profiling

import (
	"fmt"
	"net/http"
	"net/http/pprof"
	"strconv"
	"time"
)

// Prefix is where the profiles are.
const Prefix = "/debug/pprof/"

// longest is how long a profile may be recorded. net/http/pprof lets the answer take that
// much longer than the server's write limit.
const longest = 5 * time.Minute

// Handler serves the profiles below Prefix. Importing net/http/pprof adds them to
// http.DefaultServeMux too, which no server of this module has.
func Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+Prefix, pprof.Index) // has all but those that are recorded
	mux.HandleFunc("GET "+Prefix+"profile", pprof.Profile)
	mux.HandleFunc("GET "+Prefix+"trace", pprof.Trace)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isBounded(r.FormValue("seconds")) {
			http.Error(w, fmt.Sprintf("seconds must be a number from 0 to %d", int(longest.Seconds())), http.StatusBadRequest)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// isBounded reports whether a profile may be recorded for that many seconds. The default,
// for "", is at most 30.
func isBounded(seconds string) bool {
	number, err := strconv.ParseFloat(seconds, 64)
	return seconds == "" || err == nil && number >= 0 && number <= longest.Seconds()
}
