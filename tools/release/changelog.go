package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/semver"
)

// section is a version's section of the changelog.
type section struct {
	version string // without the v, or "Unreleased"
	date    string // of the release, 2006-01-02
	text    string // all below the heading
}

// sectionHeading is "## [Unreleased]", or "## [1.2.3] - 2006-01-02".
var sectionHeading = regexp.MustCompile(`^## \[([^\]]+)\](?: - (\S+))?$`)

// changeKinds are the headings below a version: https://keepachangelog.com/en/1.1.0/.
func changeKinds() []string {
	return []string{"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
}

// parseChangelog returns the sections of a changelog, and an error with everything in it
// that is not in the form of Keep a Changelog.
func parseChangelog(text string) ([]section, error) {
	var sections []section
	var errs []error
	var kinds []string // of the last section
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimRight(line, "\n")
		wrong := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("line %d: %s", number, fmt.Sprintf(format, args...)))
		}
		switch {
		case number == 1:
			if line != "# Changelog" {
				wrong("want the title # Changelog")
			}
		case strings.HasPrefix(line, "## "):
			match := sectionHeading.FindStringSubmatch(line)
			if match == nil {
				wrong("want ## [Unreleased] or ## [1.2.3] - 2006-01-02")
				continue
			}
			next := section{version: match[1], date: match[2]}
			if err := checkOrder(sections, next); err != nil {
				wrong("%v", err)
			}
			sections, kinds = append(sections, next), nil
		case len(sections) == 0: // what the file says of itself
		default:
			sections[len(sections)-1].text += line + "\n"
			if kind, found := strings.CutPrefix(line, "### "); found {
				if !slices.Contains(changeKinds(), kind) || slices.Contains(kinds, kind) {
					wrong("%q: want each of %s at most once", kind, strings.Join(changeKinds(), ", "))
				}
				kinds = append(kinds, kind)
			} else if line != "" && (len(kinds) == 0 || !strings.HasPrefix(line, "- ") && !strings.HasPrefix(line, "  ")) {
				wrong("want a list below a heading such as ### Added")
			}
		}
	}
	if len(sections) == 0 {
		errs = append(errs, errors.New("there is no section ## [Unreleased]"))
	}
	return sections, errors.Join(errs...)
}

// checkOrder checks a section that follows others: unreleased changes come first, then the
// newest version.
func checkOrder(before []section, next section) error {
	if next.version == "Unreleased" {
		if len(before) > 0 || next.date != "" {
			return errors.New("[Unreleased] is the first section, and has no date")
		}
		return nil
	}
	if len(before) == 0 {
		return errors.New("the first section must be [Unreleased]")
	}
	if strings.HasPrefix(next.version, "v") || !semver.IsValid("v"+next.version) {
		return fmt.Errorf("%s is not a version such as 1.2.3", next.version)
	}
	if _, err := time.Parse(time.DateOnly, next.date); err != nil {
		return fmt.Errorf("%s needs the date of its release, such as 2006-01-02", next.version)
	}
	last := before[len(before)-1]
	if last.version != "Unreleased" && (semver.Compare("v"+last.version, "v"+next.version) <= 0 || last.date < next.date) {
		return fmt.Errorf("%s must be above %s", next.version, last.version)
	}
	return nil
}

// changelogSection returns the section of a version with its v, such as v1.2.3.
func (r *release) changelogSection(version string) (section, error) {
	data, err := os.ReadFile(filepath.Join(r.root, "CHANGELOG.md"))
	if err != nil {
		return section{}, fmt.Errorf("read the changelog: %w", err)
	}
	sections, err := parseChangelog(string(data))
	if err != nil {
		return section{}, fmt.Errorf("CHANGELOG.md: %w", err)
	}
	for _, s := range sections {
		if "v"+s.version == version {
			return s, nil
		}
	}
	return section{}, fmt.Errorf("CHANGELOG.md has no section ## [%s] - <date>: name the unreleased changes so, commit, and move the tag",
		strings.TrimPrefix(version, "v"))
}

// notes prints the changelog's section of the version.
func (r *release) notes(ctx context.Context, out io.Writer) error {
	source, err := r.source(ctx)
	if err != nil {
		return err
	}
	s, err := r.changelogSection(source.Version)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, strings.TrimSpace(s.text))
	return err
}
