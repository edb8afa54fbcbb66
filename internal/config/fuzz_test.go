package config

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// FuzzParseSettings checks that a settings file sets only what it may, and to values that
// those who read them take as they are meant. Errors are of bounded length.
func FuzzParseSettings(f *testing.F) {
	const withKey = `{"apiKey": "secret"}`
	for _, seed := range []string{
		`{"port": 9084, "lookupHost": "binder.example:80", "registry": {"host": "https://[::1]", "port": "443"}, "pool": {"size": 1}}`,
		`{"registry": {"host": "reg@evil"}}`, `{"registry": {"host": "http://http://x"}}`, `{"port": "+80"}`, `{"lookupHost": "a/b"}`, `{"registry": null}`, `null`, `[`,
		`{"registry": {"host": "[[::1]]"}}`, `{"registry": {"host": "fe80::1%eth0"}}`, `{"lookupHost": "-x:1"}`, withKey, `{"port": 1, "port": 2}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		values, warning, err := parseSettings("file", data)
		if err != nil && len(err.Error()) > 4096 {
			t.Errorf("the error has %d bytes", len(err.Error()))
		}
		if string(data) == withKey && strings.Contains(warning, "secret") { // elsewhere it can be a key's name
			t.Errorf("a value is in the warning %q", warning)
		}
		for name, value := range values {
			switch name {
			case "api-address":
				if port, err := strconv.ParseUint(value[1:], 10, 16); value[0] != ':' || err != nil || port == 0 {
					t.Errorf("%s is %q", name, value)
				}
			case "public-host", "registry-url":
				address := value
				if name == "public-host" {
					address = "http://" + value
				}
				u, err := url.Parse(address)
				if err != nil || u.Hostname() == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || !slices.Contains([]string{"http", "https"}, u.Scheme) {
					t.Errorf("%s is %q: %+v, %v", name, value, u, err)
				}
			default:
				t.Errorf("%s is set to %q", name, value)
			}
		}
	})
}

// FuzzReadKeys checks that what a file holds becomes keys that can be sent in a header, and
// that no error shows a part of it.
func FuzzReadKeys(f *testing.F) {
	for _, seed := range []string{"0123456789abcdef\n", "a\r\n\r\nb", "# comment", "\xef\xbb\xbfkey", "key\x00", " \n ", "a\u2028b", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		keys, err := readKeys("api-key", "", "file", func(string) ([]byte, error) { return []byte(text), nil })
		if err == nil && len(keys) == 0 {
			t.Errorf("%q has neither a key nor an error", text)
		}
		for _, key := range keys {
			if key == "" || strings.ContainsFunc(key, func(c rune) bool { return c <= ' ' || c > '~' }) || !strings.Contains(text, key) {
				t.Errorf("%q has the key %q", text, key)
			}
		}
		if err != nil && err.Error() != "--api-key-file: file is empty: it must hold the key" && err.Error() != "--api-key-file: a key must have visible ASCII characters only, without spaces" {
			t.Errorf("%q: %v", text, err)
		}
	})
}
