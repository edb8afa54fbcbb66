package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/activity"
	"github.com/binder-project/binder-deploy-kubernetes/internal/admin"
	"github.com/binder-project/binder-deploy-kubernetes/internal/admission"
	"github.com/binder-project/binder-deploy-kubernetes/internal/config"
	"github.com/binder-project/binder-deploy-kubernetes/internal/gate"
	"github.com/binder-project/binder-deploy-kubernetes/internal/keys"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"
	"github.com/binder-project/binder-deploy-kubernetes/internal/leader"
	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
	"github.com/binder-project/binder-deploy-kubernetes/internal/logging"
	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"
	"github.com/binder-project/binder-deploy-kubernetes/internal/pages"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
	"github.com/binder-project/binder-deploy-kubernetes/internal/pool"
	"github.com/binder-project/binder-deploy-kubernetes/internal/preload"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
	"github.com/binder-project/binder-deploy-kubernetes/internal/proxy"
	"github.com/binder-project/binder-deploy-kubernetes/internal/queue"
	"github.com/binder-project/binder-deploy-kubernetes/internal/replicas"
	"github.com/binder-project/binder-deploy-kubernetes/internal/startlog"
	"github.com/binder-project/binder-deploy-kubernetes/internal/tombstone"
	"github.com/binder-project/binder-deploy-kubernetes/internal/webhook"
)

// lastFlushTimeout bounds the last write of activity, when the process ends.
const lastFlushTimeout = 10 * time.Second

// contactGap is how long a leader may write nothing to its Lease, which it does
// every leader.RetryPeriod, before contact with the API server counts as lost.
const contactGap = 3 * leader.RetryPeriod

// app is all parts of the service, put together. It is the only thing that knows
// every part.
type app struct {
	config *config.Config
	*cluster
	keys      *keys.Keys
	log       *slog.Logger
	now       func() time.Time
	metrics   *metrics.Metrics
	cache     *Cache
	hold      *lifetime.Hold
	activity  *activity.Tracker
	culler    *Culler
	launcher  *launch.Launcher
	announce  *launch.Announcer
	replicas  *replicas.Replicas
	clients   *admission.Clients
	queue     *queue.Queue
	pool      *pool.Pool
	preload   *preload.Preloader
	warnings  *podtemplate.Warnings
	webhook   *webhook.Sender // nil without a receiver
	admin     *admin.Admin
	health    *health
	startLogs *startlog.Logs
	site      *pages.Site // how our pages look
	proxy     *proxy.Proxy
	servers   []*server // metrics, API, proxy
	// draining is done when waiting clients must be let go.
	draining context.Context
	drain    context.CancelFunc
}

// newApp makes the parts and opens the listeners. Nothing runs yet.
func newApp(c *config.Config, k *cluster, m *metrics.Metrics, log *slog.Logger, now func() time.Time, random io.Reader) (*app, error) {
	log = logging.Sparse(log) // visitors, applications and outages can cause lines again and again
	a := &app{
		config: c, cluster: k, keys: keys.New(c.APIKeys...), log: log, now: now, metrics: m,
		hold:    lifetime.NewHold(contactGap),
		clients: admission.NewClients(c.Secret, c.TrustedProxies),
	}
	a.draining, a.drain = context.WithCancel(context.Background())
	rules := lifetime.Rules{CullTimeout: c.CullTimeout, StartTimeout: c.StartTimeout, MaxAge: c.MaxAge, MinCullTimeout: c.MinCullTimeout}
	a.replicas = replicas.New(replicas.Deps{
		Leases: k.leading.CoordinationV1().Leases(c.Namespace), Election: c.LeaseName, Identity: c.Identity, Log: log, Now: now, Local: time.Now,
	})
	var err error
	a.cache, err = NewCache(CacheDeps{
		Client: k.client, Now: now, Contact: k.contact, Log: log, Election: c.LeaseName,
		Namespace: c.Namespace, InstancesNamespace: c.InstancesNamespace, ProxyService: c.ProxyService, Rules: rules,
	})
	if err != nil {
		return nil, err
	}
	if a.site, err = pages.Load(c.PagesDir, podtemplate.Titles(a.cache)); err != nil {
		return nil, fmt.Errorf("--pages-dir: %w", err)
	}
	a.health = &health{synced: a.cache.Synced, cutOff: k.contact.Lost}
	templates := a.templates()
	if err := a.makeWriters(rules, templates, random); err != nil {
		return nil, err
	}
	a.admin = admin.New(admin.Deps{Opens: a.keys.Opens, Draining: a.draining, State: func(ctx context.Context) admin.State {
		return a.cache.adminState(ctx, a.limits(), a.preload)
	}})
	if err := errors.Join(a.cache.OnReplica(a.replicas.Changed, a.replicas.Gone), a.cache.onAdminState(a.admin.Changed), registerCollectors(m, a.cache, a.culler)); err != nil {
		return nil, err
	}
	m.Unwritten(a.replicas.WrittenUntil, now)
	m.Queued(a.queue.Waiting)
	return a, a.listen(templates)
}

