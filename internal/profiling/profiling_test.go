package profiling

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

func ask(method, target string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, httptest.NewRequest(method, target, nil))
	return w
}

func TestHandler(t *testing.T) {
	for request, code := range map[string]int{
		"GET /debug/pprof/": 200, "GET /debug/pprof/heap": 200, "GET /debug/pprof/goroutine?debug=2": 200, "GET /debug/pprof/allocs": 200,
		"GET /debug/pprof/nothing": 404, "GET /debug/pprof/cmdline": 404, "GET /debug/pprof/symbol": 404, "GET /": 404, "GET /metrics": 404,
		"POST /debug/pprof/heap": 405, "POST /debug/pprof/profile?seconds=1": 405,
	} {
		method, target, _ := strings.Cut(request, " ")
		res := ask(method, target)
		if res.Code != code {
			t.Errorf("%s: got %d, want %d", request, res.Code, code)
		}
		if strings.Contains(res.Body.String(), os.Args[0]) {
			t.Errorf("%s shows the command line", request)
		}
	}
}

func TestLengthOfProfiles(t *testing.T) {
	for seconds, want := range map[string]bool{
		"": true, "0": true, "1": true, "0.5": true, "300": true,
		"301": false, "-1": false, "1e9": false, "NaN": false, "Inf": false, "-Inf": false, "x": false, "99999999999999999999": false,
	} {
		if got := isBounded(seconds); got != want {
			t.Errorf("%q: got %t, want %t", seconds, got, want)
		}
	}
	for _, path := range []string{"profile", "trace", "heap", "goroutine", ""} {
		for _, query := range []string{"?seconds=301", "?seconds=301&seconds=1", "?x=1&seconds=%33%301"} {
			if res := ask("GET", Prefix+path+query); res.Code != http.StatusBadRequest {
				t.Errorf("%s: got %d", path+query, res.Code)
			}
		}
	}
}
