// Command pause does nothing until it is told to end. It is the process that
// keeps the namespaces of a pod while the pod's containers come and go.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// The first process of a pod gets only the signals that it asks for.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	<-signals
}
