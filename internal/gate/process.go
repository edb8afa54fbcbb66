package gate

import (
	"math"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
)

// MemoryLimit returns how many bytes of memory the process may use: GOMEMLIMIT, because
// that is what the runtime keeps to; else the limit of its container (memory.max of cgroup
// v2); else 512 MiB, which is what the manifests give it.
func MemoryLimit(readFile func(string) ([]byte, error)) int64 {
	if limit := debug.SetMemoryLimit(-1); limit != math.MaxInt64 {
		return limit
	}
	text, _ := readFile("/sys/fs/cgroup/memory.max") // absent without cgroup v2, or "max"
	if limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil {
		return limit
	}
	return 512 << 20
}

// FileLimit returns how many files the process may have open. The runtime has raised it as
// far as it may.
func FileLimit() int64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > math.MaxInt32 {
		return math.MaxInt32
	}
	return int64(limit.Cur)
}
