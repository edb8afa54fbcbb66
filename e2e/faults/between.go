package faults

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
)

// Trouble is what a replica meets on its way to the API server.
type Trouble struct {
	Only   func(*http.Request) bool // which requests; all if nil
	Share  float64                  // of them, at random; all if 0
	Code   int                      // answered in place of the API server, if not 0
	Error  *apierrors.StatusError   // answered in place of the API server, if not nil
	Delay  time.Duration            // before the request goes on
	Refuse bool                     // the connection ends without an answer
	Lose   bool                     // the API server does what it is asked to, and the answer is lost
	Expire bool                     // watches that go on from a version of before are answered 410 Gone
	// Silent keeps watches open, those of before as well, and nothing arrives any more.
	Silent bool
	// NoBookmarks asks the API server for watches without bookmarks.
	NoBookmarks bool
}

// Between stands between the replicas and the API server. It passes everything on, with the
// replicas' own credentials, and makes trouble when it is told to.
type Between struct {
	proxy *httputil.ReverseProxy

	mu       sync.Mutex
	random   *rand.Rand
	troubles map[string]Trouble // by the replica's address; "" is for all
	watches  map[*watch]bool
}

// watch is one that is passed on.
type watch struct {
	address string
	cancel  context.CancelFunc
	silent  chan struct{} // closed once nothing more may arrive
	once    sync.Once
}

// NewBetween returns a Between that makes no trouble yet.
func NewBetween(config *rest.Config, random *rand.Rand) (*Between, error) {
	target, err := url.Parse(config.Host)
	if err != nil {
		return nil, fmt.Errorf("read the API server's address: %w", err)
	}
	anonymous := rest.AnonymousClientConfig(config) // callers bring credentials of their own
	transport, err := rest.TransportFor(anonymous)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	b := &Between{random: random, troubles: map[string]Trouble{}, watches: map[*watch]bool{}}
	b.proxy = &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     transport,
		FlushInterval: -1,
		// Requests that end are no news: the API server is stopped on purpose.
		ErrorLog:     log.New(io.Discard, "", 0),
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	return b, nil
}

// Serve serves on a listener by TLS until ctx is done.
func (b *Between) Serve(ctx context.Context, listener net.Listener, certificate tls.Certificate) error {
	server := &http.Server{
		Handler: b, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}},
	}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve between the service and the API server: %w", err)
	}
	return nil
}

// Make begins a trouble for the replica at an address, or for all if the address is "".
func (b *Between) Make(address string, trouble Trouble) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.troubles[address] = trouble
	for w := range b.watches {
		if trouble.Silent && (address == "" || address == w.address) {
			w.silence()
		}
	}
}

// End ends all troubles. Watches that were silent end: such a connection does not come back.
func (b *Between) End() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.troubles)
	for w := range b.watches {
		select {
		case <-w.silent:
			w.cancel()
		default:
		}
	}
}

// CutWatches ends the watches of the replica at an address that are open, or those of all if the
// address is "".
func (b *Between) CutWatches(address string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for w := range b.watches {
		if address == "" || address == w.address {
			w.cancel()
		}
	}
}

// troubleOf returns the trouble that a request meets.
func (b *Between) troubleOf(address string, r *http.Request) Trouble {
	b.mu.Lock()
	defer b.mu.Unlock()
	trouble, found := b.troubles[address]
	if !found {
		trouble = b.troubles[""]
	}
	if trouble.Only != nil && !trouble.Only(r) || trouble.Share > 0 && b.random.Float64() >= trouble.Share {
		return Trouble{}
	}
	return trouble
}

func (b *Between) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	address, _, _ := net.SplitHostPort(r.RemoteAddr)
	trouble := b.troubleOf(address, r)
	if trouble.Delay > 0 {
		pause(r.Context(), trouble.Delay)
	}
	query := r.URL.Query()
	isWatch := query.Get("watch") == "true"
	switch version := query.Get("resourceVersion"); {
	case trouble.Refuse:
		panic(http.ErrAbortHandler)
	case trouble.Error != nil:
		answerStatus(w, trouble.Error)
		return
	case trouble.Code != 0:
		answerStatus(w, apierrors.NewGenericServerResponse(trouble.Code, "", schema.GroupResource{}, "", madeHere, 1, true))
		return
	case trouble.Expire && version != "" && version != "0":
		answerStatus(w, apierrors.NewResourceExpired(madeHere))
		return
	}
	if trouble.Lose {
		b.proxy.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	}
	if isWatch && trouble.NoBookmarks {
		query.Del("allowWatchBookmarks")
		r.URL.RawQuery = query.Encode()
	}
	if isWatch {
		b.passWatch(w, r, address, trouble.Silent)
		return
	}
	b.proxy.ServeHTTP(w, r)
}

// madeHere is the message of errors whose text does not matter.
const madeHere = "made by the fault suite"

// answerStatus answers with an error as the API server does.
func answerStatus(w http.ResponseWriter, err *apierrors.StatusError) {
	status := err.Status()
	status.APIVersion, status.Kind = "v1", "Status"
	if status.Code == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(status.Code))
	_ = json.NewEncoder(w).Encode(&status) // fails if the client has gone
}

// passWatch passes a watch on until it ends, is cut, or falls silent.
func (b *Between) passWatch(w http.ResponseWriter, r *http.Request, address string, silent bool) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	passed := &watch{address: address, cancel: cancel, silent: make(chan struct{})}
	if silent {
		passed.silence()
	}
	b.mu.Lock()
	b.watches[passed] = true
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.watches, passed)
	}()
	b.proxy.ServeHTTP(&watchWriter{ResponseWriter: w, watch: passed}, r.WithContext(ctx))
}

func (w *watch) silence() { w.once.Do(func() { close(w.silent) }) }

// watchWriter writes what a watch brings, until it falls silent. Then it takes everything and
// writes nothing.
type watchWriter struct {
	http.ResponseWriter
	watch *watch
}

func (w *watchWriter) Write(p []byte) (int, error) {
	select {
	case <-w.watch.silent:
		return len(p), nil
	default:
		return w.ResponseWriter.Write(p)
	}
}

// Unwrap lets http.ResponseController flush.
func (w *watchWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
