package launch

import "github.com/binder-project/binder-deploy-kubernetes/internal/instance"

// NewKey returns an idempotency key that nobody can guess, for a caller that has none from its
// client. The error is that of the source of random bytes.
func (l *Launcher) NewKey() (string, error) { return instance.NewID(l.deps.Random) }
