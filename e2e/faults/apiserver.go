package faults

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// apiServerFaults are what can happen to the API server, and on the way to it.
func apiServerFaults() []Fault {
	const away = 90 * time.Second // client-go's watches come back within 30 s, a Lease within 15 s
	faults := []Fault{
		{Name: "the API server is stopped for 5 s", Make: stopPart("kube-apiserver"), Hold: 5 * time.Second, Within: away, Harmless: served(), Short: true},
		{
			Name: "the API server is stopped for 60 s", Make: excusing(stopPart("kube-apiserver"), startTimeout), Hold: time.Minute, Within: away,
			Harmless: served(), Away: true,
		},
		{
			Name: "the API server is stopped for 5 min", Make: excusing(stopPart("kube-apiserver"), startTimeout), Hold: 5 * time.Minute, Within: away,
			Harmless: served(), Away: true,
		},
		{Name: "the API server stands still for 30 s", Make: pausePart("kube-apiserver"), Hold: 30 * time.Second, Within: away, Harmless: served()},
		{Name: "etcd is restarted", Make: stopPart("etcd"), Hold: time.Second, Within: away, Harmless: served()},
		{Name: "etcd stands still for 10 s", Make: pausePart("etcd"), Hold: 10 * time.Second, Within: away, Harmless: served()},
		{Name: "etcd is slow for 20 s", Make: slowPart("etcd", 300*time.Millisecond, 200*time.Millisecond, 40), Hold: 20 * time.Second, Within: away, Harmless: served()},
		{Name: "a third of the requests are answered 429", Make: inject("", Injection{Code: 429, Share: 0.33}), Hold: 20 * time.Second, Within: away, Harmless: served()},
		{Name: "a third of the requests are answered 500", Make: inject("", Injection{Code: 500, Share: 0.33}), Hold: 20 * time.Second, Within: away, Harmless: served()},
		{Name: "each request takes 1.5 s longer", Make: inject("", Injection{Delay: 1500 * time.Millisecond}), Hold: 20 * time.Second, Within: away, Harmless: served()},
		{Name: "half of the requests end without an answer", Make: inject("", Injection{Refuse: true, Share: 0.5}), Hold: 20 * time.Second, Within: away, Harmless: served()},
		{Name: "half of the answers end in the middle", Make: cutAnswers, Hold: 20 * time.Second, Within: away, Harmless: served()},
		// Longer than a replica counts as one that is there.
		{Name: "the leader alone cannot reach the API server", Make: cutOffLeader, Hold: 150 * time.Second, Within: away, Harmless: served(), Away: true},
		{Name: "one replica alone is answered 500", Make: injectAtFollower(Injection{Code: 500}), Hold: 30 * time.Second, Within: away, Harmless: served()},
		{Name: "all watches are cut", Make: cutWatches, Within: 30 * time.Second, Harmless: served(), Short: true},
		{
			// By the Leases, replicas notice that after 10 s: docs/operate.md says so.
			Name: "all watches fall silent", Make: silenceWatches(everyReplica), Hold: 45 * time.Second, Within: away, Harmless: served(),
			Blind: 12 * time.Second,
		},
		{
			Name: "the watches of one replica alone fall silent", Make: silenceWatches(oneReplica), Hold: 45 * time.Second, Within: away, Harmless: served(),
			Blind: 12 * time.Second,
		},
		{Name: "watches are cut, and their versions have expired", Make: cutWatchesExpired, Hold: 5 * time.Second, Within: away, Harmless: served()},
		{Name: "watches without bookmarks", Make: noBookmarks, Hold: 100 * time.Second /* longer than a watch may be silent */, Within: away, Harmless: served()},
	}
	for i := range faults {
		faults[i].Unsure = true
	}
	return append(faults, writeFaults()...)
}

// writeFaults are what can happen to writes, while replicas hear of all that changes.
func writeFaults() []Fault {
	isWrite := func(of string) func(*http.Request) bool {
		return func(r *http.Request) bool { return strings.Contains(r.URL.Path, of) && r.Method != http.MethodGet }
	}
	isPodWrite, isEventWrite := isWrite("/pods"), isWrite("/events")
	isPodPatch := func(r *http.Request) bool { return isPodWrite(r) && r.Method == http.MethodPatch }
	const within = 90 * time.Second
	return []Fault{
		{Name: "Events are refused", Make: inject("", Injection{Code: 403, Only: isEventWrite}), Hold: 20 * time.Second, Within: within, Harmless: served(), Forgets: true},
		{Name: "writes of pods conflict", Make: claiming(inject("", Injection{Code: 409, Share: 0.5, Only: isPodWrite})), Hold: 20 * time.Second, Within: within, Harmless: served()},
		{
			Name: "answers to a third of the writes of pods are lost", Make: claiming(inject("", Injection{Lose: true, Share: 0.33, Only: isPodWrite})),
			Hold: 20 * time.Second, Within: within, Harmless: served(),
		},
		// Longer than a replica that says nothing counts as one that is there, and the timeout
		// of what is in use.
		{Name: "changes of pods are refused for 170 s", Make: inject("", Injection{Code: 403, Only: isPodPatch}), Hold: 170 * time.Second, Within: within, Harmless: append(served(), Launches)},
	}
}

