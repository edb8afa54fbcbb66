package launch

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/admission"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

const (
	// maxWriting is how many launches of this replica write to the API server at the same
	// time. A write takes some 10 ms, so these are more than a thousand launches a second.
	// It is a small part of the requests that an API server takes from one account.
	maxWriting = 16
	// writeWait is how long a launch waits for its turn to write.
	writeWait = 2 * time.Second
)

// admitted is a launch that is within the limits.
type admitted struct {
	Request
	template *corev1.PodTemplate
	place    *admission.Place
	most     int    // instances of the template; 0 for no limit
	end      func() // must be called when the launch has succeeded or failed
	// claimedFor is what a warm pod is claimed for; see instance.ClaimedForAnnotation. "" for nothing.
	claimedFor string
	claimUntil time.Time // for such a launch: no pod is claimed after it
}

// admit looks up the template of a launch, asks for a place within the limits, and waits
// for the launch's turn to write. id is the instance's, or "" if it has none yet.
func (l *Launcher) admit(ctx context.Context, req Request, id string) (*admitted, error) {
	template, err := l.deps.Templates.Template(ctx, req.Template)
	if err != nil {
		return nil, err
	}
	most, limited, err := podtemplate.MaxInstances(template)
	if err != nil {
		return nil, &podtemplate.Error{Template: template.Name, Err: err}
	}
	place, err := l.deps.Admission.Admit(admission.Request{
		Client: req.Client, Template: template.Name, TemplateMax: most, TemplatePaused: limited && most == 0, ID: id,
	})
	if err != nil {
		return nil, err
	}
	if err := l.awaitTurn(ctx); err != nil {
		place.Release()
		return nil, err
	}
	return &admitted{Request: req, template: template, place: place, most: most, end: func() {
		<-l.writing
		place.Release()
	}}, nil
}

// awaitTurn waits until fewer than maxWriting launches write, and makes this launch one
// of them.
func (l *Launcher) awaitTurn(ctx context.Context) error {
	patience := time.NewTimer(writeWait)
	defer patience.Stop()
	select {
	case l.writing <- struct{}{}:
		return nil
	case <-patience.C:
		return ErrBusy
	case <-ctx.Done():
		return ctx.Err()
	}
}

// overLimit reports whether a launch failed because there is no place for one more.
func overLimit(err error) bool {
	refusal := (*admission.Refusal)(nil)
	return errors.Is(err, ErrCapacity) || errors.As(err, &refusal)
}
