package pages

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestLimitHeaders(t *testing.T) {
	passed := LimitHeaders([]string{"https://hub.example"}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	fill := strings.Repeat("x", 2*maxInstanceHeader)
	bare := headSize(httptest.NewRequest(http.MethodGet, "/", nil)) + len("Accept: \r\n") + len(browserAccept)
	cookie := func(size int) []string { return []string{"Cookie", fill[:size-bare-len("Cookie: \r\n")]} }
	many := []string{}
	for _, letter := range "abcdefghijklmnopqrst" {
		many = append(many, "X-"+string(letter), fill[:4<<10])
	}
	for _, row := range []struct {
		name, method, target string
		header               []string
		code                 int
		says                 string
	}{
		{"few cookies", "GET", "/", []string{"Cookie", "a=b"}, 418, ""},
		{"just enough", "GET", "/", cookie(maxInstanceHeader), 418, ""},
		{"a little more", "GET", "/", cookie(maxInstanceHeader + 100), 431, "Clear the cookies of this site"},
		{"HEAD", "HEAD", "/", cookie(maxInstanceHeader + 100), 431, "Clear the cookies of this site"},
		{"many fields", "GET", "/", many, 431, "Clear the cookies of this site"},
		{"a long address", "GET", "/?" + fill[:maxInstanceHeader], nil, 414, "address of this page is too long"},
		{"a long address and cookies", "GET", "/?" + fill[:40<<10], cookie(60 << 10), 414, "address of this page is too long"},
	} {
		w := serve(passed, row.method, row.target, "", row.header...)
		if row.code == 418 {
			if w.Code != row.code {
				t.Errorf("%s: answered %d, want the instance's answer", row.name, w.Code)
			}
			continue
		}
		wantPage(t, w, row.code, row.says)
		wantFrames(t, row.name, w, "'self' https://hub.example")
		if w.Header().Get("Clear-Site-Data") != "" {
			t.Errorf("%s: clears the data of other instances", row.name)
		}
		for _, other := range []*httptest.ResponseRecorder{
			serve(passed, row.method, row.target, "", append(row.header, "Accept", "*/*")...),
			serve(passed, http.MethodPost, row.target, "", row.header...),
		} {
			if other.Code != row.code || !strings.HasPrefix(other.Header().Get("Content-Type"), "text/plain") || !strings.Contains(other.Body.String(), "too long") != (row.code == 431) {
				t.Errorf("%s: another client got %d %q", row.name, other.Code, other.Body)
			}
		}
	}
}

// TestHeadSize compares with what is sent.
func TestHeadSize(t *testing.T) {
	for _, head := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"DELETE /a%20b?c=d HTTP/1.1\r\nHost: a.example:80\r\nX-A: 1\r\nX-A: 22\r\nCookie: a=b; c=d\r\n\r\n",
	} {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head)))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := headSize(r), len(head)-len("\r\n"); got != want {
			t.Errorf("%q: got %d bytes, want %d", head, got, want)
		}
	}
}
