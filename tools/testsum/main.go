// Command testsum summarizes the results of several runs of "go test -json":
//
//	testsum [-strict] [-not-run file] results.json…
//
// It lists the tests that failed, were skipped, or were not run. The -not-run
// file has the names of tests that were not run, one per line. The last line of
// the output is "N passed, N failed", followed by ", N skipped" if tests were
// skipped or not run. testsum fails if a test failed or no test passed. With
// -strict it also fails if a test was skipped or not run.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	strict := flag.Bool("strict", false, "fail if a test was skipped or not run")
	notRun := flag.String("not-run", "", "`file` with the names of tests that were not run")
	flag.Parse()
	ok, err := run(os.Stdout, *strict, *notRun, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

func run(out io.Writer, strict bool, notRun string, files []string) (ok bool, err error) {
	var total summary
	for _, file := range files {
		s, err := summarizeFile(file)
		if err != nil {
			return false, err
		}
		total.add(s)
	}
	if notRun != "" {
		names, err := readLines(notRun)
		if err != nil {
			return false, err
		}
		total.notRun = names
	}
	total.print(out)
	incomplete := strict && len(total.skipped)+len(total.notRun) > 0
	if incomplete {
		fmt.Fprintln(out, "\nStrict mode: the run fails because tests were skipped or not run.")
	}
	fmt.Fprintln(out, total.lastLine())
	return total.passed > 0 && len(total.failed) == 0 && !incomplete, nil
}

func summarizeFile(path string) (summary, error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return summary{failed: []string{path + ": the run wrote no results"}}, nil
	}
	if err != nil {
		return summary{}, err
	}
	defer file.Close()
	s, err := summarize(file)
	if err != nil {
		return summary{}, fmt.Errorf("read %s: %w", path, err)
	}
	if s.passed+len(s.failed)+len(s.skipped) == 0 {
		s.failed = append(s.failed, path+": no test was run")
	}
	return s, nil
}

func readLines(path string) ([]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var lines []string
	scanner := bufio.NewScanner(file)
	for scanner.Scan() {
		if line := strings.TrimSpace(scanner.Text()); line != "" {
			lines = append(lines, line)
		}
	}
	return lines, scanner.Err()
}

// print lists the tests that did not pass.
func (s *summary) print(out io.Writer) {
	for _, part := range []struct {
		title string
		names []string
	}{{"Failed", s.failed}, {"Skipped", s.skipped}, {"Not run", s.notRun}} {
		if len(part.names) > 0 {
			fmt.Fprintf(out, "\n%s:\n  %s\n", part.title, strings.Join(part.names, "\n  "))
		}
	}
	fmt.Fprintln(out)
}

func (s *summary) lastLine() string {
	line := fmt.Sprintf("%d passed, %d failed", s.passed, len(s.failed))
	if skipped := len(s.skipped) + len(s.notRun); skipped > 0 {
		line += fmt.Sprintf(", %d skipped", skipped)
	}
	return line
}
