//go:build e2e

package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// startProgram starts a program of the test's context. At the end of the test it is
// interrupted, and its log is printed if the test failed.
func startProgram(t *testing.T, command *exec.Cmd) {
	t.Helper()
	var log bytes.Buffer
	command.Stdout, command.Stderr = &log, &log
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = 20 * time.Second
	require.NoError(t, command.Start())
	t.Cleanup(func() {
		_ = command.Wait() // it was interrupted
		if t.Failed() {
			t.Logf("%s printed:\n%s", filepath.Base(command.Path), &log)
		}
	})
}
