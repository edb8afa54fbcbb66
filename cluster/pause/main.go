// Command pause waits for a signal to exit. It holds a pod's namespaces while
// the pod's containers start and stop.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// Process 1 receives only the signals that it handles.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	<-signals
}
