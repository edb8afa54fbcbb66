package main

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
)

// ensureBridge creates the pods' bridge and gives it the node's address. The
// address stays the same when the machine moves to another network.
func ensureBridge() error {
	address, err := netlink.ParseAddr(bridgeAddress + "/16")
	if err != nil {
		return fmt.Errorf("create the bridge %s: %w", bridgeName, err)
	}
	link, err := findBridge()
	if err == nil && link == nil {
		if err = netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName}}); err == nil {
			link, err = netlink.LinkByName(bridgeName)
		}
	}
	if err != nil {
		return fmt.Errorf("create the bridge %s: %w", bridgeName, err)
	}
	if err := netlink.AddrReplace(link, address); err != nil {
		return fmt.Errorf("set the bridge's address: %w", err)
	}
	// A hardware address that is set explicitly does not change when ports
	// join or leave the bridge.
	if err := netlink.LinkSetHardwareAddr(link, link.Attrs().HardwareAddr); err != nil {
		return fmt.Errorf("set the bridge's hardware address: %w", err)
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

// removeBridge removes the bridge and any pod links still attached to it.
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

// addressConflict returns the link, other than the bridge, that has an address
// in one of the cluster's networks. It returns "" if there is none.
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

// overlapsCluster reports whether a network overlaps the pods' or the Services'
// network.
func overlapsCluster(network *net.IPNet) bool {
	for _, ours := range []string{podCIDR, serviceCIDR} {
		ip, cidr, err := net.ParseCIDR(ours)
		if err == nil && (cidr.Contains(network.IP) || network.Contains(ip)) {
			return true
		}
	}
	return false
}
