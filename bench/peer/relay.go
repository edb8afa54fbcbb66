package peer

import (
	"context"
	"fmt"
	"net"
)

// relayBuffer is larger than any small request or answer.
const relayBuffer = 16 << 10

// StartRelay starts what does less than any proxy of HTTP: for each connection one to the
// backend, and one goroutine that passes on what it reads, a request and then its answer. It
// works only for messages that arrive in one piece.
func StartRelay(ctx context.Context, backend string) (*Peer, error) {
	return startForwarder(ctx, "relay", backend)
}

func runRelay(argument string) error {
	listen, backend, err := forwarderAddresses(argument)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	for {
		client, err := listener.Accept()
		if err != nil {
			return fmt.Errorf("accept a connection: %w", err)
		}
		go relay(client, backend)
	}
}

// relay ends with either connection.
func relay(client net.Conn, backend string) {
	defer client.Close()
	application, err := net.Dial("tcp", backend)
	if err != nil {
		return
	}
	defer application.Close()
	buffer := make([]byte, relayBuffer)
	for from, to := client, application; ; from, to = to, from {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}
