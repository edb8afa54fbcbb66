package proxy

import (
	"net"
	"syscall"
	"testing"
	"time"
)

// The kernel ends the connections of a machine that has vanished: of both kinds.
func TestVanishedMachines(t *testing.T) {
	const idle = 7 * time.Second
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	visitors := Listen(inner, idle)
	defer visitors.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := visitors.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- c
	}()
	pod, err := dialer(idle)(t.Context(), inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer pod.Close()
	visitor := <-accepted
	defer visitor.Close()
	for side, c := range map[string]net.Conn{"visitor": visitor, "pod": pod} {
		raw, err := c.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.Control(func(fd uintptr) {
			keepAlive, _ := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE)
			timeout, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout)
			if err != nil || keepAlive != 1 || timeout != int(idle.Milliseconds()) {
				t.Errorf("%s: keep-alive %d, user timeout %d ms, %v", side, keepAlive, timeout, err)
			}
		})
	}
}
