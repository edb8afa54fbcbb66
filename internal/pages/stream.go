package pages

import (
	"context"
	"net/http"
	"strings"
	"sync"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// logSuffix is what the address of the log of a start ends with.
const logSuffix = "/log"

// Progress returns the handler of all paths that begin with ProgressPrefix:
// /progress/<id> streams the changes of an instance to the page that shows them.
// Anyone who knows an id can read them. With ?watch=true they go on until the instance ends,
// for its session page. /progress/<id>/log streams the log of its start. They have no location, because the page is
// there already. The page of an instance with an origin of its own asks across origins, so
// that origin may (Fetch standard, CORS).
func (p *Pages) Progress() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, log := strings.CutSuffix(strings.TrimPrefix(r.URL.EscapedPath(), ProgressPrefix), logSuffix)
		if !instance.ValidID(id) || r.Method != http.MethodGet {
			p.site.Serve(w, r, NothingHereNotice())
			return
		}
		watch, err := protocol.ReadWatch(r)
		if err != nil {
			p.answer(w, r, badRequestNotice(say("This address is not right"), quote(err.Error()+".")))
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), instance.WatchDelay)
		defer cancel()
		if inst, known := p.deps.Instances.Await(ctx, id, func(_ instance.Instance, known bool) bool { return known }); !known {
			p.site.Serve(w, r, MissingNotice(inst.Unsure))
			return
		}
		language := p.site.language(r)
		setOwnHeaders(w.Header())
		if asker := r.Header.Get("Origin"); p.deps.Layout.IsInstances(asker, id) {
			w.Header().Set("Access-Control-Allow-Origin", asker)
		}
		if log {
			p.streamLog(w, r, id)
			return
		}
		protocol.StreamEvents(w, r, p.deps.Instances, id, watch, p.deps.Draining, func(inst instance.Instance) protocol.ProgressEvent {
			event := p.deps.Warnings.For(watch).Event(inst, "")
			known := true
			if event.Message, known = language.message(event.Message); !known {
				event.Lang = english.tag
			}
			event.Step = stepOf(inst)
			return event
		})
	})
}

// streamLog sends the log of a start as server-sent events named log, and one named end after the
// last. A browser connects again to a stream without that, and gets the log from its beginning.
func (p *Pages) streamLog(w http.ResponseWriter, r *http.Request, id string) {
	if p.deps.StartLog == nil {
		p.site.Serve(w, r, NothingHereNotice())
		return
	}
	ctx, end := protocol.BeginEvents(w, r, p.deps.Draining)
	defer end()
	var mu sync.Mutex // the events and the comments between them come from two goroutines
	send := func(event string) error {
		mu.Lock()
		defer mu.Unlock()
		return protocol.SendNow(w, event)
	}
	if send(":\n\n") != nil { // so that no proxy on the way waits for the answer
		return
	}
	commenting, stop := context.WithCancel(ctx)
	var comments sync.WaitGroup
	defer comments.Wait()
	defer stop()
	comments.Go(func() { protocol.KeepAliveBy(commenting, send) })
	err := p.deps.StartLog(ctx, id, func(lines string) error {
		return send("event: log\ndata: " + strings.ReplaceAll(lines, "\n", "\ndata: ") + "\n\n")
	})
	if err != nil && ctx.Err() == nil {
		p.deps.Log.DebugContext(ctx, "the log of a start is not shown", "pod", instance.PodName(id), "error", err)
	}
	if ctx.Err() == nil {
		_ = send("event: end\ndata: \n\n")
	}
}
