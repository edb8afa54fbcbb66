package pages

import (
	"net/http"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// launchAnew is what the button of an instance that is over says.
const launchAnew = "Launch a new one"

func NothingHereNotice() Notice {
	const text = "There is nothing at this address."
	return Notice{Code: http.StatusNotFound, Plain: text, Title: "Not found", Text: text}
}

func NoInstanceNotice() Notice {
	return Notice{
		Code: http.StatusNotFound, Plain: "There is no such instance.",
		Title: "No such instance",
		Text:  "There is no instance at this address. It may have been over for so long that nothing is known of it any more, or the address may not be complete.",
	}
}

func StartingNotice(inst instance.Instance) Notice {
	return Notice{
		Code: http.StatusServiceUnavailable, RetryAfter: time.Second,
		Plain: "This instance is starting. Try again in a moment.",
		Waiting: &progressView{
			Title: "Starting " + inst.Template, Template: inst.Template,
			Phase: inst.Status, Message: inst.Message, Events: ProgressPrefix + inst.ID,
		},
	}
}

func FailedNotice(inst instance.Instance) Notice {
	return Notice{
		Code: http.StatusBadGateway, Plain: "This instance failed: " + inst.Message,
		Title:  inst.Template + " failed",
		Text:   "This instance did not start, or broke down. It will be deleted.",
		Reason: inst.Reason, Message: inst.Message,
		Template: inst.Template, Button: launchAnew,
	}
}

func NoAnswerNotice(inst instance.Instance) Notice {
	const text = "The instance did not answer."
	return Notice{
		Code: http.StatusBadGateway, Plain: text,
		Title:    inst.Template + " does not answer",
		Text:     "The instance is there, but the application in it did not answer. Loading this page again may help; if it does not, launch a new one.",
		Template: inst.Template, Button: launchAnew,
	}
}

// OverNotice says of an instance that has been deleted what happened to it.
func OverNotice(inst instance.Instance) Notice {
	n := Notice{
		Code: http.StatusGone, Plain: "This instance is over: " + inst.Message,
		Reason: inst.Reason, Message: inst.Message, When: inst.Ended,
		Template: inst.Template, Button: launchAnew,
	}
	switch inst.Reason {
	case string(instance.EndCulled):
		n.Title = inst.Template + " was closed because it was not used"
		n.Text = "To make room for others, instances are deleted when nobody has used them for a while. What was in it is gone."
	case string(instance.EndExpired):
		n.Title = inst.Template + " was closed because its time was up"
		n.Text = "Instances of this kind are deleted when they have lived for a set time, used or not. What was in it is gone."
	case string(instance.EndStopped):
		n.Title = inst.Template + " was stopped"
		n.Text = "This instance was stopped on request. What was in it is gone."
	case string(instance.EndFailed):
		n.Title = inst.Template + " failed and was deleted"
		n.Text = "This instance did not start, or broke down."
	case instance.ReasonCompleted:
		n.Title = inst.Template + " has ended"
		n.Text = "The application in this instance ended by itself. What was in it is gone."
	case instance.ReasonDeleting:
		n.Title = inst.Template + " is being deleted"
		n.Text = "This instance is over. In a moment this page can say why."
	default:
		n.Title = inst.Template + " is gone"
		n.Text = "This instance ended by itself, or was deleted by the cluster. What was in it is gone."
	}
	return n
}

// foreignNotice is for a launch that another site's page asked for.
func foreignNotice() Notice {
	return Notice{
		Code: http.StatusForbidden, Plain: "Launches are taken only from this service's own pages.",
		Title: "Not launched",
		Text:  "Another site asked to launch this in your name. Launches are taken only from this service's own pages.",
	}
}

func badPathNotice(err error) Notice {
	return Notice{
		Code: http.StatusBadRequest, Plain: "The parameter path is not right: " + err.Error() + ".",
		Title: "This link is not right",
		Text:  "The parameter “path” of this address is not right: " + err.Error() + ".",
	}
}

func badFormNotice(code int) Notice {
	return Notice{
		Code: code, Plain: "The form could not be read, or is larger than 64 KiB.",
		Title: "Not launched", Text: "The form could not be read, or is larger than 64 KiB.",
	}
}

// notLaunched says why there is no instance. Where trying again may help, there
// is a button that does.
func notLaunchedNotice(template, path string, answer *protocol.Error) Notice {
	n := Notice{
		Code: answer.Code, RetryAfter: answer.RetryAfter, Plain: answer.Message,
		Title: template + " was not launched", Message: answer.Message,
	}
	switch {
	case answer.Code == http.StatusNotFound:
		n.Title = "There is no " + template
		n.Text = "There is no template of this name here. The link may be old, or its name misspelt."
	case answer.RetryAfter > 0:
		n.Text = "It was not possible just now."
		n.Template, n.Path, n.Button = template, path, "Try again"
	default:
		n.Text = "Something is wrong on our side, and trying again will not help for now."
	}
	return n
}