// makeWriters makes the parts that write to the API server.
func (a *app) makeWriters(rules lifetime.Rules, templates podtemplate.Source, random io.Reader) (err error) {
	pods := a.client.CoreV1().Pods(a.config.InstancesNamespace)
	remover := func(client kube.Client) *tombstone.Remover {
		return &tombstone.Remover{Client: client, Namespace: a.config.InstancesNamespace, Now: a.now, Log: a.log, Metrics: a.metrics}
	}
	a.activity = activity.New(activity.Deps{
		Pods: pods, Cache: a.cache, Rules: rules, Metrics: a.metrics, Log: a.log, Now: a.now, Written: a.replicas.Written,
	})
	a.culler, err = NewCuller(CullerDeps{
		Pods: a.leading.CoreV1().Pods(a.config.InstancesNamespace), Cache: a.cache, Remover: remover(a.leading), Rules: rules, Hold: a.hold, Brake: lifetime.Brake{Share: a.config.MaxFailedShare},
		Interval: a.config.CullInterval, ReplicaClocks: a.replicas.Clocks, Metrics: a.metrics, Log: a.log, Now: a.now,
	})
	if err != nil {
		return err
	}
	a.announce = launch.NewAnnouncer(a.client.CoreV1().Events(a.config.InstancesNamespace))
	a.launcher, err = launch.New(launch.Deps{
		Pods: pods, Cache: a.cache, Templates: templates, Remover: remover(a.client),
		Admission:    admission.New(admission.Deps{Limits: a.limits(), Instances: a.cache, WaitingForTemplate: func() int { return a.queue.WaitingForTemplate() }, Now: a.now}),
		RepeatableID: keys.NewSecret(a.config.Secret).InstanceID, MaxAge: rules.MaxAgeOf, StartTimeout: a.config.StartTimeout,
		Metrics: a.metrics, Announce: a.announce.Deployed, Reporter: a.makeWebhook(), Log: a.log, Now: a.now, Random: random,
	})
	if err != nil {
		return err
	}
	a.queue, err = queue.New(queue.Deps{
		Pods: pods, Cache: a.cache, MaxInstances: a.config.MaxInstances, Paused: a.config.PauseLaunches,
		Sure: a.isSure, CutOff: a.contact.Lost, AskedWithin: rules.Lag(lifetime.QueuePatience) + time.Minute, MaxAge: rules.MaxAgeOf, Touch: a.activity.Touch, Admitted: a.metrics.Admitted, Log: a.log, Now: a.now,
	})
	if err != nil {
		return err
	}
	a.pool, err = pool.New(pool.Deps{
		Pods: pods, Cache: a.cache, StartTimeout: a.config.StartTimeout, Metrics: a.metrics, Queues: a.metrics.Queues(), Log: a.log, Now: a.now, Random: random,
	})
	if err != nil {
		return err
	}
	a.preload, err = preload.New(preload.Deps{
		DaemonSets: a.client.AppsV1().DaemonSets(a.config.InstancesNamespace), Cache: a.cache, Templates: templates,
		Namespace: a.config.InstancesNamespace, HelperImage: a.config.PreloadHelperImage, Queues: a.metrics.Queues(), Log: a.log, Now: a.now,
	})
	if err != nil {
		return err
	}
	a.startLogs = startlog.New(startlog.Deps{Open: startlog.Opener(pods), Cache: a.cache, Log: a.log})
	a.warnings, err = podtemplate.NewWarnings(podtemplate.Deps{
		Events: a.client.CoreV1().Events(a.config.InstancesNamespace), Templates: a.cache, Log: a.log,
	})
	return err
}

