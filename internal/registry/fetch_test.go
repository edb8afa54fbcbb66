package registry

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// cutBody announces more than it sends.
func cutBody(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	_, _ = w.Write([]byte(`{"name": "p", `))
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

func TestQuestionFollowsTheProtocol(t *testing.T) {
	for _, key := range []string{"the-key", ""} {
		f := newFixture(t, body(`{"name": "My_project.v-1", "image-source": "r/p:v1"}`))
		f.deps.Key = key
		template, err := f.Template(t.Context(), "My_project.v-1")
		if err != nil {
			t.Fatal(err)
		}
		if template.Name != "My_project.v-1" || template.Namespace != "somewhere" {
			t.Errorf("got template %s/%s", template.Namespace, template.Name)
		}
		f.wantAsked(t, 1)
		asked := f.asked[0]
		if asked.Method != "GET" || asked.RequestURI != "/base/templates/My_project.v-1" || asked.UserAgent() != "binder" {
			t.Errorf("got %s %s of %s", asked.Method, asked.RequestURI, asked.UserAgent())
		}
		if got, sent := asked.Header["Authorization"]; sent != (key != "") || sent && got[0] != key {
			t.Errorf("got Authorization %q, want %q", got, key)
		}
	}
}

// Whatever a registry does, it counts as unavailable, and no template comes of it.
func TestRegistryIsUnavailable(t *testing.T) {
	elsewhere := newFixture(t, serves("evil"))
	redirect := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }
	}
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for name, row := range map[string]struct {
		answer http.HandlerFunc
		says   string
	}{
		"error": {code(500), "500"},
		"error with a template in it": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			serves("evil")(w, r)
		}, "500"},
		"unavailable behind a gateway": {code(503), "503"},
		"key refused":                  {code(403), "403"},
		"created":                      {code(201), "201"},
		"no content":                   {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, "204"},
		"redirect elsewhere":           {redirect(elsewhere.server.URL + "/base/templates/p"), elsewhere.server.URL},
		"redirect to itself":           {redirect("/base/templates/p"), "302"},
		"nothing":                      {body(""), "JSON"},
		"HTML":                         {body("<html><body>Welcome"), "JSON"},
		"error object":                 {body(`{"type": "registryError", "error": "broken"}`), "name"},
		"another template":             {body(`{"name": "q", "image-source": "evil"}`), `"q`},
		"huge":                         {body(`{"name": "p", "image-source": "evil", "more": "` + strings.Repeat("x", 1<<20) + `"}`), "1 MiB"},
		"endless": {func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}, "1 MiB"},
		"huge header": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-More", strings.Repeat("x", 1<<20))
			serves("evil")(w, r)
		}, "header"},
		"cut connection":    {cutBody, "unexpected EOF"},
		"closed connection": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
		"slow":              {hang, "deadline"},
		"slow body": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte(`{"name": `))
			_ = http.NewResponseController(w).Flush()
			hang(w, r)
		}, "deadline"},
		"down": {nil, "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, row.answer)
			if strings.HasPrefix(name, "slow") {
				f.timeout = 50 * time.Millisecond
			}
			if row.answer == nil {
				f.server.Close()
			}
			_, err := f.Template(t.Context(), "p")
			if !errors.Is(err, podtemplate.ErrUnavailable) || errors.Is(err, podtemplate.ErrUnknown) {
				t.Fatalf("got error %v, want %q", err, podtemplate.ErrUnavailable)
			}
			if !strings.Contains(err.Error(), row.says) || strings.Contains(err.Error(), "the-key") {
				t.Errorf("got error %q, want it with %q and without the key", err, row.says)
			}
			if f.results["error"] != 1 {
				t.Errorf("counted %v", f.results)
			}
		})
	}
	elsewhere.wantAsked(t, 0)
}

func TestOnlyValidNamesAreAskedFor(t *testing.T) {
	f := newFixture(t, serves("p:v1"))
	for _, name := range []string{
		"", ".", "..", "../p", "a/b", "/", "p/", "p?x", "p#x", "p%2e", "p p", "p\n", "\x00", "ü", "-p", "_p", ".p", strings.Repeat("x", 254),
	} {
		if _, err := f.Template(t.Context(), name); !errors.Is(err, podtemplate.ErrUnknown) {
			t.Errorf("%q: got %v", name, err)
		}
	}
	f.wantAsked(t, 0)
	for _, name := range []string{"p", "P_1.2-x..y", "9", strings.Repeat("x", 253)} {
		if _, err := f.Template(t.Context(), name); err != nil {
			t.Errorf("%q: got %v", name, err)
		}
	}
}
