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
	if _, err := parseTables([]byte("no JSON")); err == nil {
		t.Error("nonsense is no error")
	}
}

func TestOverlapsCluster(t *testing.T) {
	for network, want := range map[string]bool{
		"10.244.3.0/24":  true,
		"10.96.0.0/12":   true, // wider than ours
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

func TestSettingsThatTheKernelLacksAreLeftOut(t *testing.T) {
	values, err := readSettings([]string{"kernel/ostype", "no/such/setting"})
	if err != nil || len(values) != 1 || values["kernel/ostype"] != "Linux" {
		t.Errorf("got %v, %v", values, err)
	}
	if err := writeSettings(map[string]string{"kernel/ostype": "Linux", "no/such/setting": "1"}); err != nil {
		t.Errorf("writing what is so already, and what is not there: %v", err)
	}
}

// TestPortTaken names the port, the part and the process.
func TestPortTaken(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	err = checkPorts(part{name: "etcd", ports: []int{port}})
	want := fmt.Sprintf("port %d, which etcd needs, is taken by process %d (", port, os.Getpid())
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s…", err, want)
	}
	_ = listener.Close()
	if err := checkPorts(part{name: "etcd", ports: []int{port}}); err != nil {
		t.Errorf("a free port: %v", err)
	}
}

func TestMachineStateIsNotedOnce(t *testing.T) {
	c := testCluster(t)
	want := machineState{Settings: map[string]string{"net/ipv4/ip_forward": "0"}, Tables: []nftTable{{"inet", "filter"}}}
	if err := writeJSON(c.machineFile(), want); err != nil {
		t.Fatal(err)
	}
	if err := c.noteMachine(t.Context()); err != nil { // as a second up does
		t.Fatal(err)
	}
	got, err := c.readMachine()
	if err != nil || got.Settings["net/ipv4/ip_forward"] != "0" || !slices.Equal(got.Tables, want.Tables) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

func TestNotOK(t *testing.T) {
	report := "[+]ping ok\n[-]etcd failed: reason withheld\n[+]log ok\n"
	if got, want := notOK(report), "[-]etcd failed: reason withheld"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPollTellsTheLastError(t *testing.T) {
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

func TestWriteFileReplacesTheWhole(t *testing.T) {
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
		t.Errorf("something is left beside it: %v", err)
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
		t.Error("the same content replaced the file")
	}
	if changed := replace("two"); os.SameFile(first, changed) {
		t.Error("another content did not replace the file")
	}
}