// listen opens all ports, so that one that is taken is an error at the start.
func (a *app) listen(templates podtemplate.Source) error {
	listeners := map[string]net.Listener{}
	for _, port := range []struct{ name, address string }{
		{"proxy", a.config.ProxyAddress}, {"api", a.config.APIAddress}, {"metrics", a.config.MetricsAddress},
	} {
		listener, err := net.Listen("tcp", port.address)
		if err != nil {
			return fmt.Errorf("--%s-address: %w", port.name, err)
		}
		listeners[port.name] = listener
	}
	_, proxyPort, err := net.SplitHostPort(listeners["proxy"].Addr().String())
	if err != nil {
		return fmt.Errorf("read the proxy's port: %w", err)
	}
	public := gate.New(a.gateDeps())
	visitors := newServer("proxy", proxy.Listen(public.Listen(listeners["proxy"]), a.config.ProxyIdleTimeout),
		a.public(templates, public), longRequests(), a.log)
	visitors.http.ConnState, visitors.http.ConnContext = public.ConnState, connContext
	a.servers = []*server{
		newServer("metrics", listeners["metrics"], notAtInstances(a.layout(), a.health.routes(a.metrics.Handler(), a.config.Pprof)), shortRequests(), a.log),
		newServer("api", listeners["api"], notAtInstances(a.layout(), a.newAPI(proxyPort).Routes()), shortRequests(), a.log),
		visitors,
	}
	return nil
}

// newAPI makes the API. proxyPort is where visitors reach instances.
func (a *app) newAPI(proxyPort string) *API {
	layout := a.layout()
	locator := &protocol.Locator{Layout: layout, ProxyPort: proxyPort, Services: a.cache}
	if len(layout.Public) > 0 {
		locator.PublicHost = layout.Public[0]
	}
	return &API{
		Instances: a.asked(), Launcher: a.launcher, Preloader: a.preload, Admin: a.admin, Locations: locator.Locations,
		Client: a.clientOf, Keys: a.keys, AllowOrigins: a.config.CORSAllowOrigins, IsOurs: layout.IsMain, Draining: a.draining,
		MinCullTimeout: a.config.MinCullTimeout, MaxCullTimeout: a.config.MaxCullTimeout, KeepAlive: a.activity.KeepAlive,
		Warnings: a.endWarnings(), Metrics: a.metrics, Log: a.log,
	}
}

// endWarnings say when clients are warned of the end of an instance.
func (a *app) endWarnings() protocol.Warnings {
	return protocol.Warnings{Before: a.config.CullWarning, Now: a.now}
}

// public is what answers on the public port: the instances, and our own pages.
func (a *app) public(templates podtemplate.Source, public *gate.Gate) http.Handler {
	a.proxy = proxy.New(proxy.Deps{
		Site: a.site, Instances: a.asked(), Touch: a.activity.Touch, IsAPIKey: a.keys.Opens, UsualStart: a.cache.pods.UsualStart,
		ShareWith: a.config.CORSAllowOrigins, Layout: a.layout(), LaunchPage: a.config.LaunchPage, FrameAncestors: a.config.FrameAncestors, HideCookies: a.config.HideCookies,
		IdleTimeout: a.config.ProxyIdleTimeout, Enter: public.Enter, Metrics: a.metrics, Log: a.log,
	})
	refuse := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proxy.AnswerEarly(w, r, func() { a.site.Serve(w, r, pages.BusyClientNotice()) })
	})
	return public.Handler(routePublic(a.metrics, a.site, a.ownPages(templates), a.layout(), a.proxy), refuse)
}

