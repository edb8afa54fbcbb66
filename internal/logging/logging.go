// Package logging makes the service's log.
//
// It decides where lines go and how they look. It must never know what is logged, and it
// keeps no logger of its own: every part is given one.
package logging

import (
	"io"
	stdlog "log"
	"log/slog"
	"os"
	"strings"

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

// RouteDefault sends what is written to Go's default loggers, of the packages log and
// slog, to log. They have one destination for the whole process. net/http's client
// writes there what it reads on a connection that should be idle, and so do libraries
// that know no other log. Such a line can hold text that an application chose, so it is
// clipped.
func RouteDefault(log *slog.Logger) {
	log = log.With("logger", "default")
	slog.SetDefault(log) // first: it changes the output of package log as well
	stdlog.SetFlags(0)
	stdlog.SetPrefix("")
	stdlog.SetOutput(lineWriter{log})
}

// maxLine is the most bytes of a line of package log that are kept.
const maxLine = 512

// lineWriter logs each line of package log as a warning. The package has no levels.
type lineWriter struct{ log *slog.Logger }

func (w lineWriter) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	if len(text) > maxLine {
		text = text[:maxLine] + "…"
	}
	w.log.Warn(strings.ToValidUTF8(text, "\uFFFD"))
	return len(line), nil
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
