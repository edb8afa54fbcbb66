package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseTables(t *testing.T) {
	got, err := parseTables([]byte(`{"nftables": [{"metainfo": {"version": "1.0.6"}},
		{"table": {"family": "inet", "name": "binder-cluster", "handle": 1}},
		{"table": {"family": "ip", "name": "kube-proxy", "handle": 2}}]}`))
	want := []nftTable{{"inet", "binder-cluster"}, {"ip", "kube-proxy"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	if _, err := parseTables([]byte("not JSON")); err == nil {
		t.Error("no error for invalid JSON")
	}
}

func TestOverlapsCluster(t *testing.T) {
	for network, want := range map[string]bool{
		"10.244.3.0/24":  true,
		"10.96.0.0/12":   true, // contains the Service network
		"10.0.0.0/8":     true,
		"10.245.0.1/16":  false,
		"192.168.1.0/24": false,
	} {
		_, cidr, err := net.ParseCIDR(network)
		if err != nil {
			t.Fatal(err)
		}
		if got := overlapsCluster(cidr); got != want {
			t.Errorf("%s: %v, want %v", network, got, want)
		}
	}
}

func TestMissingPackages(t *testing.T) {
	got := missingPackages(nodePackages(), func(program string) bool { return program == "mount" })
	if want := []string{"runc", "nftables"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestMissingSettingsAreSkipped(t *testing.T) {
	values, err := readSettings([]string{"kernel/ostype", "no/such/setting"})
	if err != nil || len(values) != 1 || values["kernel/ostype"] != "Linux" {
		t.Errorf("got %v, %v", values, err)
	}
	if err := writeSettings(map[string]string{"kernel/ostype": "Linux", "no/such/setting": "1"}); err != nil {
		t.Errorf("write an unchanged and a missing setting: %v", err)
	}
}

// TestPortTaken checks that the error has the port, the part and the process.
func TestPortTaken(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	err = checkPorts(part{name: "etcd", ports: []int{port}})
	want := fmt.Sprintf("port %d, needed by etcd, is in use by process %d (", port, os.Getpid())
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s…", err, want)
	}
	_ = listener.Close()
	if err := checkPorts(part{name: "etcd", ports: []int{port}}); err != nil {
		t.Errorf("free port: %v", err)
	}
}

func TestMachineStateIsSavedOnce(t *testing.T) {
	c := testCluster(t)
	want := machineState{Settings: map[string]string{"net/ipv4/ip_forward": "0"}, Tables: []nftTable{{"inet", "filter"}}}
	if err := writeJSON(c.machineFile(), want); err != nil {
		t.Fatal(err)
	}
	if err := c.saveMachineState(t.Context()); err != nil { // what a second up does
		t.Fatal(err)
	}
	got, err := c.readMachineState()
	if err != nil || got.Settings["net/ipv4/ip_forward"] != "0" || !slices.Equal(got.Tables, want.Tables) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

func TestFailedChecks(t *testing.T) {
	report := "[+]ping ok\n[-]etcd failed: reason withheld\n[+]log ok\n"
	if got, want := failedChecks(report), "[-]etcd failed: reason withheld"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPollReturnsLastError(t *testing.T) {
	err := poll(t.Context(), 10*time.Millisecond, func(context.Context) error { return errors.New("not there yet") })
	if err == nil || !strings.Contains(err.Error(), "not there yet") || !strings.Contains(err.Error(), "10ms") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = poll(ctx, time.Hour, func(context.Context) error { return errors.New("not there yet") })
	if err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("got %v", err)
	}
}

func TestWriteFileReplacesFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "file")
	for _, content := range []string{"a longer content", "short"} {
		if err := writeFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(path); err != nil || string(data) != content {
			t.Errorf("got %q, %v; want %q", data, err, content)
		}
	}
	if _, err := os.Stat(path + ".next"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the temporary file is still there: %v", err)
	}
}

func TestReplaceIfChanged(t *testing.T) {
	dir := t.TempDir()
	next, path := filepath.Join(dir, "a.next"), filepath.Join(dir, "a")
	replace := func(content string) fs.FileInfo {
		t.Helper()
		if err := os.WriteFile(next, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := replaceIfChanged(next, path); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	first := replace("one")
	if again := replace("one"); !os.SameFile(first, again) {
		t.Error("equal content replaced the file")
	}
	if changed := replace("two"); os.SameFile(first, changed) {
		t.Error("new content did not replace the file")
	}
}