// run serves until ctx is done, and then ends in order: unready first, so that no new
// visitors come; then the requests under way; then what is only in memory; last the
// cache that all of them read.
func (a *app) run(ctx context.Context) error {
	reading, stopReading := context.WithCancel(context.WithoutCancel(ctx))
	var readers sync.WaitGroup
	defer readers.Wait()
	defer stopReading()
	for _, run := range []func(context.Context){a.cache.Run, a.watchKeys, a.watchContact, a.announce.Run} {
		readers.Go(func() { run(reading) })
	}

	// Activity is written for as long as there are requests, and once more.
	writing, stopWriting := context.WithCancel(reading)
	var writer sync.WaitGroup
	defer writer.Wait()
	defer stopWriting()
	readers.Go(func() { a.webhook.Run(writing) }) // it flushes while the last activity is written

	working, stopWorking := context.WithCancelCause(ctx)
	var workers sync.WaitGroup
	a.serve(a.servers[0], &workers, stopWorking)
	if err := a.awaitSync(working); err != nil {
		a.shutdown()
		workers.Wait()
		return ignoreEnd(ctx, err)
	}
	for _, s := range a.servers[1:] {
		a.serve(s, &workers, stopWorking)
	}
	writer.Go(func() { a.activity.Run(writing) })
	writer.Go(func() { a.replicas.Run(writing) })
	workers.Go(func() { stopOn(a.lead(working), stopWorking) })
	a.log.Info("ready", "version", version, "api", a.servers[1].addr(), "proxy", a.servers[2].addr(), "metrics", a.servers[0].addr())

	<-working.Done()
	cause := context.Cause(working)
	a.health.stopping.Store(true)
	a.log.Info("stopping", "cause", cause)
	if ctx.Err() != nil { // the end was requested; no part is broken
		<-time.After(a.config.ShutdownDelay)
	}
	a.shutdown()
	workers.Wait()
	stopWriting()
	writer.Wait()
	flushing, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastFlushTimeout)
	defer cancel()
	a.activity.Flush(flushing)
	a.replicas.Leave(flushing)
	return ignoreEnd(ctx, cause)
}

// lead stands for election, and runs what only the leader does while it is elected.
func (a *app) lead(ctx context.Context) error {
	return leader.Run(ctx, leader.Deps{
		Leases: a.leading.CoordinationV1(), Namespace: a.config.Namespace, Lease: a.config.LeaseName, Identity: a.config.Identity,
		Leading: a.metrics.Leading, Written: a.leaseWritten, Answered: a.contact.Answered, Log: a.log,
	}, func(ctx context.Context) {
		var parts sync.WaitGroup
		for _, run := range []func(context.Context){a.culler.Run, a.queue.Run, a.pool.Run, a.preload.Run, a.warnings.Run, a.webhook.ReportEnds, a.replicas.CleanUp} {
			parts.Go(func() { run(ctx) })
		}
		parts.Wait()
	})
}

// leaseWritten notes that this replica leads, and has contact with the API server.
func (a *app) leaseWritten() {
	now := time.Now() // by the monotonic clock
	a.hold.Contact(now)
	a.renewals.Renewed(now)
}

// asked is the read model for clients.
func (a *app) asked() asked { return asked{a.cache, a.queue} }

// serve runs a server among the workers. One that breaks stops them all.
func (a *app) serve(s *server, workers *sync.WaitGroup, stop context.CancelCauseFunc) {
	workers.Go(func() { stopOn(s.serve(), stop) })
}

func stopOn(err error, stop context.CancelCauseFunc) {
	if err != nil {
		stop(err)
	}
}

// awaitSync waits for the first read of the cluster, however long that takes, and
// says so now and then.
func (a *app) awaitSync(ctx context.Context) error {
	check := time.NewTicker(20 * time.Millisecond)
	defer check.Stop()
	remind := time.NewTicker(10 * time.Second)
	defer remind.Stop()
	for !a.cache.Synced() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-remind.C:
			a.log.Warn("still waiting for the first read of the cluster: is the API server there, and do the Roles allow it?")
		case <-check.C:
		}
	}
	return nil
}

// shutdown lets requests and WebSockets under way end, on all servers at the same time.
func (a *app) shutdown() {
	a.drain()
	var ending sync.WaitGroup
	ending.Go(func() { a.proxy.EndWebSockets(a.config.DrainTimeout) })
	for _, s := range a.servers {
		ending.Go(func() { s.shutdown(a.config.DrainTimeout) })
	}
	ending.Wait()
}
