// Package logging makes the service's log.
//
// It decides where lines go and how they look. It must never know what is logged, and it
// keeps no logger of its own: every part is given one.
package logging

import (
	"io"
	"log/slog"
	"os"

	"k8s.io/klog/v2"
)

// New returns a log that writes lines of at least a level to out. format is "json",
// "text", or "auto", which means text if out is a terminal and JSON otherwise.
func New(out io.Writer, format string, level slog.Level) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	if format == "text" || format == "auto" && isTerminal(out) {
		return slog.New(slog.NewTextHandler(out, opts))
	}
	return slog.New(slog.NewJSONHandler(out, opts))
}

// RouteClientGo sends the lines of client-go to log. They go there for the whole process,
// because client-go has only one logger.
func RouteClientGo(log *slog.Logger) { klog.SetSlogLogger(log.With("logger", "client-go")) }

// isTerminal reports whether out is a character device. So is /dev/null, where the format
// does not matter.
func isTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
