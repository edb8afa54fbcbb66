package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

const (
	// policyTable is the packet filter's table of ensurePolicyRules.
	policyTable = "binder-networkpolicy"
	// unusedPolicyTable is the table of the library that decides. Its rules match
	// no packet.
	unusedPolicyTable = "binder-networkpolicy-unused"
)

// bridgeFilterSetting is the kernel setting that passes what pods send to each other
// over the bridge to the packet filter. Without it, that would evade the policies.
const bridgeFilterSetting = "net/bridge/bridge-nf-call-iptables"

// ensureBridgeFilter loads the kernel module with bridgeFilterSetting.
func (c *cluster) ensureBridgeFilter(ctx context.Context) error {
	const need = "network policies need the kernel module br_netfilter"
	path := filepath.Join("/proc/sys", bridgeFilterSetting)
	if isFile(path) {
		return nil
	}
	if err := c.ensurePackages(ctx, []debianPackage{{"kmod", "modprobe"}}); err != nil {
		return fmt.Errorf("%s: %w", need, err)
	}
	if out, err := exec.CommandContext(ctx, "modprobe", "br_netfilter").CombinedOutput(); err != nil {
		return fmt.Errorf("%s: load it: %w: %s", need, err, bytes.TrimSpace(out))
	}
	if !isFile(path) {
		return fmt.Errorf("%s with the setting %s, which this kernel lacks", need, bridgeFilterSetting)
	}
	return nil
}

// policyChain is a chain of policyTable. Its rules are queueNew for each key.
type policyChain struct {
	name string
	hook *nftables.ChainHook
	keys []expr.MetaKey
}

// policyChains returns the chains: what pods send to the node itself, and what is
// forwarded from or to pods. What the node itself sends to pods passes neither:
// Kubernetes always allows it.
func policyChains() []policyChain {
	return []policyChain{
		{"input", nftables.ChainHookInput, []expr.MetaKey{expr.MetaKeyIIFNAME}},
		{"forward", nftables.ChainHookForward, []expr.MetaKey{expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME}},
	}
}

// ensurePolicyRules sends the first packet of each connection that pods open or
// accept to the packet queue. The rules are the same for all pods, so that a pod's
// start costs nothing. While nobody reads the queue, its packets are dropped.
func ensurePolicyRules() error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("change the packet filter: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: policyTable}
	conn.AddTable(table) // so that the deletion does not fail
	conn.DelTable(table)
	conn.AddTable(table)
	for _, c := range policyChains() {
		chain := conn.AddChain(&nftables.Chain{
			Table: table, Name: c.name,
			Type: nftables.ChainTypeFilter, Hooknum: c.hook, Priority: nftables.ChainPriorityFilter,
		})
		for _, key := range c.keys {
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: queueNew(key)})
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("send the pods' connections to the packet queue: %w "+
			"(the kernel needs NF_TABLES, NFT_COMPAT, NF_CONNTRACK and NETFILTER_XT_TARGET_NFQUEUE)", err)
	}
	return nil
}

// checkPolicyEnforcement returns an error unless the kernel asks a process about the
// pods' connections: a rule or the setting may have been removed since.
func checkPolicyEnforcement() error {
	if value, err := os.ReadFile(filepath.Join("/proc/sys", bridgeFilterSetting)); err != nil || string(bytes.TrimSpace(value)) != "1" {
		return fmt.Errorf("%s is not 1", bridgeFilterSetting)
	}
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("read the packet filter: %w", err)
	}
	for _, c := range policyChains() {
		chain, err := conn.ListChain(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: policyTable}, c.name)
		if err != nil {
			return fmt.Errorf("find the chain %s of the packet filter's table %s: %w", c.name, policyTable, err)
		}
		rules, err := conn.GetRules(chain.Table, chain)
		if err != nil {
			return fmt.Errorf("read the rules of the chain %s: %w", c.name, err)
		}
		if chain.Hooknum == nil || *chain.Hooknum != *c.hook || len(rules) != len(c.keys) {
			return fmt.Errorf("the chain %s of the packet filter's table %s was changed", c.name, policyTable)
		}
	}
	if !policyQueueOpen() {
		return errors.New("no process reads the packet queue")
	}
	return nil
}

// queueNew returns a rule: packets that enter or leave through the pods' bridge and
// belong to no established connection go to the queue. The target is the one of
// iptables: kernels that lack the expression "queue" have it.
func queueNew(interfaceKey expr.MetaKey) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, bridgeName)
	// struct xt_NFQ_info_v3 of linux/netfilter/xt_NFQUEUE.h: the queue's number, how
	// many queues, and no flags.
	target := xt.Unknown(append(append(binaryutil.NativeEndian.PutUint16(policyQueue), binaryutil.NativeEndian.PutUint16(1)...), 0, 0))
	return []expr.Any{
		&expr.Meta{Key: interfaceKey, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name},
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4, Xor: make([]byte, 4),
			Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED),
		},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 4)},
		&expr.Target{Name: "NFQUEUE", Rev: 3, Info: &target},
	}
}

// policyQueueOpen reports whether a process reads the packet queue.
func policyQueueOpen() bool {
	data, err := os.ReadFile("/proc/thread-self/net/netfilter/nfnetlink_queue")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[0] == fmt.Sprint(policyQueue) {
			return true
		}
	}
	return false
}
