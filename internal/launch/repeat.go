package launch

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

const (
	// claimWait is how long a repeated request waits for the claim that the first one may be making
	// at another replica: until that may claim no pod any more, the write, and the watch.
	claimWait = writeWait + kube.CreateTimeout + instance.WatchDelay
	// claimLook is how often it looks.
	claimLook = 500 * time.Millisecond
)

// NewKey returns an idempotency key that nobody can guess, for a caller that has none from its
// client, and when it was made. The error is that of the source of random bytes.
func (l *Launcher) NewKey() (key string, made time.Time, err error) {
	key, err = instance.NewID(l.deps.Random)
	return key, l.deps.Now(), err
}

// launchRepeatable finds the instance of an idempotency key, or else launches it. Unless the
// request has Warm, it claims no warm pod: that has an id of its own. repeated says that another
// request has launched the instance.
func (l *Launcher) launchRepeatable(ctx context.Context, req Request, began time.Time) (id string, repeated bool, err error) {
	id = l.deps.RepeatableID(req.IdempotencyKey, req.Template)
	if _, known := l.deps.Cache.Instance(id); known {
		return id, true, nil // even if it has ended: it is not launched again
	}
	if req.Repeated {
		if claimed, known := l.awaitClaim(ctx, req.Template, id); known {
			return claimed, true, nil
		}
	}
	if ctx.Err() != nil {
		return "", false, ctx.Err()
	}
	if req.Warm { // the client can come back for it
		ctx = context.WithoutCancel(ctx)
	}
	started, err := l.startRepeatable(ctx, id, req)
	switch {
	case err == nil:
		l.deps.Log.InfoContext(ctx, "launched", "pod", instance.PodName(started.id), "template", req.Template, "warm", started.warm, "waits", started.waits)
		l.measure(started.id, &measured{began: began, warm: started.warm})
		return started.id, false, nil
	case apierrors.IsAlreadyExists(err):
		// Another request with the same key created the pod. It is not known here when
		// that request began, so the launch is not measured.
		l.awaitDelivery(ctx, id)
		l.deps.Log.InfoContext(ctx, "launched before", "pod", instance.PodName(id), "template", req.Template)
		return id, true, nil
	case overLimit(err) && (req.Repeated || !req.Warm) && l.awaitDelivery(ctx, id):
		// Another replica gave the last place to the same launch a moment ago.
		return id, true, nil
	}
	return "", false, err
}

// started is what a repeatable launch has got.
type started struct {
	id    string
	warm  bool // its pod was claimed
	waits bool // there is no place for the instance yet
}

// startRepeatable claims a warm pod for a repeatable launch, if it is to, or creates the pod. The
// error is one that apierrors.IsAlreadyExists recognizes if the pod exists. A request that is
// Repeated claims none: if there are two of them, one must find what the other creates. Nor does a
// first one that is late: a repeated one may not wait for its claim any more.
func (l *Launcher) startRepeatable(ctx context.Context, id string, req Request) (started, error) {
	launch, err := l.admit(ctx, req, id)
	if err != nil {
		return started{}, err
	}
	defer launch.end()
	if req.Warm && !req.Repeated {
		launch.claimedFor, launch.claimUntil = id, req.KeyMade.Add(writeWait)
		if warm, outcome, err := l.tryClaim(ctx, launch); err != nil || outcome == claimed {
			return started{id: warm, warm: true}, err
		}
	}
	return started{id: id, waits: launch.place.Full}, l.create(ctx, launch, id)
}

// awaitClaim returns the id of the instance whose pod was claimed for an id. If the template
// has warm pods, it waits for that.
func (l *Launcher) awaitClaim(ctx context.Context, template, id string) (claimed string, known bool) {
	if claimed, known = l.deps.Cache.ClaimedFor(template, id); known {
		return claimed, true
	}
	found, err := l.deps.Templates.Template(ctx, template)
	if err != nil {
		return "", false // the launch says so
	}
	if size, err := podtemplate.PoolSize(found); err != nil || size.Most == 0 {
		return "", false
	}
	ctx, cancel := context.WithTimeout(ctx, claimWait)
	defer cancel()
	look := time.NewTicker(claimLook)
	defer look.Stop()
	for ended := false; !ended; {
		select {
		case <-look.C:
		case <-ctx.Done(): // it looks once more
			ended = true
		}
		if claimed, known = l.deps.Cache.ClaimedFor(template, id); known {
			return claimed, true
		}
		if _, created := l.deps.Cache.Instance(id); created { // the pool was empty
			return id, true
		}
	}
	return "", false
}
