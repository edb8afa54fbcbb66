package protocol

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestDocument(t *testing.T) {
	const text = `{"openapi": "3.1.1"}`
	ask := func(d *Document, ifNoneMatch ...string) *httptest.ResponseRecorder {
		r, w := httptest.NewRequest(http.MethodGet, "/openapi.json", nil), httptest.NewRecorder()
		r.Header["If-None-Match"] = ifNoneMatch
		if err := d.Serve(w, r); err != nil {
			t.Fatal(err)
		}
		return w
	}
	document := NewDocument([]byte(text))
	etag := ask(document).Header().Get("ETag")
	for _, row := range []struct {
		name   string
		header []string
		code   int
	}{
		{"no tag", nil, 200},
		{"another tag", []string{`"0"`}, 200},
		{"a part of the tag", []string{etag[:5] + `"`}, 200},
		{"a tag that is not quoted", []string{etag[1 : len(etag)-1]}, 200},
		{"the tag", []string{etag}, 304},
		{"the tag, weakened", []string{"W/" + etag}, 304},
		{"a list", []string{`"0,1", ` + etag}, 304},
		{"two fields", []string{`"0"`, etag}, 304},
		{"any", []string{"*"}, 304},
	} {
		res, want := ask(document, row.header...), map[int]string{200: text}[row.code]
		contentType := map[int]string{200: "application/json"}[row.code]
		if res.Code != row.code || res.Body.String() != want || res.Header().Get("Content-Type") != contentType {
			t.Errorf("%s: got %d %q as %q, want %d %q", row.name, res.Code, res.Body, res.Header().Get("Content-Type"), row.code, want)
		}
		if res.Header().Get("ETag") != etag || res.Header().Get("Cache-Control") != "no-cache" {
			t.Errorf("%s: the header is %v", row.name, res.Header())
		}
	}
	if other := ask(NewDocument([]byte("{}"))).Header().Get("ETag"); other == etag || etag == "" {
		t.Errorf("another document has the tag %s too", etag)
	}
}
