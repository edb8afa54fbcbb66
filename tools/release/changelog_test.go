package main

import (
	"os"
	"regexp"
	"testing"
)

// TestChangelog checks the form of the project's changelog.
func TestChangelog(t *testing.T) {
	data, err := os.ReadFile("../../CHANGELOG.md")
	noError(t, err)
	sections, err := parseChangelog(string(data))
	noError(t, err)
	if sections[0].version != "Unreleased" {
		t.Errorf("the first section is %s", sections[0].version)
	}
}

func TestParseChangelog(t *testing.T) {
	const head = "# Changelog\n\nAll changes.\n\n## [Unreleased]\n\n### Added\n\n- This,\n  and that.\n"
	for _, test := range []struct{ text, want string }{
		{head, ""},
		{head + "\n## [1.10.0] - 2026-11-02\n\n### Fixed\n\n- It.\n\n## [1.9.0] - 2026-11-01\n", ""},
		{"# Changes\n", "line 1: want the title"},
		{"# Changelog\n", "no section"},
		{"# Changelog\n\n## [1.0.0] - 2026-11-01\n", "line 3: the first section must be [Unreleased]"},
		{head + "\n## [Unreleased]\n", "[Unreleased] is the first section"},
		{head + "\n## 1.0.0\n", "line 12: want ## [Unreleased] or"},
		{head + "\n## [v1.0.0] - 2026-11-01\n", "v1.0.0 is not a version"},
		{head + "\n## [1.0.0]\n", "needs the date"},
		{head + "\n## [1.0.0] - 1.11.2026\n", "needs the date"},
		{head + "\n## [1.0.0] - 2026-11-01\n\n## [1.0.1] - 2026-11-02\n", "1.0.1 must be above 1.0.0"},
		{head + "\n### Added\n\n- Again.\n", "at most once"},
		{head + "\n### Improved\n", "at most once"},
		{head + "\nText.\n", "want a list"},
		{"# Changelog\n\n## [Unreleased]\n\n- No heading.\n", "want a list"},
	} {
		if _, err := parseChangelog(test.text); test.want == "" {
			noError(t, err)
		} else {
			wantError(t, err, test.want)
		}
	}
}

// TestWorkflows checks that all workflows build with the Dockerfile's version of Go.
func TestWorkflows(t *testing.T) {
	read := func(path string) string {
		data, err := os.ReadFile("../../" + path)
		noError(t, err)
		return string(data)
	}
	version := regexp.MustCompile(`golang:(\S+) AS build`).FindStringSubmatch(read("Dockerfile"))
	if version == nil {
		t.Fatal("the Dockerfile has no version of Go")
	}
	for _, name := range []string{"test", "release", "vulnerabilities"} {
		found := regexp.MustCompile(`(?m)(?:golang:|go-version: ")([0-9.]+)`).FindAllStringSubmatch(read(".github/workflows/"+name+".yml"), -1)
		if len(found) == 0 {
			t.Errorf("%s.yml has no version of Go", name)
		}
		for _, match := range found {
			if match[1] != version[1] {
				t.Errorf("%s.yml builds with Go %s, and the Dockerfile with %s", name, match[1], version[1])
			}
		}
	}
}
