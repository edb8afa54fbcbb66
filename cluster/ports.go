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

// checkPorts returns an error if a port of the part is in use.
func checkPorts(p part) error {
	taken, err := listeningPorts()
	if err != nil {
		return err
	}
	for _, port := range p.ports {
		inode, found := taken[port]
		if !found {
			continue
		}
		return fmt.Errorf("port %d, needed by %s, is in use by %s: stop it first", port, p.name, socketOwner(inode))
	}
	return nil
}

// listeningPorts returns the TCP ports that are listened on, each with the inode
// of one of its sockets.
func listeningPorts() (map[int]uint64, error) {
	ports := map[int]uint64{}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		sockets, err := netlink.SocketDiagTCP(family)
		if err != nil {
			return nil, fmt.Errorf("list the ports in use: %w", err)
		}
		for _, socket := range sockets {
			if socket.State == netlink.TCP_LISTEN {
				ports[int(socket.ID.SourcePort)] = uint64(socket.INode)
			}
		}
	}
	return ports, nil
}

// socketOwner describes the process that has a socket: its id and its program.
// The program's path shows whether it belongs to another checkout's cluster.
func socketOwner(inode uint64) string {
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
