package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"

	"github.com/binder-project/binder-deploy-kubernetes/bench/measure"
	"github.com/binder-project/binder-deploy-kubernetes/bench/peer"
	"github.com/binder-project/binder-deploy-kubernetes/bench/report"
	"github.com/binder-project/binder-deploy-kubernetes/bench/service"
)

const (
	echoConnections = 100
	echoTime        = 5 * time.Second
	frameSize       = 1 << 10
	idleConnections = 10_000
	// otherFiles is how many files a process has open besides its WebSockets, at most.
	otherFiles    = 500
	openingAtOnce = 64
	kibibyte      = 1 << 10
)

// socketEcho sends a frame over each connection once the one before has come back.
func socketEcho(ctx context.Context, b *bench) ([]report.Line, error) {
	s, err := b.start(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Stop()
	rounds, err := measure.Alternate(ctx, b.rounds, true,
		echoes("ours", socketURL(s, b.world.IDs()[0])),
		echoes("direct", "ws://"+b.backend.Address+"/"+peer.SocketPath))
	if err != nil {
		return nil, err
	}
	return []report.Line{compare("WebSocket echo, 1 KiB frames, 100 connections", "frames/s", "direct", rounds, 1, report.AtLeast(0.5, ""))}, nil
}

func socketURL(s *service.Service, id string) string {
	return strings.Replace(s.InstanceURL(id), "http:", "ws:", 1) + peer.SocketPath
}

func echoes(name, url string) measure.Subject {
	return measure.Subject{Name: name, Run: func(ctx context.Context) (float64, error) {
		sockets, err := open(ctx, url, echoConnections)
		if err != nil {
			return 0, err
		}
		defer closeAll(sockets)
		var echoed atomic.Int64
		began := time.Now()
		group, ctx := errgroup.WithContext(ctx)
		for _, socket := range sockets {
			group.Go(func() error {
				for time.Since(began) < echoTime {
					if err := echo(ctx, socket); err != nil {
						return err
					}
					echoed.Add(1)
				}
				return nil
			})
		}
		err = group.Wait()
		return float64(echoed.Load()) / time.Since(began).Seconds(), err
	}}
}

// idleSockets returns what WebSockets cost that have been used once.
func idleSockets(ctx context.Context, b *bench) ([]report.Line, error) {
	s, err := b.start(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Stop()
	before, err := memory(ctx, s)
	if err != nil {
		return nil, err
	}
	count, err := socketsWithinLimit()
	if err != nil {
		return nil, err
	}
	sockets, err := open(ctx, socketURL(s, b.world.IDs()[0]), count)
	defer closeAll(sockets)
	if err != nil {
		return nil, err
	}
	if err := sleep(ctx, settle); err != nil {
		return nil, err
	}
	after, err := memory(ctx, s)
	if err != nil {
		return nil, err
	}
	each := (after - before) / float64(count) / kibibyte
	line := own(fmt.Sprintf("%d idle WebSockets, heap and stacks", count), "KiB each", []float64{each}, report.AtMost(40, "KiB each"))
	resident, err := s.ResidentMemory()
	if err != nil {
		return nil, err
	}
	line.Peer = "RSS in all: " + format(resident/megabyte, "MB")
	return []report.Line{line}, nil
}

// socketsWithinLimit returns how many WebSockets the service can proxy with the files that it
// may open: each is a connection on both sides.
func socketsWithinLimit() (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("read the limit of open files: %w", err)
	}
	return int(min(idleConnections, (limit.Max-otherFiles)/2)), nil
}

// memory returns the heap and the stacks that are in use, after a collection of garbage.
func memory(ctx context.Context, s *service.Service) (float64, error) {
	values, err := s.Scrape(ctx, true, "go_memstats_heap_inuse_bytes", "go_memstats_stack_inuse_bytes")
	if err != nil {
		return 0, err
	}
	return values[0] + values[1], nil
}

// open opens WebSockets and uses each once.
func open(ctx context.Context, url string, count int) ([]*websocket.Conn, error) {
	sockets := make([]*websocket.Conn, count)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	group, opening := errgroup.WithContext(ctx)
	group.SetLimit(openingAtOnce)
	for i := range sockets {
		group.Go(func() error {
			socket, _, err := websocket.Dial(opening, url, &websocket.DialOptions{HTTPClient: client, CompressionMode: websocket.CompressionDisabled})
			if err != nil {
				return fmt.Errorf("open WebSocket %d: %w", i, err)
			}
			sockets[i] = socket
			return echo(ctx, socket)
		})
	}
	return sockets, group.Wait()
}

func closeAll(sockets []*websocket.Conn) {
	for _, socket := range sockets {
		if socket != nil {
			_ = socket.CloseNow() // the benchmark is done with it
		}
	}
}

// echo sends a frame and waits until it has come back.
func echo(ctx context.Context, socket *websocket.Conn) error {
	sent := bytes.Repeat([]byte("a"), frameSize)
	if err := socket.Write(ctx, websocket.MessageBinary, sent); err != nil {
		return fmt.Errorf("send a frame: %w", err)
	}
	_, received, err := socket.Read(ctx)
	if err != nil || !bytes.Equal(sent, received) {
		return fmt.Errorf("read a frame: %d bytes, %w", len(received), err)
	}
	return nil
}
