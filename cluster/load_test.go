package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeProgram replaces one of the cluster's programs with a shell script.
func fakeProgram(t *testing.T, c *cluster, name, script string) {
	t.Helper()
	if err := os.MkdirAll(c.bin(""), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.bin(name), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
}

// recordAsRunning records the test's process as a running part.
func recordAsRunning(t *testing.T, c *cluster, part string) {
	t.Helper()
	self, err := identify(os.Getpid())
	if err == nil {
		err = writeJSON(c.record(part), self)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestLoadNeedsArchives(t *testing.T) {
	c := testCluster(t)
	recordAsRunning(t, c, "containerd")
	path := filepath.Join(t.TempDir(), "x.tar")
	if err := os.WriteFile(path, []byte("not an archive"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.loadImage(t.Context(), path); err == nil || !strings.Contains(err.Error(), path+" is not an image archive") {
		t.Errorf("got %v", err)
	}
	root := newCommand()
	root.SetArgs([]string{"load"})
	if err := root.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "name at least one image archive") {
		t.Errorf("got %v", err)
	}
}

func TestLoadNeedsTheCluster(t *testing.T) {
	c := testCluster(t)
	fakeProgram(t, c, "ctr", "exit 0\n")
	path := filepath.Join(t.TempDir(), "x.tar")
	writeTestArchive(t, path, "localhost/x:dev", "x")
	if err := c.loadImage(t.Context(), path); err == nil || !strings.Contains(err.Error(), "not running") {
		t.Errorf("got %v", err)
	}
}

// TestLoadFails checks that the error has ctr's output, and that ctr gets the
// right arguments.
func TestLoadFails(t *testing.T) {
	c := testCluster(t)
	recordAsRunning(t, c, "containerd")
	fakeProgram(t, c, "ctr", `echo "args: $*"; echo "no space left on device" >&2; exit 1`)
	path := filepath.Join(t.TempDir(), "x.tar")
	writeTestArchive(t, path, "localhost/x:dev", "x")
	err := c.loadImage(t.Context(), path)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"no space left on device",
		"args: --address " + firstNode(c.layout).socket() + " --namespace k8s.io images import " + path,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not contain %q", err, want)
		}
	}
}

func TestLoadIsInterrupted(t *testing.T) {
	c := testCluster(t)
	recordAsRunning(t, c, "containerd")
	started := filepath.Join(t.TempDir(), "started")
	fakeProgram(t, c, "ctr", `touch "`+started+`"; exec sleep 60`)
	path := filepath.Join(t.TempDir(), "x.tar")
	writeTestArchive(t, path, "localhost/x:dev", "x")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		_ = poll(ctx, testTimeout, func(context.Context) error {
			_, err := os.Stat(started)
			return err
		})
	}()
	if err := c.loadImage(ctx, path); err == nil || err.Error() != "interrupted" {
		t.Errorf("got %v, want interrupted", err)
	}
}
