package logging

import (
	"io"
	"log/slog"
	"os"

	"k8s.io/klog/v2"
)

// New writes text for people on a terminal, else JSON.
func New(out io.Writer, format string, level slog.Level) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	if format == "text" || format == "auto" && isTerminal(out) {
		return slog.New(slog.NewTextHandler(out, opts))
	}
	return slog.New(slog.NewJSONHandler(out, opts))
}

// RouteClientGo sends the log lines of client-go the same way as ours.
func RouteClientGo(log *slog.Logger) { klog.SetSlogLogger(log.With("logger", "client-go")) }

func isTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
