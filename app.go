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

	"k8s.io/client-go/kubernetes"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"

	"github.com/binder-project/binder-deploy-kubernetes/internal/leader"

	"github.com/binder-project/binder-deploy-kubernetes/internal/config"

	"github.com/binder-project/binder-deploy-kubernetes/internal/tombstone"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"

	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"

	"github.com/binder-project/binder-deploy-kubernetes/internal/preload"

	"github.com/binder-project/binder-deploy-kubernetes/internal/pool"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"

	"github.com/binder-project/binder-deploy-kubernetes/internal/pages"

	"github.com/binder-project/binder-deploy-kubernetes/internal/proxy"
)

// flushTimeout bounds the last write of activity at the end.
const flushTimeout = 10 * time.Second

// app is the service's parts, put together.
type app struct {
	config   *config.Config
	client   kubernetes.Interface
	log      *slog.Logger
	metrics  *metrics.Metrics
	cluster  *Cluster
	activity *Activity
	culler   *Culler
	pool     *pool.Pool
	preload  *preload.Preloader
	warnings *podtemplate.Warnings
	health   *health
	servers  []*server
	// draining is done when those who wait for something have to be let go.
	draining context.Context
	drain    context.CancelFunc
}

// newApp wires the parts and opens the listeners; nothing runs yet.
func newApp(config *config.Config, client kubernetes.Interface, log *slog.Logger, now func() time.Time, random io.Reader) (*app, error) {
	metrics := metrics.New(version, metricValues())
	policy := cullPolicy{cullTimeout: config.CullTimeout, startTimeout: config.StartTimeout, maxAge: config.MaxAge}
	cluster, err := NewCluster(client, ClusterOptions{
		Namespace:          config.Namespace,
		InstancesNamespace: config.InstancesNamespace,
		ProxyService:       config.ProxyService,
		StartTimeout:       config.StartTimeout,
		Policy:             policy,
	}, now)
	if err != nil {
		return nil, err
	}
	watchCluster(metrics, cluster)
	warnings, err := podtemplate.NewWarnings(client, cluster, log, now)
	if err != nil {
		return nil, err
	}
	pods := client.CoreV1().Pods(config.InstancesNamespace)
	remover := &tombstone.Remover{Client: client, Namespace: config.InstancesNamespace, Now: now}
	activity := NewActivity(pods, cluster, config.CullTimeout, metrics, log, now)
	culler, err := NewCuller(pods, cluster, remover, activity, policy, config.CullInterval, metrics, log, now)
	if err != nil {
		return nil, err
	}
	pool, err := pool.New(pods, cluster, config.StartTimeout, metrics, log, now, random)
	if err != nil {
		return nil, err
	}
	templates := newTemplateSource(config, cluster, metrics, log, now)
	launcher, err := launch.New(pods, cluster, config.StartTimeout, templates, remover, metrics, log, now, random, protocol.NewAPIKey(config.APIKey).InstanceID)
	if err != nil {
		return nil, err
	}
	preloader, err := preload.New(client.AppsV1().DaemonSets(config.InstancesNamespace), cluster, config.InstancesNamespace, templates,
		config.PreloadHelperImage, log)
	if err != nil {
		return nil, err
	}
	a := &app{
		config: config, client: client, log: log, metrics: metrics,
		cluster: cluster, activity: activity, culler: culler, pool: pool, preload: preloader, warnings: warnings, health: &health{synced: cluster.Synced},
	}
	a.draining, a.drain = context.WithCancel(context.Background())
	return a, a.listen(launcher, templates)
}

// listen opens all ports, so that one that is taken is an error at the start.
func (a *app) listen(launcher *launch.Launcher, templates podtemplate.Source) error {
	key := protocol.NewAPIKey(a.config.APIKey)
	proxyListener, err := net.Listen("tcp", a.config.ProxyAddress)
	if err != nil {
		return fmt.Errorf("--proxy-address: %w", err)
	}
	_, proxyPort, err := net.SplitHostPort(proxyListener.Addr().String())
	if err != nil {
		return fmt.Errorf("read the proxy's port: %w", err)
	}
	apiListener, err := net.Listen("tcp", a.config.APIAddress)
	if err != nil {
		return fmt.Errorf("--api-address: %w", err)
	}
	metricsListener, err := net.Listen("tcp", a.config.MetricsAddress)
	if err != nil {
		return fmt.Errorf("--metrics-address: %w", err)
	}
	locator := &protocol.Locator{PublicHost: a.config.PublicHost, ProxyPort: proxyPort, Services: a.cluster}
	api := &API{
		Draining:  a.draining,
		Instances: a.cluster, Launcher: launcher, Preloader: a.preload, Location: locator.Location, Key: key,
		AllowOrigins:   a.config.CORSAllowOrigins,
		MaxCullTimeout: a.config.MaxCullTimeout, Metrics: a.metrics, Log: a.log,
	}
	proxy := proxy.New(a.cluster, a.activity.Touch, key.Opens, a.log)
	proxy.LaunchPage = a.config.LaunchPage
	pages := &pages.LaunchPages{
		Instances: a.cluster, Launcher: launcher, Templates: templates, Enabled: a.config.LaunchPage,
		Draining: a.draining, Metrics: a.metrics, Log: a.log,
	}
	a.servers = []*server{
		newServer("metrics", metricsListener, a.health.Routes(a.metrics.Handler()), shortRequests, a.log),
		newServer("api", apiListener, api.Routes(), shortRequests, a.log),
		newServer("proxy", proxyListener, pages.Routes(a.metrics.InstrumentProxy(instance.UserPrefix, proxy)), longRequests, a.log),
	}
	return nil
}

