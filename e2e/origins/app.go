//go:build e2e

package origins

import (
	"fmt"
	"net/http"
	"path"
	"strings"
	"sync"
)

// application is what runs in every pod. All of them are one server here: they tell each
// other by the base URL.
//
//	page?js=<code>  a page that runs a script
//	echo            the Cookie fields of the request
//	answer?h=A:+b   an empty page with these header fields
//	sw.js           a service worker that answers its pages itself
type application struct {
	title string

	mu   sync.Mutex
	seen map[string][]string // by id: the fields of all requests, one a line
}

func newApplication(title string) *application {
	return &application{title: title, seen: map[string][]string{}}
}

func (a *application) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := strings.Split(r.URL.Path+"//", "/")[2]
	a.mu.Lock()
	for name, values := range r.Header {
		a.seen[id] = append(a.seen[id], name+": "+strings.Join(values, ", "))
	}
	a.mu.Unlock()
	for _, field := range r.URL.Query()["h"] {
		name, value, _ := strings.Cut(field, ":")
		w.Header().Add(name, strings.TrimSpace(value))
	}
	switch path.Base(r.URL.Path) {
	case "echo":
		w.Header().Set("Content-Type", "text/plain")
		fmt.Fprint(w, strings.Join(r.Header["Cookie"], "; "))
	case "sw.js":
		w.Header().Set("Content-Type", "text/javascript")
		fmt.Fprint(w, serviceWorker)
	default:
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, "<!DOCTYPE html><title>%[1]s</title><h1>%[1]s</h1><script>%[2]s</script>", a.title, r.URL.Query().Get("js"))
	}
}

// got returns all header fields that an instance has got.
func (a *application) got(id string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return strings.Join(a.seen[id], "\n")
}

// serviceWorker takes over at once, and answers all loads of pages.
const serviceWorker = `
addEventListener('install', (event) => event.waitUntil(skipWaiting()));
addEventListener('activate', (event) => event.waitUntil(clients.claim()));
addEventListener('fetch', (event) => {
	if (event.request.mode === 'navigate') {
		event.respondWith(new Response('<title>worker</title><h1>worker</h1>', { headers: { 'Content-Type': 'text/html' } }));
	}
});`
