package main

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// TestPolicyEnforcementIsChecked removes one thing after the other that enforcement
// needs, in a network namespace of its own.
func TestPolicyEnforcementIsChecked(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("a network namespace needs root: run this test as root, as the local cluster")
	}
	setting := filepath.Join("/proc/sys", bridgeFilterSetting)
	if !isFile(setting) {
		t.Fatal("the kernel module br_netfilter is not loaded: make cluster-up loads it")
	}
	runtime.LockOSThread() // and never unlocked, so that the thread ends with this test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	writeSetting := func(value string) error { return os.WriteFile(setting, []byte(value), 0) }
	const complete = "no process reads the packet queue"
	for _, step := range []struct {
		name   string
		change func() error
		want   string // the error of the check
	}{
		{"no rules", func() error { return writeSetting("1") }, "find the chain input"},
		{"rules", ensurePolicyRules, complete},
		{"rules again", ensurePolicyRules, complete},
		{"a rule is gone", removePolicyRule, "chain forward"},
		{"repaired", ensurePolicyRules, complete},
		{"bridge without filter", func() error { return writeSetting("0") }, bridgeFilterSetting},
	} {
		if err := step.change(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if err := checkPolicyEnforcement(); err == nil || !strings.Contains(err.Error(), step.want) {
			t.Errorf("%s: error %v, want %q", step.name, err, step.want)
		}
	}
}

// removePolicyRule removes a rule of the chain forward.
func removePolicyRule() error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	chain, err := conn.ListChain(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: policyTable}, "forward")
	if err != nil {
		return err
	}
	rules, err := conn.GetRules(chain.Table, chain)
	if err != nil || len(rules) == 0 {
		return errors.Join(err, errors.New("the chain has no rule"))
	}
	if err := conn.DelRule(rules[0]); err != nil {
		return err
	}
	return conn.Flush()
}
