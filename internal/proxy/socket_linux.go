package proxy

import "syscall"

// setSocketOption sets an option of a TCP socket. An old kernel does not know some of them.
func setSocketOption(fd uintptr, option, value int) {
	_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, option, value)
}
