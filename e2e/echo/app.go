package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// Limits of the request parameters and bodies.
const (
	maxMessage  = 16 << 20 // size of a WebSocket message
	maxUpload   = 1 << 30
	maxDownload = 1 << 30
	maxChunks   = 10_000
	minInterval = 10 * time.Millisecond
	maxInterval = time.Hour
)

// app is the application.
type app struct {
	env  map[string]string // BINDER_…
	exit chan<- int        // receives the process's exit code

	procedures map[string]http.Handler // of rpc, by their names

	mu    sync.Mutex
	eaten [][]byte // by requests to eat
}

func newApp(environ []string, exit chan<- int) *app {
	env := map[string]string{}
	for _, variable := range environ {
		if name, value, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "BINDER_") {
			env[name] = value
		}
	}
	return &app{env: env, exit: exit, procedures: rpcHandlers()}
}

// ServeHTTP dispatches on the last path segment. It does not use a ServeMux,
// because a ServeMux cleans the path.
func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if procedure := a.rpc(r); procedure != nil {
		procedure.ServeHTTP(w, r)
		return
	}
	switch path.Base(r.URL.Path) {
	case "ws":
		a.webSocket(w, r)
	case "stream":
		a.stream(w, r)
	case "download":
		a.download(w, r)
	case "upload":
		a.upload(w, r)
	case "status":
		a.status(w, r)
	case "redirect":
		a.redirect(w, r)
	case "dial":
		a.dial(w, r)
	case "fill":
		a.fill(w, r)
	case "eat":
		a.eat(w, r)
	case "exit":
		a.exitProcess(w, r)
	default:
		a.describe(w, r)
	}
}

// requestInfo describes a request as it arrived.
type requestInfo struct {
	Method  string            `json:"method"`
	Path    string            `json:"path"` // escaped, as received
	Query   string            `json:"query"`
	Headers http.Header       `json:"headers"`
	Host    string            `json:"host"`
	Remote  string            `json:"remote"`
	Env     map[string]string `json:"env"`
}

func (a *app) describe(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, requestInfo{
		Method:  r.Method,
		Path:    r.URL.EscapedPath(),
		Query:   r.URL.RawQuery,
		Headers: r.Header,
		Host:    r.Host,
		Remote:  r.RemoteAddr,
		Env:     a.env,
	})
}

// webSocket echoes messages until the client closes the connection.
func (a *app) webSocket(w http.ResponseWriter, r *http.Request) {
	interval, err := durationParam(r.URL.Query(), "ping")
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	// The proxy, which is under test, checks the origin.
	connection, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return // Accept has sent the response
	}
	defer connection.CloseNow()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	if interval > 0 {
		go ping(ctx, connection, interval)
	}
	connection.SetReadLimit(maxMessage)
	for {
		// Read the whole message first: a client may not read while it sends.
		kind, message, err := connection.Read(ctx)
		if err != nil {
			return
		}
		if err := connection.Write(ctx, kind, message); err != nil {
			return
		}
	}
}

// ping sends a ping at every interval and waits for each answer. A missing answer
// does not close the connection.
func ping(ctx context.Context, connection *websocket.Conn, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if err := connection.Ping(ctx); err != nil {
				return
			}
		}
	}
}

// stream sends a line at every interval, the first at once.
func (a *app) stream(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	chunks, err := intParam(query, "chunks", 1, 1, maxChunks)
	interval, err2 := durationParam(query, "every")
	if err := errors.Join(err, err2); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	for i := range chunks {
		if i > 0 && interval > 0 {
			select {
			case <-r.Context().Done():
				return
			case <-time.After(interval):
			}
		}
		fmt.Fprintf(w, "chunk %d of %d\n", i+1, chunks)
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
	}
}

// download sends zeros as fast as the client reads them.
func (a *app) download(w http.ResponseWriter, r *http.Request) {
	size, err := intParam(r.URL.Query(), "bytes", 1<<20, 0, maxDownload)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(size))
	piece := make([]byte, 32<<10)
	for size > 0 {
		n, err := w.Write(piece[:min(size, len(piece))])
		if err != nil {
			return
		}
		size -= n
	}
}

// upload reads the body and reports its size and hash.
func (a *app) upload(w http.ResponseWriter, r *http.Request) {
	sum := sha256.New()
	size, err := io.Copy(sum, http.MaxBytesReader(w, r.Body, maxUpload))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		http.Error(w, fmt.Sprintf("the body is larger than %d bytes", tooLarge.Limit), http.StatusRequestEntityTooLarge)
		return
	}
	if err != nil {
		http.Error(w, fmt.Sprintf("read the body: %v", err), http.StatusBadRequest)
		return
	}
	writeJSON(w, map[string]any{"bytes": size, "sha256": hex.EncodeToString(sum.Sum(nil))})
}

// exitProcess sends a response and then makes the process exit.
func (a *app) exitProcess(w http.ResponseWriter, r *http.Request) {
	code, err := intParam(r.URL.Query(), "code", 0, 0, 255)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	// Send the whole response before the process exits.
	answer := fmt.Sprintf("exit with code %d\n", code)
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	_, _ = io.WriteString(w, answer)
	_ = http.NewResponseController(w).Flush()
	fmt.Fprintf(os.Stderr, "echo: %s asks it to exit\n", r.URL.EscapedPath()) // its last output
	select {
	case a.exit <- code:
	default: // another request came first
	}
}

func writeJSON(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value)
}

// intParam returns an integer parameter within bounds, or the fallback if the
// parameter is missing.
func intParam(query url.Values, name string, fallback, low, high int) (int, error) {
	if !query.Has(name) {
		return fallback, nil
	}
	number, err := strconv.Atoi(query.Get(name))
	if err != nil || number < low || number > high {
		return 0, fmt.Errorf("%s=%q is not an integer from %d to %d", name, query.Get(name), low, high)
	}
	return number, nil
}

// durationParam returns a duration parameter, or 0 if the parameter is missing.
func durationParam(query url.Values, name string) (time.Duration, error) {
	if !query.Has(name) {
		return 0, nil
	}
	interval, err := time.ParseDuration(query.Get(name))
	if err != nil || interval < minInterval || interval > maxInterval {
		return 0, fmt.Errorf("%s=%q is not a duration from %s to %s", name, query.Get(name), minInterval, maxInterval)
	}
	return interval, nil
}
