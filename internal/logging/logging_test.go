package logging

import (
	"bytes"
	"encoding/json"
	"io"
	stdlog "log"
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

func TestRouteDefault(t *testing.T) {
	before, output, flags := slog.Default(), stdlog.Writer(), stdlog.Flags()
	t.Cleanup(func() {
		slog.SetDefault(before)
		stdlog.SetOutput(output)
		stdlog.SetFlags(flags)
	})
	var out bytes.Buffer
	RouteDefault(New(&out, "json", slog.LevelInfo))
	for _, row := range []struct {
		write func()
		level string
		says  string
	}{
		{func() { stdlog.Printf("Unsolicited response starting with %q", "HTTP/1.1 200 OK\r\n\r\n\x1b[31m") }, "WARN", `Unsolicited response starting with "HTTP/1.1 200 OK\r\n\r\n\x1b[31m"`},
		{func() { stdlog.Print("raw \x1b[31m \xff\n{\"level\":\"FAKE\"}\r\n\u2028") }, "WARN", "raw \x1b[31m \uFFFD\n{\"level\":\"FAKE\"}"},
		{func() { stdlog.Print(strings.Repeat("é", 100_000)) }, "WARN", strings.Repeat("é", maxLine/2) + "…"},
		{func() { stdlog.Print(strings.Repeat("x", maxLine-1), "é") }, "WARN", strings.Repeat("x", maxLine-1) + "\uFFFD…"},
		{func() { stdlog.New(stdlog.Writer(), "", 0).Print("a logger made from the default") }, "WARN", "a logger made from the default"},
		{func() { slog.Error("a library's", "key", "value") }, "ERROR", "a library's"},
	} {
		out.Reset()
		row.write()
		var line struct{ Level, Msg, Logger string }
		if err := json.Unmarshal(out.Bytes(), &line); err != nil || strings.Count(out.String(), "\n") != 1 {
			t.Errorf("got %.2000q, want one line of JSON: %v", &out, err)
		}
		if line.Level != row.level || line.Msg != row.says || line.Logger != "default" {
			t.Errorf("got %.2000q, want %s %q", &out, row.level, row.says)
		}
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
