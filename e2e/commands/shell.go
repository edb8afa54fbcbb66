package commands

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// runTimeout bounds every run of commands.
const runTimeout = 3 * time.Minute

// Shell is a reader's shell: variables that a command sets are there for the next.
type Shell struct {
	// Dir is where the reader stands, such as the root of a checkout.
	Dir string
	// Names puts the reader's own names in place of those of the pages.
	Names *strings.Replacer
	// Env are variables, besides those of the process.
	Env []string
}

// NewShell returns a shell whose programs are looked for in bin first.
func NewShell(t testing.TB, dir, bin string, names *strings.Replacer, env ...string) *Shell {
	t.Helper()
	path, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(t.TempDir(), "variables")
	if err := os.WriteFile(state, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	env = append(env, "PATH="+path+":"+os.Getenv("PATH"), "COMMANDS_STATE="+state)
	return &Shell{Dir: dir, Names: names, Env: env}
}

// Variable returns the value of a variable that a command has set.
func (s *Shell) Variable(t testing.TB, name string) string {
	t.Helper()
	command := s.command(t.Context(), `printf %s "$`+name+`"`)
	output, err := command.Output()
	if err != nil {
		t.Fatalf("read the variable %s: %v", name, err)
	}
	return string(output)
}

// command returns bash with a script between two of its own: the first reads the variables,
// ends what runs in the background when the script ends, and exports all; the second
// writes the variables.
func (s *Shell) command(ctx context.Context, script string) *exec.Cmd {
	command := exec.CommandContext(ctx, "bash", "-c", `set -euo pipefail
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
source "$COMMANDS_STATE"
set -o allexport
`+script+`
export -p >"$COMMANDS_STATE"
`)
	command.Dir = s.Dir
	command.Env = append(os.Environ(), s.Env...)
	// Children that outlive bash hold its output open: end them too.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	command.WaitDelay = 5 * time.Second
	return command
}

// Run runs commands, and returns what they print. It fails the test if they do; where says
// whose commands they are.
func (s *Shell) Run(t testing.TB, where, script string) string {
	t.Helper()
	began := time.Now()
	output, err := s.Try(t.Context(), script)
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	t.Logf("%s took %s", where, time.Since(began).Round(time.Millisecond))
	return output
}

// Try runs commands that may fail, and returns what they print. The error has all of it, and
// the commands.
func (s *Shell) Try(ctx context.Context, script string) (output string, err error) {
	ctx, cancel := context.WithTimeout(ctx, runTimeout)
	defer cancel()
	script = s.Names.Replace(script)
	command := s.command(ctx, script)
	var printed, problems bytes.Buffer
	command.Stdout, command.Stderr = &printed, &problems
	err = command.Run()
	if errors.Is(err, exec.ErrWaitDelay) { // all went well, but the signal to a child that was just forked was lost
		err = syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
	}
	if err != nil {
		return "", fmt.Errorf("%w\n%s\n%s%s", err, script, printed.String(), problems.String())
	}
	return printed.String(), nil
}

func (s *Shell) watch(t testing.TB, where, script, expression string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), runTimeout)
	defer cancel()
	command := s.command(ctx, s.Names.Replace(script))
	wanted := regexp.MustCompile(expression)
	var output watched
	output.seen = func() {
		if wanted.Match(output.buffer.Bytes()) {
			cancel()
		}
	}
	command.Stdout, command.Stderr = &output, &output
	err := command.Run() // an error, because it is ended
	if !wanted.Match(output.buffer.Bytes()) {
		t.Fatalf("%s: %v\n%s\nhas not printed %s:\n%s", where, err, s.Names.Replace(script), expression, output.buffer.String())
	}
	return output.buffer.String()
}

// watched keeps what is written, and calls a function after each write. exec writes both
// outputs by one goroutine if they are the same.
type watched struct {
	buffer bytes.Buffer
	seen   func()
}

func (w *watched) Write(p []byte) (int, error) {
	n, err := w.buffer.Write(p)
	w.seen()
	return n, err
}
