package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// checkPorts fails with one sentence if a port of the part is taken.
func checkPorts(p part) error {
	taken, err := listening()
	if err != nil {
		return err
	}
	for _, port := range p.ports {
		inode, found := taken[port]
		if !found {
			continue
		}
		return fmt.Errorf("port %d, which %s needs, is taken by %s: stop that first", port, p.name, holder(inode))
	}
	return nil
}

// listening returns the TCP ports that something listens on, with the inode of
// one of the sockets.
func listening() (map[int]uint64, error) {
	ports := map[int]uint64{}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		sockets, err := netlink.SocketDiagTCP(family)
		if err != nil {
			return nil, fmt.Errorf("list the ports that are taken: %w", err)
		}
		for _, socket := range sockets {
			if socket.State == netlink.TCP_LISTEN {
				ports[int(socket.ID.SourcePort)] = uint64(socket.INode)
			}
		}
	}
	return ports, nil
}

// holder describes the process that has a socket: its number and its program,
// whose path tells of another checkout's cluster.
func holder(inode uint64) string {
	want := fmt.Sprintf("socket:[%d]", inode)
	files, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return "another process"
	}
	for _, file := range files {
		if target, err := os.Readlink(file); err != nil || target != want {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(file, "/")[2])
		if err != nil {
			continue
		}
		program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if err != nil {
			program = "an unknown program"
		}
		return fmt.Sprintf("process %d (%s)", pid, program)
	}
	return "another process"
}
