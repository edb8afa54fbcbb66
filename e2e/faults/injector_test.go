package faults

import (
	"bufio"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
)

// apiServer answers each request with its query, and each watch with a line for each line
// that it is sent through events.
func apiServer(events <-chan string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("watch") != "true" {
			_, _ = io.WriteString(w, r.URL.RawQuery)
			return
		}
		_ = http.NewResponseController(w).Flush()
		for {
			select {
			case event := <-events:
				_, _ = io.WriteString(w, event+"\n")
				_ = http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				return
			}
		}
	}
}

// newInjector starts an Injector before an API server, and returns its URL.
func newInjector(t *testing.T, events <-chan string) (*Injector, string) {
	api := httptest.NewServer(apiServer(events))
	t.Cleanup(api.Close)
	b, err := NewInjector(&rest.Config{Host: api.URL}, rand.New(rand.NewPCG(1, 2)))
	require.NoError(t, err)
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	return b, server.URL
}

// ask returns the code and the body of the answer. The code is 0 without an answer.
func ask(url string) (code int, body string) {
	response, err := http.Get(url)
	if err != nil {
		return 0, ""
	}
	defer response.Body.Close()
	data, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(data)
}

func TestTroubles(t *testing.T) {
	b, url := newInjector(t, nil)
	for _, row := range []struct {
		name, address, query string
		injected             Injection
		code                 int
	}{
		{"none", "", "", Injection{}, 200},
		{"a code", "", "", Injection{Code: 500}, 500},
		{"for another replica", "192.0.2.1", "", Injection{Code: 500}, 200},
		{"for this replica", "127.0.0.1", "", Injection{Code: 429}, 429},
		{"for other requests", "", "", Injection{Code: 500, Only: func(r *http.Request) bool { return r.URL.Path == "/x" }}, 200},
		{"no answer", "", "", Injection{Refuse: true}, 0},
		{"an error", "", "", Injection{Error: apierrors.NewConflict(schema.GroupResource{}, "", nil)}, 409},
		{"an expired version", "", "?resourceVersion=5", Injection{Expire: true}, 410},
		{"any version", "", "?resourceVersion=0", Injection{Expire: true}, 200},
		{"a delay", "", "", Injection{Delay: time.Millisecond}, 200},
	} {
		b.Make(row.address, row.injected)
		code, _ := ask(url + "/" + row.query)
		assert.Equal(t, row.code, code, row.name)
		b.End()
	}
	b.Make("", Injection{Code: 500, Share: 0.5})
	codes := map[int]int{}
	for range 100 {
		code, _ := ask(url)
		codes[code]++
	}
	assert.Greater(t, codes[200], 20)
	assert.Greater(t, codes[500], 20)
}

func TestWatches(t *testing.T) {
	events := make(chan string)
	b, url := newInjector(t, events)
	watch := func() *bufio.Reader {
		response, err := http.Get(url + "/?watch=true")
		require.NoError(t, err)
		t.Cleanup(func() { _ = response.Body.Close() })
		return bufio.NewReader(response.Body)
	}
	line := func(r *bufio.Reader) string {
		text, err := r.ReadString('\n')
		if err != nil {
			return err.Error()
		}
		return text
	}
	one := watch()
	events <- "a"
	assert.Equal(t, "a\n", line(one))
	b.CutWatches("")
	assert.NotEqual(t, "b\n", line(one), "it was cut")

	two := watch()
	events <- "c"
	assert.Equal(t, "c\n", line(two))
	b.Make("", Injection{Silent: true})
	events <- "d" // arrives nowhere
	b.End()
	assert.NotEqual(t, "d\n", line(two), "it fell silent, and ends with the injection")
}