// run serves until ctx is done, then ends in order: unready first, so that no
// new visitors come; then the requests under way; then what is only in memory;
// last the cache that all of them read.
func (a *app) run(ctx context.Context) error {
	reading, stopReading := context.WithCancel(context.WithoutCancel(ctx))
	var readers sync.WaitGroup
	defer readers.Wait()
	defer stopReading()
	readers.Go(func() { a.cluster.Run(reading) })

	// Activity is written for as long as there are requests, and once more.
	writing, stopWriting := context.WithCancel(reading)
	var writer sync.WaitGroup
	defer writer.Wait()
	defer stopWriting()

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
	workers.Go(func() { a.warnings.Run(working) })
	workers.Go(func() { stopWorkingOn(a.lead(working), stopWorking) })
	a.log.Info("ready", "version", version, "api", a.servers[1].addr(), "proxy", a.servers[2].addr(), "metrics", a.servers[0].addr())

	<-working.Done()
	cause := context.Cause(working)
	a.health.stopping.Store(true)
	a.log.Info("stopping", "cause", cause)
	if ctx.Err() != nil { // asked to, and not broken
		pause(a.config.ShutdownDelay)
	}
	a.shutdown()
	workers.Wait()
	stopWriting()
	writer.Wait()
	flushing, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	a.activity.Flush(flushing)
	return ignoreEnd(ctx, cause)
}

func (a *app) lead(ctx context.Context) error {
	opts := leader.Options{
		Namespace: a.config.Namespace, Lease: a.config.LeaseName, Identity: a.config.Identity,
		Written: func() { a.culler.contact.note(time.Now()) },
	}
	return leader.Run(ctx, a.client, opts, a.metrics.Leading, a.log, func(ctx context.Context) {
		var parts sync.WaitGroup
		for _, run := range []func(context.Context){a.culler.Run, a.pool.Run, a.preload.Run} {
			parts.Go(func() { run(ctx) })
		}
		parts.Wait()
	})
}

// serve runs a server among the workers; one that breaks stops them all.
func (a *app) serve(s *server, workers *sync.WaitGroup, stop context.CancelCauseFunc) {
	workers.Go(func() { stopWorkingOn(s.serve(), stop) })
}

func stopWorkingOn(err error, stop context.CancelCauseFunc) {
	if err != nil {
		stop(err)
	}
}

// awaitSync waits for the first read of the cluster, for as long as it takes,
// and says so now and then.
func (a *app) awaitSync(ctx context.Context) error {
	check := time.NewTicker(20 * time.Millisecond)
	defer check.Stop()
	remind := time.NewTicker(10 * time.Second)
	defer remind.Stop()
	for !a.cluster.Synced() {
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

// shutdown lets requests under way end, all servers at the same time.
func (a *app) shutdown() {
	a.drain()
	forEach(a.servers, len(a.servers), func(s *server) { s.shutdown(a.config.DrainTimeout) })
}

// ignoreEnd makes an end that was asked for no error.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

func pause(d time.Duration) { <-time.After(d) }

// requestLimits are the limits of a server on single requests.
type requestLimits struct {
	read, write time.Duration
}

var (
	shortRequests = requestLimits{read: 30 * time.Second, write: 90 * time.Second}
	// longRequests have no end of their own: uploads, downloads, WebSockets.
	longRequests = requestLimits{}
)

// server is one listener and what answers on it.
type server struct {
	name     string
	listener net.Listener
	http     *http.Server
	log      *slog.Logger
}

func newServer(name string, listener net.Listener, handler http.Handler, limits requestLimits, log *slog.Logger) *server {
	return &server{name: name, listener: listener, log: log, http: &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       limits.read,
		WriteTimeout:      limits.write,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.With("server", name).Handler(), slog.LevelError),
	}}
}

func (s *server) addr() string { return s.listener.Addr().String() }

// serve answers until shutdown; any other end is an error.
func (s *server) serve() error {
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", s.name, err)
	}
	return nil
}

// shutdown lets requests end until the timeout and then cuts them. WebSockets
// are not waited for: browsers open them anew, at another replica.
func (s *server) shutdown(timeout time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		s.log.Warn("requests cut off at the end", "server", s.name, "error", err)
		_ = s.http.Close() // of no more interest than the requests
	}
}

// metricValues are the closed sets that the labels of metrics take their values from.
func metricValues() metrics.Values {
	return metrics.Values{
		Launches:        append(podtemplate.Results(), "no_capacity"),
		Ends:            texts(instance.EndReasons()),
		ActivityPatches: writeResults(),
		ActivityProbes:  texts([]ProbeResult{ProbeBusy, ProbeActive, ProbeIdle, ProbeNoAnswer, ProbeBadAnswer}),
		Claims:          texts([]launch.ClaimResult{launch.ClaimWarm, launch.ClaimLostRace, launch.ClaimEmpty}),
		RegistryAsks:    podtemplate.Results(),
	}
}

func texts[T ~string](values []T) []string {
	all := make([]string, 0, len(values))
	for _, value := range values {
		all = append(all, string(value))
	}
	return all
}
