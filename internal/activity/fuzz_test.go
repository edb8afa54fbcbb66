package activity

import (
	"encoding/json"
	"testing"
	"time"
)

// FuzzFindActivity compares what is found in an application's answer with what is in its
// values once it is decoded.
func FuzzFindActivity(f *testing.F) {
	for _, seed := range []string{
		`[{"execution_state": "busy", "last_activity": "2026-01-02T12:00:00Z"}]`, `{"last_activity": {"last_activity": ["2026-01-02T12:00:00Z"]}, "a": "last_activity"}`,
		`{"execution_state": ["busy"]}`, `{"": {"execution_state": "busy"}}`, `"busy"`, `[[[`, `{"execution_state": "\u0062usy"}`, `{"last_activity": "2026-01-02T12:00:00.5+14:00", "last_activity": null}`, `null {}`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		busy, latest, err := findActivity(text)
		var decoded any
		if !json.Valid(text) {
			if err == nil {
				t.Errorf("%q is accepted", text)
			}
			return
		}
		if err != nil || json.Unmarshal(text, &decoded) != nil {
			return // such as a number that is too large
		}
		wantBusy, want := walk("", decoded)
		if wantBusy && !busy || latest.Before(want) { // of a member that is given twice, only one is decoded
			t.Errorf("%q: got busy %t and %s, want %t and %s", text, busy, latest, wantBusy, want)
		}
	})
}

// walk looks for activity in a decoded value, which is that of the member name.
func walk(name string, value any) (busy bool, latest time.Time) {
	visit := func(name string, value any) {
		b, l := walk(name, value)
		busy = busy || b
		if l.After(latest) {
			latest = l
		}
	}
	switch value := value.(type) {
	case map[string]any:
		for name, member := range value {
			visit(name, member)
		}
	case []any:
		for _, element := range value {
			visit("", element)
		}
	case string:
		if at, err := time.Parse(time.RFC3339, value); name == "last_activity" && err == nil {
			return false, at
		}
		return name == "execution_state" && value == "busy", time.Time{}
	}
	return busy, latest
}
