package main

import (
	"slices"
	"strings"
	"testing"
)

// TestParseSources checks that only Debian mirrors of the release are used.
func TestParseSources(t *testing.T) {
	const (
		mirror   = "Debian http://mirror.example/debian/ bookworm main"
		updates  = "Debian http://mirror.example/debian/ bookworm-updates main"
		security = "Debian https://security.example/debian-security/ bookworm-security main"
	)
	for _, test := range []struct {
		name    string
		targets []string
		want    []string
	}{
		{"none", nil, nil},
		{"all", []string{mirror, updates, security}, []string{
			"deb http://mirror.example/debian/ bookworm main",
			"deb http://mirror.example/debian/ bookworm-updates main",
			"deb https://security.example/debian-security/ bookworm-security main",
		}},
		{"each once", []string{mirror, mirror}, []string{"deb http://mirror.example/debian/ bookworm main"}},
		{"other components and suites", []string{
			mirror,
			"Debian http://mirror.example/debian/ bookworm contrib",
			"Debian http://mirror.example/debian/ bookworm-backports main",
			"Debian http://mirror.example/debian/ trixie main",
		}, []string{"deb http://mirror.example/debian/ bookworm main"}},
		{"third-party packages", []string{mirror, "Someone http://packages.example/apt bookworm main"},
			[]string{"deb http://mirror.example/debian/ bookworm main"}},
		{"another release", []string{"Debian http://mirror.example/debian/ trixie main", security}, nil},
		{"a local mirror", []string{"Debian file:/srv/debian/ bookworm main", security}, nil},
		{"malformed lines", []string{"", "E: no such thing", "Debian http://mirror.example/debian/"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := parseSources(strings.Join(test.targets, "\n")+"\n", "bookworm")
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
