package faults

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
)

// Injection is what a replica meets on its way to the API server.
type Injection struct {
	Only   func(*http.Request) bool // which requests; all if nil
	Share  float64                  // of them, at random; all if 0
	Code   int                      // answered in place of the API server, if not 0
	Error  *apierrors.StatusError   // answered in place of the API server, if not nil
	Delay  time.Duration            // before the request goes on
	Refuse bool                     // the connection ends without an answer
	Lose   bool                     // the API server does what it is asked to, and the answer is lost
	// Truncate ends an answer in the middle of its body. The API server does what it is asked to.
	Truncate bool
	Expire   bool // watches that go on from a version of before are answered 410 Gone
	// Silent keeps watches open, those of before as well, and nothing arrives any more.
	Silent bool
	// NoBookmarks asks the API server for watches without bookmarks.
	NoBookmarks bool
}

// Injector stands between the replicas and the API server. It passes everything on, with the
// replicas' own credentials, and injects faults when it is told to.
type Injector struct {
	proxy *httputil.ReverseProxy

	mu         sync.Mutex
	random     *rand.Rand
	injections map[string]Injection // by the replica's address; "" is for all
	watches    map[*watch]bool
}

// watch is one that is passed on.
type watch struct {
	address string
	cancel  context.CancelFunc
	silent  chan struct{} // closed once nothing more may arrive
	once    sync.Once
}

// NewInjector returns an Injector that injects nothing yet.
func NewInjector(config *rest.Config, random *rand.Rand) (*Injector, error) {
	target, err := url.Parse(config.Host)
	if err != nil {
		return nil, fmt.Errorf("read the API server's address: %w", err)
	}
	anonymous := rest.AnonymousClientConfig(config) // callers bring credentials of their own
	transport, err := rest.TransportFor(anonymous)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	i := &Injector{random: random, injections: map[string]Injection{}, watches: map[*watch]bool{}}
	i.proxy = &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     transport,
		FlushInterval: -1,
		// Requests that end are no news: the API server is stopped on purpose.
		ErrorLog:     log.New(io.Discard, "", 0),
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	return i, nil
}

// Serve serves on a listener by TLS until ctx is done.
func (i *Injector) Serve(ctx context.Context, listener net.Listener, certificate tls.Certificate) error {
	server := &http.Server{
		Handler: i, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}},
	}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve between the service and the API server: %w", err)
	}
	return nil
}

// Make begins to inject something for the replica at an address, or for all if the address is "".
func (i *Injector) Make(address string, injected Injection) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.injections[address] = injected
	for w := range i.watches {
		if injected.Silent && (address == "" || address == w.address) {
			w.silence()
		}
	}
}

// End ends all injections. Watches that were silent end: such a connection does not come back.
func (i *Injector) End() {
	i.mu.Lock()
	defer i.mu.Unlock()
	clear(i.injections)
	for w := range i.watches {
		select {
		case <-w.silent:
			w.cancel()
		default:
		}
	}
}

// CutWatches ends the watches of the replica at an address that are open, or those of all if the
// address is "".
func (i *Injector) CutWatches(address string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for w := range i.watches {
		if address == "" || address == w.address {
			w.cancel()
		}
	}
}

// injectionFor returns what a request meets.
func (i *Injector) injectionFor(address string, r *http.Request) Injection {
	i.mu.Lock()
	defer i.mu.Unlock()
	injected, found := i.injections[address]
	if !found {
		injected = i.injections[""]
	}
	if injected.Only != nil && !injected.Only(r) || injected.Share > 0 && i.random.Float64() >= injected.Share {
		return Injection{}
	}
	return injected
}

func (i *Injector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	address, _, _ := net.SplitHostPort(r.RemoteAddr)
	injected := i.injectionFor(address, r)
	if injected.Delay > 0 {
		pause(r.Context(), injected.Delay)
	}
	query := r.URL.Query()
	isWatch := query.Get("watch") == "true"
	switch version := query.Get("resourceVersion"); {
	case injected.Refuse:
		panic(http.ErrAbortHandler)
	case injected.Error != nil:
		answerStatus(w, injected.Error)
		return
	case injected.Code != 0:
		answerStatus(w, apierrors.NewGenericServerResponse(injected.Code, "", schema.GroupResource{}, "", madeHere, 1, true))
		return
	case injected.Expire && version != "" && version != "0":
		answerStatus(w, apierrors.NewResourceExpired(madeHere))
		return
	}
	if injected.Lose {
		i.proxy.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	}
	if isWatch && injected.NoBookmarks {
		query.Del("allowWatchBookmarks")
		r.URL.RawQuery = query.Encode()
	}
	if isWatch {
		if injected.Truncate {
			w = &cutWriter{ResponseWriter: w, left: i.cutAfter()}
		}
		i.passWatch(w, r, address, injected.Silent)
		return
	}
	if injected.Truncate {
		i.passHalf(w, r)
	}
	i.proxy.ServeHTTP(w, r)
}

// cutAfter returns after how many bytes a watch is cut: some have told of all that there is by then.
func (i *Injector) cutAfter() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.random.IntN(64 << 10)
}

// passHalf passes on the first half of an answer, and ends the connection.
func (i *Injector) passHalf(w http.ResponseWriter, r *http.Request) {
	answer := httptest.NewRecorder()
	i.proxy.ServeHTTP(answer, r)
	maps.Copy(w.Header(), answer.Header())
	w.Header().Set("Content-Length", strconv.Itoa(answer.Body.Len()))
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes()[:answer.Body.Len()/2]) // fails if the client has gone
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// cutWriter writes the first bytes of an answer, and then ends the connection.
type cutWriter struct {
	http.ResponseWriter
	left int
}

func (w *cutWriter) Write(p []byte) (int, error) {
	if len(p) <= w.left {
		w.left -= len(p)
		return w.ResponseWriter.Write(p)
	}
	_, _ = w.ResponseWriter.Write(p[:w.left])
	_ = http.NewResponseController(w.ResponseWriter).Flush()
	panic(http.ErrAbortHandler)
}

// Unwrap lets http.ResponseController flush.
func (w *cutWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

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
func (i *Injector) passWatch(w http.ResponseWriter, r *http.Request, address string, silent bool) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	passed := &watch{address: address, cancel: cancel, silent: make(chan struct{})}
	if silent {
		passed.silence()
	}
	i.mu.Lock()
	i.watches[passed] = true
	i.mu.Unlock()
	defer func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		delete(i.watches, passed)
	}()
	i.proxy.ServeHTTP(&watchWriter{ResponseWriter: w, watch: passed}, r.WithContext(ctx))
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
