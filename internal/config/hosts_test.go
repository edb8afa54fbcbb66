package config

import (
	"slices"
	"strings"
	"testing"
)

func TestInstanceDomain(t *testing.T) {
	const public = "--public-host=binder.example.org"
	for given, want := range map[string]string{
		"users.example.org":             "users.example.org",
		"Users.Example.ORG:8443":        "users.example.org:8443",
		"localhost:8000":                "localhost:8000",
		"xn--bcher-kva.example":         "xn--bcher-kva.example",
		"example.org":                   "example.org",
		strings.Repeat("a.", 109) + "a": strings.Repeat("a.", 109) + "a",
	} {
		want, public := want, public
		if given == "example.org" {
			public = "--public-host=binder.example.com"
		}
		if c := mustParse(t, testHost(), public, "--instance-domain="+given); c.InstanceDomain != want {
			t.Errorf("%q: got %q, want %q", given, c.InstanceDomain, want)
		}
	}
	for _, given := range []string{
		"https://users.example.org", "users.example.org/", "*.users.example.org", ".users.example.org", "users.example.org.", "users..org",
		"a b", "users_.org", "-a.org", "a-.org", "bücher.example", "10.0.0.7", "10.0.0.7:80", "[fd00::7]:80", "fd00::7",
		"users.org:", "users.org:0", "users.org:080", "users.org:65536", "users.org:http", "users.org:80:80", ":80",
		strings.Repeat("a.", 110) + "a", strings.Repeat("a", 64) + ".org",
	} {
		wantMistakes(t, testHost(), []string{public, "--instance-domain=" + given}, 1, "--instance-domain is", "users.example.org")
	}
	wantMistakes(t, testHost(), []string{"--instance-domain=users.example.org"}, 1, "--public-host")
	for _, inside := range []string{"users.example.org", "USERS.example.org.:8000", "binder.users.example.org:80", "ok.example.com,a.users.example.org"} {
		wantMistakes(t, testHost(), []string{"--instance-domain=users.example.org:8443", "--public-host=" + inside}, 1, "must not be in --instance-domain")
	}
}

func TestPublicHosts(t *testing.T) {
	for given, want := range map[string][]string{"": nil, "a.example, b.example:80": {"a.example", "b.example:80"}, "a,": {"a"}} {
		if c := mustParse(t, testHost(), "--public-host="+given); !slices.Equal(c.PublicHosts, want) {
			t.Errorf("%q: got %q, want %q", given, c.PublicHosts, want)
		}
	}
}
