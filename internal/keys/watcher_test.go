package keys

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// A Secret in a volume changes by a swap of a link, as kubelets do it: the file keeps its
// path, and maybe its length and times.
func TestWatcherFollowsASecret(t *testing.T) {
	directory := t.TempDir()
	file, data := filepath.Join(directory, "api-key"), filepath.Join(directory, "..data")
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(version, content string) {
		t.Helper()
		must(os.Mkdir(filepath.Join(directory, version), 0o755))
		path := filepath.Join(directory, version, "api-key")
		must(os.WriteFile(path, []byte(content), 0o644))
		must(os.Chtimes(path, kubetest.Noon, kubetest.Noon))
		must(os.Symlink(version, data+"_tmp"))
		must(os.Rename(data+"_tmp", data))
	}
	write("..1", "one")
	must(os.Symlink(filepath.Join("..data", "api-key"), file))
	synctest.Test(t, func(t *testing.T) {
		log, logged := kubetest.RecordLog()
		keys := New("one")
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		w := &Watcher{Keys: keys, Log: log, Read: func() ([]string, error) {
			content, err := os.ReadFile(file)
			if len(content) == 0 && err == nil {
				err = errors.New("it is empty")
			}
			return strings.Fields(string(content)), err
		}}
		go w.Run(ctx)
		for _, step := range []struct {
			version, content string
			valid            []string
			lines, warnings  int // so far
		}{
			{"", "", []string{"one"}, 0, 0},
			{"..2", "two\none", []string{"one", "two"}, 1, 0},
			{"..3", "two", []string{"two"}, 2, 0},
			{"..4", "six", []string{"six"}, 3, 0}, // as long as the one before
			{"..5", "", []string{"six"}, 4, 1},    // the former key stays
			{"", "", []string{"six"}, 4, 1},
			{"..6", "six", []string{"six"}, 4, 1},
			{"..7", "", []string{"six"}, 5, 2}, // it fails again
		} {
			if step.version != "" {
				write(step.version, step.content)
			}
			time.Sleep(2*period + time.Second)
			for _, key := range []string{"", "one", "two", "six"} {
				valid := false
				for _, want := range step.valid {
					valid = valid || key == want
				}
				if keys.Opens(key) != valid {
					t.Errorf("%s: %q opens: %t, want %t", step.version, key, !valid, valid)
				}
			}
			if lines, warnings := strings.Count(logged.String(), "\n"), strings.Count(logged.String(), "level=WARN"); lines != step.lines || warnings != step.warnings {
				t.Errorf("%s: %d lines and %d warnings, want %d and %d:\n%s", step.version, lines, warnings, step.lines, step.warnings, logged)
			}
		}
		for _, key := range []string{"one", "two"} {
			if strings.Contains(logged.String(), "="+key) {
				t.Errorf("the log has the key %s", key)
			}
		}
	})
}
