package proxy

import (
	"syscall"
	"time"
)

// maxUnsent is the most bytes that the kernel holds of a connection's writes and has not
// sent yet. Without a bound, it holds up to 4 MiB for a peer that does not read.
const maxUnsent = 128 << 10

// podReadBuffer is how many bytes the kernel holds that a pod has sent and nobody has read
// yet; it doubles that. It takes up to 6 MiB otherwise. Pods are near, so this is fast enough.
const podReadBuffer = 128 << 10

// Options of TCP on Linux: see tcp(7). Package syscall does not name them.
const (
	tcpUserTimeout  = 0x12
	tcpNotsentLowat = 0x19
)

// tuneSocket sets maxUnsent, and how long a peer may leave what was sent to it
// unacknowledged, which TCP's keep-alive probes are as well. 0 leaves the system's defaults:
// two minutes for the probes, and about 15 for data.
func tuneSocket(raw syscall.RawConn, idle time.Duration) {
	_ = raw.Control(func(fd uintptr) { // fails only once the connection is closed
		setSocketOption(fd, tcpNotsentLowat, maxUnsent)
		if idle > 0 {
			setSocketOption(fd, tcpUserTimeout, int(idle.Milliseconds()))
		}
	})
}
