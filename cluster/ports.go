package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
)

// tcpListen is the state of a listening socket in /proc/net/tcp.
const tcpListen = 10

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
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return nil, fmt.Errorf("list the ports that are taken: %w", err)
	}
	four, err := proc.NetTCP()
	if err != nil {
		return nil, fmt.Errorf("list the ports that are taken: %w", err)
	}
	six, err := proc.NetTCP6()
	if err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("list the ports that are taken: %w", err)
	}
	ports := map[int]uint64{}
	for _, socket := range append(four, six...) {
		if socket.St == tcpListen {
			ports[int(socket.LocalPort)] = socket.Inode
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