// served are what goes on without the API server.
func served() []Kind { return []Kind{Polls, Pages, Uploads, Downloads, WebSockets} }

// claiming makes a fault during which several clients at a time want warm pods, of which there are
// fewer, at all replicas.
func claiming(fault maker) maker {
	return func(ctx context.Context, w *World, random *rand.Rand) (func(context.Context) error, error) {
		undo, err := fault(ctx, w, random)
		if err != nil {
			return undo, err
		}
		var clients sync.WaitGroup
		for range 2 * poolSize {
			clients.Go(func() {
				for range 2 {
					if id, ok := w.Load.launch(ctx, pooled, Idle, shortTimeout); ok {
						w.Load.awaitDeployed(ctx, pooled, id)
					}
				}
			})
		}
		return func(ctx context.Context) error {
			clients.Wait()
			return undo(ctx)
		}, nil
	}
}

type maker = func(context.Context, *World, *rand.Rand) (func(context.Context) error, error)

// stopPart ends a part of the cluster, and starts it again.
func stopPart(part string) maker {
	return func(_ context.Context, w *World, _ *rand.Rand) (func(context.Context) error, error) {
		return w.Cluster.Start, w.Cluster.Stop(part)
	}
}

// pausePart lets a part of the cluster stand still.
func pausePart(part string) maker {
	return func(_ context.Context, w *World, _ *rand.Rand) (func(context.Context) error, error) {
		return func(context.Context) error { return w.Cluster.Continue(part) }, w.Cluster.Pause(part)
	}
}

// slowPart lets a part of the cluster stand still and run in turns, until they are over.
func slowPart(part string, stopped, running time.Duration, turns int) maker {
	return func(_ context.Context, w *World, _ *rand.Rand) (func(context.Context) error, error) {
		wait, err := w.Cluster.Slow(part, stopped, running, turns)
		if err != nil {
			return nil, err
		}
		return func(context.Context) error { return wait() }, nil
	}
}

// inject injects faults between the replica at an address and the API server.
func inject(address string, t Injection) maker {
	return func(_ context.Context, w *World, _ *rand.Rand) (func(context.Context) error, error) {
		w.Injector.Make(address, t)
		return w.endInjections, nil
	}
}

func (w *World) endInjections(context.Context) error {
	w.Injector.End()
	return nil
}

// injectAtFollower injects faults for one replica, which does not lead.
func injectAtFollower(t Injection) maker {
	return func(ctx context.Context, w *World, random *rand.Rand) (func(context.Context) error, error) {
		address, err := w.addressOf(ctx, 1)
		if err != nil {
			return nil, err
		}
		return inject(address, t)(ctx, w, random)
	}
}

// cutOffLeader cuts the leader off from the API server, and its watches too.
func cutOffLeader(ctx context.Context, w *World, random *rand.Rand) (func(context.Context) error, error) {
	address, err := w.addressOf(ctx, 0)
	if err != nil {
		return nil, err
	}
	undo, err := inject(address, Injection{Refuse: true})(ctx, w, random)
	w.Injector.CutWatches(address)
	return undo, err
}

// addressOf returns the address of a replica's pod: 0 is the leader.
func (w *World) addressOf(ctx context.Context, n int) (string, error) {
	replicas, err := w.replicas(ctx)
	if err != nil {
		return "", err
	}
	api, err := url.Parse(replicas[n].API.Base())
	if err != nil {
		return "", err
	}
	return api.Hostname(), nil
}

func cutWatches(_ context.Context, w *World, _ *rand.Rand) (func(context.Context) error, error) {
	w.Injector.CutWatches("")
	return nil, nil
}

func cutWatchesExpired(ctx context.Context, w *World, random *rand.Rand) (func(context.Context) error, error) {
	undo, err := inject("", Injection{Expire: true})(ctx, w, random)
	w.Injector.CutWatches("")
	return undo, err
}

// silenceWatches lets watches bring nothing, of the replicas at an address.
func silenceWatches(of func(context.Context, *World, *rand.Rand) (address string, err error)) maker {
	isWatch := func(r *http.Request) bool { return r.URL.Query().Get("watch") == "true" }
	return func(ctx context.Context, w *World, random *rand.Rand) (func(context.Context) error, error) {
		address, err := of(ctx, w, random)
		if err != nil {
			return nil, err
		}
		return inject(address, Injection{Silent: true, Only: isWatch})(ctx, w, random)
	}
}

func everyReplica(context.Context, *World, *rand.Rand) (string, error) { return "", nil }

// oneReplica returns the address of a replica at random.
func oneReplica(ctx context.Context, w *World, random *rand.Rand) (string, error) {
	return w.addressOf(ctx, random.IntN(2))
}

// cutAnswers lets answers end in the middle, those of watches too.
func cutAnswers(ctx context.Context, w *World, random *rand.Rand) (func(context.Context) error, error) {
	undo, err := inject("", Injection{Truncate: true, Share: 0.5})(ctx, w, random)
	w.Injector.CutWatches("")
	return undo, err
}

func noBookmarks(ctx context.Context, w *World, random *rand.Rand) (func(context.Context) error, error) {
	undo, err := inject("", Injection{NoBookmarks: true})(ctx, w, random)
	w.Injector.CutWatches("")
	return undo, err
}
