package pages

import (
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// adminView is what the admin page shows before it has the API key.
type adminView struct{ Title phrase }

// samples are what each page shows at some time or other.
func samples() map[string]any {
	inst := instance.Instance{
		ID: "0123456789abcdef0123456789abcdef", Template: "jupyter", Status: instance.StatusPending,
		Reason: instance.ReasonQueued, Message: instance.QueuedMessage(3), Launched: time.Unix(0, 0), Ended: time.Unix(0, 0),
	}
	starting := inst
	starting.ShowsLog = true
	usual := func() time.Duration { return time.Minute }
	over := OverNotice(inst).For("lab")
	over.Output, over.again, over.RetryAfter, over.Link, over.LinkText = "Killed", true, time.Minute, "/", say("Back")
	return map[string]any{
		launchPage:   launchView{Title: say("Launch %s", called(inst.Template)), Template: inst.Template, Button: say("Start another"), Has: true, Back: "/", Session: "/", Path: "lab", Description: "Numbers"},
		openPage:     openView{Title: say("Opening %s", called(inst.Template)), Template: inst.Template, Address: "/"},
		noticePage:   over,
		progressPage: StartingNotice(starting, time.Unix(60, 0), usual).progress.withUsual(),
		sessionPage: sessionView{
			Title: say("Your %s", called(inst.Template)), ID: inst.ID, Template: inst.Template, CullAt: time.Unix(3600, 0), LastUse: time.Unix(0, 0),
			Source: instance.SourceHTTP, Sources: sourcesInWords(), Timeout: inWords(time.Hour), Choices: []choice{{"", inWords(time.Hour)}}, Expires: time.Unix(7200, 0),
			Ports: []portLink{{Port: "3000", Address: "/"}},
		},
		startPage: startView{Title: say("Binder"), Offers: []offer{{Title: "Algebra", Description: "Numbers", Address: "/", Icon: "data:,"}}},
		adminPage: adminView{Title: quote("Binder: what runs")},
	}
}
