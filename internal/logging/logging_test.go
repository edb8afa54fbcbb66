package logging

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/klog/v2"
)

func TestFormat(t *testing.T) {
	for format, wantJSON := range map[string]bool{"json": true, "text": false, "auto": true} { // a buffer is not a terminal
		var out bytes.Buffer
		New(&out, format, slog.LevelInfo).Info("launched", "id", "1234")
		if json.Valid(out.Bytes()) != wantJSON || !strings.Contains(out.String(), "launched") || !strings.Contains(out.String(), "1234") {
			t.Errorf("%s: got %q, want JSON: %t", format, &out, wantJSON)
		}
	}
}

func TestLevel(t *testing.T) {
	var out bytes.Buffer
	log := New(&out, "text", slog.LevelWarn)
	log.Info("quiet")
	log.Warn("loud")
	if got := out.String(); strings.Contains(got, "quiet") || !strings.Contains(got, "loud") {
		t.Errorf("at level warn: got %q, want only the warning", got)
	}
}

func TestRouteClientGo(t *testing.T) {
	t.Cleanup(klog.ClearLogger)
	var out bytes.Buffer
	RouteClientGo(New(&out, "text", slog.LevelInfo))
	klog.InfoS("watching", "resource", "pods")
	if got := out.String(); !strings.Contains(got, "watching") || !strings.Contains(got, "logger=client-go") {
		t.Errorf("got %q, want a line of client-go", got)
	}
}

func TestIsTerminal(t *testing.T) {
	open := func(path string) *os.File {
		file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		return file
	}
	closed := open(os.DevNull)
	closed.Close()
	for name, row := range map[string]struct {
		out  io.Writer
		want bool
	}{
		"a buffer":           {&bytes.Buffer{}, false},
		"a file":             {open(filepath.Join(t.TempDir(), "log")), false},
		"a closed device":    {closed, false},
		"a character device": {open(os.DevNull), true}, // stands in for a terminal
	} {
		if got := isTerminal(row.out); got != row.want {
			t.Errorf("%s: got %t, want %t", name, got, row.want)
		}
	}
}
