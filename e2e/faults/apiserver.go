package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// apiServerFaults are what can happen to the API server, and on the way to it.
func apiServerFaults() []Fault {
	isEvent := func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/events") }
	isPodWrite := func(r *http.Request) bool {
		return strings.Contains(r.URL.Path, "/pods") && r.Method != http.MethodGet
	}
	isWatch := func(r *http.Request) bool { return r.URL.Query().Get("watch") == "true" }
	const away = 90 * time.Second // client-go's watches come back within 30 s, a Lease within 15 s
	return []Fault{
		{Name: "the API server is stopped for 5 s", Make: stopPart("kube-apiserver"), Hold: 5 * time.Second, Within: away, Harmless: served(), Short: true},
		{Name: "the API server is stopped for 60 s", Make: stopPart("kube-apiserver"), Hold: time.Minute, Within: away, Harmless: served()},
		{Name: "the API server is stopped for 5 min", Make: stopPart("kube-apiserver"), Hold: 5 * time.Minute, Within: away, Harmless: served()},
		{Name: "the API server stands still for 30 s", Make: pausePart("kube-apiserver"), Hold: 30 * time.Second, Within: away, Harmless: served()},
		{Name: "etcd is restarted", Make: stopPart("etcd"), Hold: time.Second, Within: away, Harmless: served()},
		{Name: "etcd stands still for 10 s", Make: pausePart("etcd"), Hold: 10 * time.Second, Within: away, Harmless: served()},
		{Name: "a third of the requests are answered 429", Make: trouble("", Trouble{Code: 429, Share: 0.33}), Hold: 20 * time.Second, Within: away, Harmless: served()},
		{Name: "a third of the requests are answered 500", Make: trouble("", Trouble{Code: 500, Share: 0.33}), Hold: 20 * time.Second, Within: away, Harmless: served()},
		{Name: "each request takes 1.5 s longer", Make: trouble("", Trouble{Delay: 1500 * time.Millisecond}), Hold: 20 * time.Second, Within: away, Harmless: served()},
		{Name: "half of the requests end without an answer", Make: trouble("", Trouble{Refuse: true, Share: 0.5}), Hold: 20 * time.Second, Within: away, Harmless: served()},
		{Name: "the leader alone cannot reach the API server", Make: troubleOfLeader(Trouble{Refuse: true}), Hold: 30 * time.Second, Within: away, Harmless: served()},
		{Name: "one replica alone is answered 500", Make: troubleOfFollower(Trouble{Code: 500}), Hold: 30 * time.Second, Within: away, Harmless: served()},
		{Name: "all watches are cut", Make: cutWatches, Within: 30 * time.Second, Harmless: served(), Short: true},
		{Name: "all watches fall silent", Make: trouble("", Trouble{Silent: true, Only: isWatch}), Hold: 45 * time.Second, Within: away, Harmless: served()},
		{Name: "watches are cut, and their versions have expired", Make: cutWatchesExpired, Hold: 5 * time.Second, Within: away, Harmless: served()},
		{Name: "watches without bookmarks", Make: noBookmarks, Hold: 20 * time.Second, Within: away, Harmless: served()},
		{Name: "Events are refused", Make: trouble("", Trouble{Code: 403, Only: isEvent}), Hold: 20 * time.Second, Within: away, Harmless: served()},
		{Name: "writes of pods conflict", Make: trouble("", Trouble{Code: 409, Share: 0.5, Only: isPodWrite}), Hold: 20 * time.Second, Within: away, Harmless: served()},
	}
}

// served are what goes on without the API server.
func served() []Kind { return []Kind{Pages, Uploads, Downloads} }

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

// trouble makes trouble between the replica at an address and the API server.
func trouble(address string, t Trouble) maker {
	return func(_ context.Context, w *World, _ *rand.Rand) (func(context.Context) error, error) {
		w.Between.Make(address, t)
		return w.endTrouble, nil
	}
}

func (w *World) endTrouble(context.Context) error {
	w.Between.End()
	return nil
}

func troubleOfLeader(t Trouble) maker   { return troubleOfReplica(0, t) }
func troubleOfFollower(t Trouble) maker { return troubleOfReplica(1, t) }

// troubleOfReplica makes trouble for one replica: 0 is the leader.
func troubleOfReplica(n int, t Trouble) maker {
	return func(ctx context.Context, w *World, random *rand.Rand) (func(context.Context) error, error) {
		replicas, err := w.replicas(ctx)
		if err != nil {
			return nil, err
		}
		if len(replicas) <= n {
			return nil, fmt.Errorf("%d replicas are ready", len(replicas))
		}
		api, err := url.Parse(replicas[n].API.Base())
		if err != nil {
			return nil, err
		}
		address, _, err := net.SplitHostPort(api.Host)
		if err != nil {
			return nil, err
		}
		return trouble(address, t)(ctx, w, random)
	}
}

func cutWatches(_ context.Context, w *World, _ *rand.Rand) (func(context.Context) error, error) {
	w.Between.CutWatches()
	return nil, nil
}

func cutWatchesExpired(ctx context.Context, w *World, random *rand.Rand) (func(context.Context) error, error) {
	undo, err := trouble("", Trouble{Expire: true})(ctx, w, random)
	w.Between.CutWatches()
	return undo, err
}

func noBookmarks(ctx context.Context, w *World, random *rand.Rand) (func(context.Context) error, error) {
	undo, err := trouble("", Trouble{NoBookmarks: true})(ctx, w, random)
	w.Between.CutWatches()
	return undo, err
}
