package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// startTestProcess starts a shell command and stops it when the test ends.
func startTestProcess(t *testing.T, script string) (r record, log, path string) {
	t.Helper()
	dir := t.TempDir()
	log, path = filepath.Join(dir, "log"), filepath.Join(dir, "parts", "a.json")
	cmd := exec.Command("sh", "-c", script)
	r, err := startProcess(cmd, log, path, "fingerprint")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.stop(context.Background(), time.Second) })
	return r, log, path
}

func TestProcessIsFoundAndStopped(t *testing.T) {
	started, _, path := startTestProcess(t, "exec sleep 600")
	r, err := readRecord(path)
	if err != nil {
		t.Fatal(err)
	}
	if r.PID != started.PID || r.Fingerprint != "fingerprint" || !r.alive() {
		t.Fatalf("got record %+v, alive %v; want process %d alive", r, r.alive(), started.PID)
	}
	later := r
	later.StartTicks++
	if later.alive() {
		t.Error("a later process with the same id matches the record")
	}
	otherBoot := r
	otherBoot.BootID = "another"
	if otherBoot.alive() {
		t.Error("a process of another boot matches the record")
	}
	if err := r.stop(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if r.alive() {
		t.Error("the process is alive after stop")
	}
	if err := r.stop(t.Context(), time.Second); err != nil {
		t.Errorf("second stop: %v", err)
	}
}

func TestProcessIgnoringSIGTERMIsKilled(t *testing.T) {
	r, log, _ := startTestProcess(t, `trap "" TERM; echo ready; while :; do sleep 0.05; done`)
	waitForLine(t, log, "ready")
	if err := r.stop(t.Context(), 200*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if r.alive() {
		t.Error("the process is alive after stop")
	}
}

func TestMissingRecordIsNotAlive(t *testing.T) {
	r, err := readRecord(filepath.Join(t.TempDir(), "none.json"))
	if err != nil || r.alive() {
		t.Errorf("got %+v, %v", r, err)
	}
}

func waitForLine(t *testing.T, path, line string) {
	t.Helper()
	until(t, func(context.Context) error {
		data, err := os.ReadFile(path)
		if err == nil && !strings.Contains(string(data), line+"\n") {
			err = fmt.Errorf("no line %q in the log %q", line, data)
		}
		return err
	})
}

func TestTail(t *testing.T) {
	for _, test := range []struct {
		text string
		n    int
		want string
	}{
		{"a\nb\nc\n", 2, "b\nc"},
		{"a", 5, "a"},
		{"", 3, ""},
	} {
		if got := tail(test.text, test.n); got != test.want {
			t.Errorf("tail(%q, %d) is %q, want %q", test.text, test.n, got, test.want)
		}
	}
	if got := strings.Count(tail(strings.Repeat("x\n", 100), 15), "x"); got != 15 {
		t.Errorf("got %d lines, want 15", got)
	}
}
