package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
)

// nftTable names a table of the packet filter.
type nftTable struct {
	Family string `json:"family"`
	Name   string `json:"name"`
}

// ownTable is the table that ensureRules creates.
const ownTable = "binder-cluster"

// clusterTables returns the tables that this command and kube-proxy create. Tables
// that existed before the cluster started are not removed.
func clusterTables() []nftTable {
	return []nftTable{
		{"inet", ownTable},
		{"ip", "kube-proxy"}, {"ip6", "kube-proxy"},
		{"ip", policyTable}, {"inet", unusedPolicyTable},
	}
}

// ensureRules blocks other machines from the API server, which listens on all
// addresses, and gives pods the machine's address towards other networks. One rule
// for all pods is cheaper than the network plugin's rules for each: those take most
// of the time that a pod's network needs.
func ensureRules(ctx context.Context) error {
	return nft(ctx, fmt.Sprintf(`table inet %[1]s
delete table inet %[1]s
table inet %[1]s {
	chain input {
		type filter hook input priority filter; policy accept;
		tcp dport %[2]d iifname != { "lo", "%[3]s" } drop
	}
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr %[4]s ip daddr != { %[4]s, 224.0.0.0/4 } masquerade
	}
}
`, ownTable, apiPort, bridgeName, podCIDR))
}

// nftTables lists the packet filter's tables.
func nftTables(ctx context.Context) ([]nftTable, error) {
	out, err := exec.CommandContext(ctx, "nft", "-j", "list", "tables").Output()
	if err != nil {
		return nil, fmt.Errorf("list the tables of the packet filter: %w", err)
	}
	return parseTables(out)
}

// parseTables parses the output of nft -j list tables.
func parseTables(data []byte) ([]nftTable, error) {
	var list struct {
		Nftables []struct {
			Table *nftTable `json:"table"`
		} `json:"nftables"`
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("parse the tables of the packet filter: %w", err)
	}
	var tables []nftTable
	for _, entry := range list.Nftables {
		if entry.Table != nil {
			tables = append(tables, *entry.Table)
		}
	}
	return tables, nil
}

// removeTables removes the cluster's tables except those in keep.
func removeTables(ctx context.Context, keep []nftTable) error {
	tables, err := nftTables(ctx)
	if err != nil {
		return err
	}
	var script strings.Builder
	for _, table := range tables {
		if slices.Contains(clusterTables(), table) && !slices.Contains(keep, table) {
			fmt.Fprintf(&script, "delete table %s %s\n", table.Family, table.Name)
		}
	}
	if script.Len() == 0 {
		return nil
	}
	return nft(ctx, script.String())
}

// nft runs a script as one transaction.
func nft(ctx context.Context, script string) error {
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("change the packet filter: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
