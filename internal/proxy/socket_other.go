//go:build !linux

package proxy

// setSocketOption does nothing: the options are Linux's.
func setSocketOption(uintptr, int, int) {}
