package podtemplate

import (
	"cmp"
	"errors"
	"fmt"
)

// Error says that a template cannot be used. The operator has to correct the
// template; the client cannot do anything.
type Error struct {
	// Template is the template's name.
	Template string
	// Use is what the template cannot be: "launched", the default, "preloaded" or "kept
	// warm".
	Use string
	// Err is the cause.
	Err error
}

func (e *Error) Error() string {
	return e.Summary() + ": " + e.Err.Error()
}

// Summary returns the error without its cause. Clients get no more, because the cause
// can tell how the cluster is set up.
func (e *Error) Summary() string {
	return fmt.Sprintf("template %q cannot be %s", e.Template, cmp.Or(e.Use, "launched"))
}

func (e *Error) Unwrap() error { return e.Err }

// Result returns what looking up or using a template came to, one of Results, as the
// value of a metric's label.
func Result(err error) string {
	var template *Error
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, ErrUnknown):
		return "unknown_template"
	case errors.As(err, &template):
		return "bad_template"
	}
	return "error"
}

// Results returns all values of Result.
func Results() []string { return []string{"ok", "unknown_template", "bad_template", "error"} }
