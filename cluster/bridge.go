package main

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
)

// ensureBridge makes the pods' bridge with the node's address on it, so that
// the node has an address that stays the same wherever the machine is.
func ensureBridge() error {
	address, err := netlink.ParseAddr(bridgeAddress + "/16")
	if err != nil {
		return fmt.Errorf("make the bridge %s: %w", bridgeName, err)
	}
	link, err := findBridge()
	if err == nil && link == nil {
		if err = netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName}}); err == nil {
			link, err = netlink.LinkByName(bridgeName)
		}
	}
	if err != nil {
		return fmt.Errorf("make the bridge %s: %w", bridgeName, err)
	}
	if err := netlink.AddrReplace(link, address); err != nil {
		return fmt.Errorf("give the bridge its address: %w", err)
	}
	// Said explicitly, its hardware address no longer changes with its ports.
	if err := netlink.LinkSetHardwareAddr(link, link.Attrs().HardwareAddr); err != nil {
		return fmt.Errorf("fix the bridge's hardware address: %w", err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up the bridge: %w", err)
	}
	return nil
}

// findBridge returns the pods' bridge, or nil if there is none.
func findBridge() (netlink.Link, error) {
	link, err := netlink.LinkByName(bridgeName)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, nil
	}
	return link, err
}

// removeBridge removes the bridge and the pods' links that are left on it.
func removeBridge() error {
	bridge, err := findBridge()
	if err != nil || bridge == nil {
		return err
	}
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list the network links: %w", err)
	}
	var errs []error
	for _, link := range links {
		if link.Attrs().MasterIndex == bridge.Attrs().Index {
			errs = append(errs, netlink.LinkDel(link))
		}
	}
	if err := errors.Join(append(errs, netlink.LinkDel(bridge))...); err != nil {
		return fmt.Errorf("remove the bridge %s: %w", bridgeName, err)
	}
	return nil
}

// addressConflict tells which link other than the bridge has an address in one
// of the cluster's networks, "" if none.
func addressConflict() (string, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return "", fmt.Errorf("list the network links: %w", err)
	}
	for _, link := range links {
		if link.Attrs().Name == bridgeName {
			continue
		}
		addresses, err := netlink.AddrList(link, netlink.FAMILY_V4)
		if err != nil {
			return "", fmt.Errorf("list the addresses of %s: %w", link.Attrs().Name, err)
		}
		for _, address := range addresses {
			if overlapsCluster(address.IPNet) {
				return link.Attrs().Name + " " + address.IPNet.String(), nil
			}
		}
	}
	return "", nil
}

// overlapsCluster tells whether a network has addresses in common with pods or
// Services.
func overlapsCluster(network *net.IPNet) bool {
	for _, ours := range []string{podCIDR, serviceCIDR} {
		ip, cidr, err := net.ParseCIDR(ours)
		if err == nil && (cidr.Contains(network.IP) || network.Contains(ip)) {
			return true
		}
	}
	return false
}
