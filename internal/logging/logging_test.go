package logging

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

func TestNewLoggerFormat(t *testing.T) {
	for _, row := range []struct {
		format string
		json   bool
	}{
		{"json", true}, {"text", false},
		{"auto", true}, // nothing here is a terminal
	} {
		out := &kubetest.LogBuffer{}
		New(out, row.format, slog.LevelInfo).Info("launched", "id", kubetest.ID(1))
		line := out.String()
		if got := json.Valid([]byte(line)); got != row.json {
			t.Errorf("--log-format %s wrote %q: JSON is %v, want %v", row.format, line, got, row.json)
		}
		if !strings.Contains(line, "launched") || !strings.Contains(line, kubetest.ID(1)) {
			t.Errorf("--log-format %s wrote %q, without message and id", row.format, line)
		}
	}
}

func TestNewLoggerLevel(t *testing.T) {
	out := &kubetest.LogBuffer{}
	log := New(out, "text", slog.LevelWarn)
	log.Info("said quietly")
	log.Warn("said aloud")
	if got := out.String(); strings.Contains(got, "quietly") || !strings.Contains(got, "aloud") {
		t.Errorf("--log-level warn wrote %q, want the warning only", got)
	}
}

func TestIsTerminal(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	// A character device, as a terminal is, and there on every machine.
	device, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	closed, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	switch {
	case isTerminal(&kubetest.LogBuffer{}):
		t.Error("a buffer is taken for a terminal")
	case isTerminal(file):
		t.Error("a file is taken for a terminal")
	case isTerminal(closed):
		t.Error("a closed file is taken for a terminal")
	case !isTerminal(device):
		t.Error("a character device is not taken for a terminal")
	}
	device.Close()
}
