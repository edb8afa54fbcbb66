package protocol

import (
	"slices"

	"github.com/binder-project/binder-deploy-kubernetes/internal/admission"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// What visitors are told by an event, besides the message of the instance.
const (
	readyText   = "Ready."
	idleWarning = "The instance will be deleted soon if it is not used."
	ageWarning  = "The instance will be deleted soon, because its time is up."
)

// What visitors are told by an Error. Mistakes of a client are not among them, and neither are
// those of a template: visitors can do nothing about these.
const (
	busyText      = "too many instances are being launched at the moment; try again shortly"
	noClusterText = "the cluster does not accept requests at the moment; try again shortly"
)

func noRegistryText() string { return podtemplate.ErrUnavailable.Error() + "; try again shortly" }

// Texts returns the texts that visitors are told by events and errors, with parts in braces as in
// package instance. The pages translate them.
func Texts() []string {
	return slices.Concat([]string{
		readyText, idleWarning, ageWarning, busyText, noClusterText, noRegistryText(),
		launch.ErrUnsure.Error(), instance.ErrEnded.Error(), instance.ErrTooSoon.Error(),
	}, admission.Texts())
}
