package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"path/filepath"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/bench/measure"
	"github.com/binder-project/binder-deploy-kubernetes/bench/peer"
	"github.com/binder-project/binder-deploy-kubernetes/bench/report"
)

const (
	proxyConnections = 32
	transferBytes    = 100_000_000
	megabyte         = 1_000_000

	// addedGoal is the most that the proxy may add to one request at a time, in microseconds, on
	// a machine where nginx adds nginxAdded. Another machine's wakes cost more or less, so the
	// ratio of the two is the goal that carries over.
	addedGoal, nginxAdded = 110.0, 24.0
)

// proxySmall compares requests per second. The generator and the application take a part of
// the two processors from all of them alike.
func proxySmall(ctx context.Context, b *bench) ([]report.Line, error) {
	s, err := b.start(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Stop()
	plain, err := peer.StartReverseProxy(ctx, b.backend.Address)
	if err != nil {
		return nil, err
	}
	defer plain.Stop()
	chp, err := peer.StartCHP(ctx, filepath.Join(b.root, "bench", "peer", "chp"), b.backend.Address)
	if err != nil {
		return nil, err
	}
	defer chp.Stop()
	nginx, err := peer.StartNginx(ctx, b.dir, b.backend.Address)
	if err != nil {
		return nil, err
	}
	defer nginx.Stop()
	rounds, err := measure.Alternate(ctx, wrkRounds*b.rounds, true,
		b.wrk("ours", s.InstanceURL(b.world.IDs()[0]), proxyConnections),
		b.wrk("plain ReverseProxy", "http://"+plain.Address+"/", proxyConnections),
		b.wrk("configurable-http-proxy", "http://"+chp.Address+"/", proxyConnections),
		b.wrk("nginx", "http://"+nginx.Address+"/", proxyConnections))
	if err != nil {
		return nil, err
	}
	const metric, unit = "proxy, small responses, 32 connections", "requests/s"
	old := compare(metric, unit, "configurable-http-proxy", rounds, 2, report.AtLeast(3.5, "in every round"))
	old.Figure = old.Low
	const reason = "two thirds of the time are system calls and the scheduler's; of the rest, the contexts of each request and the copies of its head are the largest parts"
	return []report.Line{
		compare(metric, unit, "plain ReverseProxy", rounds, 1, report.AtLeast(1.15, "")).Because(reason),
		old.Because(reason),
		compare(metric, unit, "nginx", rounds, 3, report.AtLeast(0.5, "")).Because(reason),
	}, nil
}

// proxyLatency compares what the proxies add to the time of one request at a time.
func proxyLatency(ctx context.Context, b *bench) ([]report.Line, error) {
	s, err := b.start(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Stop()
	nginx, err := peer.StartNginx(ctx, b.dir, b.backend.Address)
	if err != nil {
		return nil, err
	}
	defer nginx.Stop()
	relay, err := peer.StartRelay(ctx, b.backend.Address)
	if err != nil {
		return nil, err
	}
	defer relay.Stop()
	rounds, err := measure.Alternate(ctx, wrkRounds*b.rounds, true,
		b.wrk("ours", s.InstanceURL(b.world.IDs()[0]), 1),
		b.wrk("nginx", "http://"+nginx.Address+"/", 1),
		b.wrk("relay", "http://"+relay.Address+"/", 1),
		b.wrk("direct", "http://"+b.backend.Address+"/", 1))
	if err != nil {
		return nil, err
	}
	const direct = 3
	added := make(measure.Rounds, direct)
	for subject := range added {
		for round := range rounds[subject] {
			added[subject] = append(added[subject], 1e6/rounds[subject][round]-1e6/rounds[direct][round])
		}
	}
	const metric, unit = "proxy, one connection, added to direct", "µs"
	reason := fmt.Sprintf("the goal of %.0f µs is from a machine on which nginx adds %.0f; here a relay in Go that reads and writes once each way, and knows nothing of HTTP, adds %s. The rest is net/http's reading and writing of heads",
		addedGoal, nginxAdded, format(measure.Median(added[2]), unit))
	alone := own(metric+", alone", unit, added[0], report.AtMost(addedGoal, unit))
	alone.Peer = "direct: " + format(1e6/measure.Median(rounds[direct]), unit)
	return []report.Line{
		compare(metric, unit, "what nginx adds", added, 1, report.AtMost(math.Round(addedGoal/nginxAdded*10)/10, "× nginx's")).Because(reason),
		alone.Because(reason),
	}, nil
}

// transfer compares megabytes per second with those of the application itself.
func transfer(ctx context.Context, b *bench) ([]report.Line, error) {
	s, err := b.start(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Stop()
	ours, direct := s.InstanceURL(b.world.IDs()[0])+peer.BigPath, "http://"+b.backend.Address+"/"+peer.BigPath
	var lines []report.Line
	for _, way := range []struct {
		name string
		send func(url string) measure.Subject
	}{{"down", down}, {"up", up}} {
		rounds, err := measure.Alternate(ctx, 3*b.rounds, true, way.send(ours), way.send(direct))
		if err != nil {
			return nil, err
		}
		lines = append(lines, compare("proxy, 100 MB "+way.name, "MB/s", "direct", rounds, 1, report.AtLeast(0.85, "")).
			Because("the bytes pass through the process, on two processors that client and application need as well: a bare relay between two sockets, with 512 KiB at a time or splice(2), reached 0.4 to 0.7 of direct on two processors"))
	}
	return lines, nil
}

func down(url string) measure.Subject {
	return transferred(url, func(ctx context.Context) (*http.Request, error) {
		return http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s?bytes=%d", url, transferBytes), nil)
	}, transferBytes)
}

func up(url string) measure.Subject {
	return transferred(url, func(ctx context.Context) (*http.Request, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, io.LimitReader(zeros{}, transferBytes))
		if err == nil {
			request.ContentLength = transferBytes
		}
		return request, err
	}, 0)
}

// transferred sends one request over a connection of its own and reads the answer, which
// must have as many bytes as want.
func transferred(name string, make func(ctx context.Context) (*http.Request, error), want int64) measure.Subject {
	return measure.Subject{Name: name, Run: func(ctx context.Context) (float64, error) {
		request, err := make(ctx)
		if err != nil {
			return 0, err
		}
		transport := &http.Transport{DisableKeepAlives: true, ReadBufferSize: bufferSize, WriteBufferSize: bufferSize, DisableCompression: true}
		began := time.Now()
		response, err := transport.RoundTrip(request)
		if err != nil {
			return 0, err
		}
		defer response.Body.Close()
		size, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, response.Body, buffer())
		if err != nil || size != want || response.StatusCode != http.StatusOK {
			return 0, fmt.Errorf("%s: %s, %d bytes, %w", name, response.Status, size, err)
		}
		return transferBytes / megabyte / time.Since(began).Seconds(), nil
	}}
}

// bufferSize is large, so that the client costs little.
const bufferSize = 256 << 10

func buffer() []byte { return make([]byte, bufferSize) }

// zeros is a reader without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
