package pages

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

func TestHeadNotice(t *testing.T) {
	fill := strings.Repeat("x", 2*maxInstanceHeader)
	bare, _ := headSize(httptest.NewRequest(http.MethodGet, "/", nil))
	bare += len("X-Field: \r\n")
	fields := func(n int) http.Header {
		h := http.Header{}
		for i := range n {
			h.Set("X-"+string(rune('a'+i)), fill[:4<<10])
		}
		return h
	}
	for _, row := range []struct {
		name, target string
		field        int // bytes
		other        http.Header
		code         int // 0: the instance gets it
		says         string
	}{
		{"a short field", "/", 3, nil, 0, ""},
		{"just enough", "/", maxInstanceHeader - bare, nil, 0, ""},
		{"a little more", "/", maxInstanceHeader - bare + 1, nil, 431, "larger than 64 KiB"},
		{"many fields", "/", 0, fields(20), 431, "larger than 64 KiB"},
		{"as many fields as there may be", "/", 0, http.Header{"X": slices.Repeat([]string{""}, 256)}, 0, ""},
		{"one more, though short", "/", 0, http.Header{"X": slices.Repeat([]string{""}, 257)}, 431, "more than 256 header fields"},
		{"many cookies", "/", 0, http.Header{"Cookie": {fill}}, 0, ""},
		{"a long address", "/?" + fill[:maxInstanceHeader], 0, nil, 414, "address of this page is too long"},
		{"a long address and another field", "/?" + fill[:40<<10], 60 << 10, nil, 414, "address of this page is too long"},
	} {
		r := httptest.NewRequest(http.MethodGet, row.target, nil)
		if row.other != nil {
			r.Header = row.other
		}
		if row.field > 0 {
			r.Header.Set("X-Field", fill[:row.field])
		}
		notice, tooLarge := HeadNotice(r)
		if notice.Code != row.code || tooLarge != (row.code != 0) || !strings.Contains(notice.Plain, row.says) {
			t.Errorf("%s: got %t, %d, %q", row.name, tooLarge, notice.Code, notice.Plain)
		}
		if !tooLarge {
			continue
		}
		w := httptest.NewRecorder()
		r.Header.Set("Accept", browserAccept)
		ownSite().Serve(w, r, notice)
		wantPage(t, w, row.code, row.says)
	}
}

// TestHeadSize compares with what is sent.
func TestHeadSize(t *testing.T) {
	for _, head := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"DELETE /a%20b?c=d HTTP/1.1\r\nHost: a.example:80\r\nX-A: 1\r\nX-A: 22\r\n\r\n",
	} {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head)))
		if err != nil {
			t.Fatal(err)
		}
		size, fields := headSize(r)
		if want := len(head) - len("\r\n"); size != want || fields != strings.Count(head, "X-A") {
			t.Errorf("%q: got %d bytes in %d fields, want %d", head, size, fields, want)
		}
	}
}
