package main

import (
	"io"
	"log/slog"
	"os"

	"k8s.io/klog/v2"
)

// newLogger writes text for people on a terminal, else JSON.
func newLogger(c *Config, out io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "text" || c.LogFormat == "auto" && isTerminal(out) {
		return slog.New(slog.NewTextHandler(out, opts))
	}
	return slog.New(slog.NewJSONHandler(out, opts))
}

// routeClientLogs sends the log lines of client-go the same way as ours.
func routeClientLogs(log *slog.Logger) { klog.SetSlogLogger(log.With("logger", "client-go")) }

func isTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
