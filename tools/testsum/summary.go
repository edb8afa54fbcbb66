package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// summary is what some tests came to. Subtests count as tests.
type summary struct {
	passed                  int
	failed, skipped, notRun []string
}

func (s *summary) add(other summary) {
	s.passed += other.passed
	s.failed = append(s.failed, other.failed...)
	s.skipped = append(s.skipped, other.skipped...)
}

// event is what is needed of a line of "go test -json" (go doc test2json).
type event struct {
	Action, Package, Test string
}

// summarize reads the events of one run. A test that began and did not end was
// ended by force, and has failed; so has a package that failed without a failed
// test: it did not compile, or its TestMain gave up.
func summarize(from io.Reader) (summary, error) {
	var s summary
	underWay := map[event]bool{}
	failedTests := map[string]int{} // by package
	var failedPackages []string
	decoder := json.NewDecoder(from)
	for {
		var e event
		if err := decoder.Decode(&e); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return s, err
		}
		test := event{Package: e.Package, Test: e.Test}
		name := e.Package + " " + e.Test
		switch {
		case e.Test == "" && e.Action == "fail":
			failedPackages = append(failedPackages, e.Package)
		case e.Test == "":
		case e.Action == "run":
			underWay[test] = true
		case e.Action == "pass":
			s.passed++
			delete(underWay, test)
		case e.Action == "fail":
			s.failed = append(s.failed, name)
			failedTests[e.Package]++
			delete(underWay, test)
		case e.Action == "skip":
			s.skipped = append(s.skipped, name)
			delete(underWay, test)
		}
	}
	for test := range underWay {
		s.failed = append(s.failed, fmt.Sprintf("%s %s: did not end", test.Package, test.Test))
		failedTests[test.Package]++
	}
	for _, name := range failedPackages {
		if failedTests[name] == 0 {
			s.failed = append(s.failed, name+": the package failed outside its tests (see its output above)")
		}
	}
	slices.Sort(s.failed)
	return s, nil
}
