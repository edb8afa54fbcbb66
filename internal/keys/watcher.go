package keys

import (
	"context"
	"log/slog"
	"time"
)

// period is how often the keys are read again. The kubelet takes a minute or so to bring
// a changed Secret into a pod, so there is no hurry.
const period = 10 * time.Second

// Watcher keeps Keys in step with where they come from. The kubelet changes the files of a
// Secret by a swap of symbolic links, so the file is read again and again, whatever its
// times and its inode say.
type Watcher struct {
	Keys *Keys
	// Read returns the keys. If that is an error, the former ones stay valid.
	Read func() ([]string, error)
	Log  *slog.Logger
}

// Run reads the keys again until ctx is done. It logs each change once, and an error when
// it begins or differs from the one before.
func (w *Watcher) Run(ctx context.Context) {
	ticks := time.NewTicker(period)
	defer ticks.Stop()
	failing := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		keys, err := w.Read()
		switch {
		case err == nil:
			failing = ""
			if w.Keys.replace(keys) {
				w.Log.InfoContext(ctx, "the API keys have changed", "valid", len(keys))
			}
		case err.Error() != failing:
			failing = err.Error()
			w.Log.WarnContext(ctx, "the API keys cannot be read again, the former ones stay valid", "error", err)
		}
	}
}
