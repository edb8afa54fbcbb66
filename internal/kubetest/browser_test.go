package kubetest

import "testing"

// The results are those of the URL API of Chromium and Node.js.
func TestBrowse(t *testing.T) {
	for _, row := range []struct{ address, host, path string }{
		{"", "hub.example", "/a/b"},
		{"?x=//y", "hub.example", "/a/b"},
		{"c", "hub.example", "/a/c"},
		{"../c/", "hub.example", "/c/"},
		{"../../../c/.", "hub.example", "/c/"},
		{"/x/%2E./y/%2e", "hub.example", "/y/"},
		{"/.//evil.example", "hub.example", "//evil.example"},
		{"//evil.example/x", "evil.example", "/x"},
		{"///evil.example", "evil.example", "/"},
		{`/\evil.example\x`, "evil.example", "/x"},
		{"/\t/evil.example", "evil.example", "/"},
		{" \x01//me@Evil.example", "evil.example", "/"},
		{"http:c", "hub.example", "/a/c"},
		{"http:/c", "hub.example", "/c"},
		{"https:evil.example", "evil.example", "/"},
		{"HTTPS:///evil.example:443/", "evil.example", "/"},
		{"JavaScript:alert(1)", "javascript:", "alert(1)"},
		{"a/b:c", "hub.example", "/a/a/b:c"},
	} {
		if host, path := Browse("hub.example", "/a/b", row.address); host != row.host || path != row.path {
			t.Errorf("%q leads to %s%s, want %s%s", row.address, host, path, row.host, row.path)
		}
	}
}
