// Command testsum adds up what several runs of "go test -json" came to:
//
//	testsum [-strict] [-not-run file] results.json…
//
// It names every test that failed, was skipped, or was not run at all (one name
// a line in the -not-run file), and closes with "N passed, N failed", which
// ", N skipped" follows if there are any. It fails when a test failed, when none
// passed, and, with -strict, when one was skipped or not run.
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
	strict := flag.Bool("strict", false, "fail when a test was skipped or not run")
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
		of, err := summarizeFile(file)
		if err != nil {
			return false, err
		}
		total.add(of)
	}
	if notRun != "" {
		names, err := readLines(notRun)
		if err != nil {
			return false, err
		}
		total.notRun = names
	}
	total.print(out)
	unwelcome := strict && len(total.skipped)+len(total.notRun) > 0
	if unwelcome {
		fmt.Fprintln(out, "\nHere every test must run: skipped ones count as a failure of the whole.")
	}
	fmt.Fprintln(out, total.closing())
	return total.passed > 0 && len(total.failed) == 0 && !unwelcome, nil
}

func summarizeFile(path string) (summary, error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return summary{failed: []string{path + ": the run left no results"}}, nil
	}
	if err != nil {
		return summary{}, err
	}
	defer file.Close()
	of, err := summarize(file)
	if err != nil {
		return summary{}, fmt.Errorf("read %s: %w", path, err)
	}
	if of.passed+len(of.failed)+len(of.skipped) == 0 {
		of.failed = append(of.failed, path+": no test was run")
	}
	return of, nil
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

// print names what did not pass.
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

func (s *summary) closing() string {
	line := fmt.Sprintf("%d passed, %d failed", s.passed, len(s.failed))
	if skipped := len(s.skipped) + len(s.notRun); skipped > 0 {
		line += fmt.Sprintf(", %d skipped", skipped)
	}
	return line
}
