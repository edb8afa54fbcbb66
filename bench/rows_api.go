package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/binder-project/binder-deploy-kubernetes/bench/measure"
	"github.com/binder-project/binder-deploy-kubernetes/bench/peer"
	"github.com/binder-project/binder-deploy-kubernetes/bench/report"
	"github.com/binder-project/binder-deploy-kubernetes/bench/service"
	"github.com/binder-project/binder-deploy-kubernetes/bench/world"
)

const (
	apiConnections = 32
	quietGets      = 100_000
	// settle is how long after its start a replica may still do what every start does.
	settle = 3 * time.Second
)

// status asks for the status of all instances in turn. The peer is a handler that writes
// the same bytes from memory.
func status(ctx context.Context, b *bench) ([]report.Line, error) {
	s, err := b.start(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Stop()
	var paths []string
	for _, id := range b.world.IDs() {
		paths = append(paths, "/applications/"+world.Template+"/"+id)
	}
	bare, err := peer.StartBare(ctx, s.StatusURL(b.world.IDs()[0]))
	if err != nil {
		return nil, err
	}
	defer bare.Stop()
	rounds, err := measure.Alternate(ctx, wrkRounds*b.rounds, true,
		b.wrk("ours", "http://"+s.API, apiConnections, paths...),
		b.wrk("bare handler", "http://"+bare.Address, apiConnections, paths...))
	if err != nil {
		return nil, err
	}
	return []report.Line{compare("GET status, 10,000 instances", "requests/s", "bare handler", rounds, 1, report.AtLeast(0.9, "")).
		Because("where it was profiled, a request took some 5 µs more of the processors than the bare handler's 20: a third of that to collect the garbage of a heap with 10,000 instances, a quarter for the deadlines of a connection, and the rest for routing, metrics, and memory that no cache of the processor holds")}, nil
}

// quiet counts what 100,000 GETs cause at the API server. The Lease is renewed anyway.
func quiet(ctx context.Context, b *bench) ([]report.Line, error) {
	gateway, err := startGateway(b.world.Config, b.dir)
	if err != nil {
		return nil, err
	}
	defer gateway.Close()
	s, err := service.Start(ctx, service.Options{Binary: b.binary, Kubeconfig: gateway.kubeconfig, Dir: b.dir})
	if err != nil {
		return nil, err
	}
	defer s.Stop()
	if err := sleep(ctx, settle); err != nil {
		return nil, err
	}
	gateway.reset()
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range apiConnections {
		group.Go(func() error {
			for n := next.Add(1); n <= quietGets; n = next.Add(1) {
				if _, err := s.Get(ctx, s.StatusURL(b.world.IDs()[int(n)%len(b.world.IDs())])); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	caused := float64(gateway.total())
	line := own("API requests caused by 100,000 GETs of a status", "requests", []float64{caused}, report.AtMost(0, "requests"))
	return []report.Line{line.Because(fmt.Sprint("these were sent: ", gateway.counts()))}, nil
}

// listed is one element of a list, with the fields of the protocol in their order.
type listed struct {
	ID                 string `json:"id"`
	TemplateName       string `json:"template-name"`
	Location           string `json:"location,omitempty"`
	Status             string `json:"status"`
	Reason             string `json:"reason,omitempty"`
	Message            string `json:"message,omitempty"`
	Fault              string `json:"fault,omitempty"`
	Detail             string `json:"detail,omitempty"`
	Restarts           int32  `json:"restarts,omitempty"`
	RestartReason      string `json:"restart-reason,omitempty"`
	LastActivity       string `json:"last-activity,omitempty"`
	LastActivitySource string `json:"last-activity-source,omitempty"`
	CullAt             string `json:"cull-at,omitempty"`
}

// list asks for all instances. The peer is the encoding of the same slice.
func list(ctx context.Context, b *bench) ([]report.Line, error) {
	s, err := b.start(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Stop()
	url := "http://" + s.API + "/applications/"
	if err := awaitQuiet(ctx, quietTimeout); err != nil {
		return nil, err
	}
	first, err := timed("first", func(ctx context.Context) error { return s.Read(ctx, url) }).Run(ctx)
	if err != nil {
		return nil, err
	}
	body, err := s.Get(ctx, url)
	if err != nil {
		return nil, err
	}
	var all []listed
	if err := json.Unmarshal(body, &all); err != nil {
		return nil, fmt.Errorf("read the list: %w", err)
	}
	rounds, err := measure.Alternate(ctx, 11*b.rounds, true,
		timed("ours", func(ctx context.Context) error { return s.Read(ctx, url) }),
		timed("json.Marshal", func(context.Context) error { _, err := json.Marshal(all); return err }))
	if err != nil {
		return nil, err
	}
	whole := compare(fmt.Sprintf("GET list of %d", len(all)), "ms", "json.Marshal of the same slice", rounds, 1, report.AtMost(1.3, "× its time")).
		Because("the service's part takes less (BenchmarkGetList, BenchmarkMarshalList); the rest is the transfer of 2.5 MB to another process, which each of some 20 writes wakes")
	cold := own("the first such GET, before any instance was encoded", "ms", []float64{first}, report.Goal{})
	zipped, err := zippedLines(ctx, b, s, url, len(body))
	return append([]report.Line{whole, cold}, zipped...), err
}

// scrape asks for the metrics.
func scrape(ctx context.Context, b *bench) ([]report.Line, error) {
	s, err := b.start(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Stop()
	rounds, err := measure.Alternate(ctx, 5*b.rounds, true, scrapes(s))
	if err != nil {
		return nil, err
	}
	return []report.Line{own("GET /metrics at 10,000", "ms", rounds[0], report.AtMost(10, "ms"))}, nil
}

func scrapes(s *service.Service) measure.Subject {
	return timed("scrape", func(ctx context.Context) error { _, err := s.Get(ctx, "http://"+s.Metrics+"/metrics"); return err })
}

// timed is a subject whose figure is the time that a call takes, in milliseconds.
func timed(name string, call func(ctx context.Context) error) measure.Subject {
	return measure.Subject{Name: name, Run: func(ctx context.Context) (float64, error) {
		began := time.Now()
		err := call(ctx)
		return measure.Milliseconds(time.Since(began)), err
	}}
}

// sleep waits, unless the benchmark is stopped.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
