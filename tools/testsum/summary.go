package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// summary holds the results of tests. Subtests count as tests.
type summary struct {
	passed                  int
	failed, skipped, notRun []string
}

func (s *summary) add(other summary) {
	s.passed += other.passed
	s.failed = append(s.failed, other.failed...)
	s.skipped = append(s.skipped, other.skipped...)
}

// event has the needed fields of a line of "go test -json" (go doc test2json).
type event struct {
	Action, Package, Test string
}

// summarize reads the events of one run. A test that started and did not finish
// was killed and counts as failed. A package that failed without a failed test
// counts as one failure: it did not compile, or its TestMain failed.
func summarize(from io.Reader) (summary, error) {
	var s summary
	running := map[event]bool{}
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
			running[test] = true
		case e.Action == "pass":
			s.passed++
			delete(running, test)
		case e.Action == "fail":
			s.failed = append(s.failed, name)
			failedTests[e.Package]++
			delete(running, test)
		case e.Action == "skip":
			s.skipped = append(s.skipped, name)
			delete(running, test)
		}
	}
	for test := range running {
		s.failed = append(s.failed, fmt.Sprintf("%s %s: did not finish", test.Package, test.Test))
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
