// Package config reads the settings of the service: from flags, from environment
// variables, and from the settings file of the Node server that this service
// replaces.
//
// It knows names, defaults and allowed values, and what --help says. It must never
// know the parts that the settings are for: it imports none of them, talks to no
// API server and logs nothing.
package config

import (
	"cmp"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Config holds every setting. Parse fills it in and checks it.
type Config struct {
	// Where the service listens.

	// APIAddress is where the Binder deploy API listens, as host:port; the default is
	// ":8084". Launching needs no key: anyone who can reach this address can launch.
	APIAddress string
	// ProxyAddress is where the proxy listens, as host:port; the default is ":8000".
	// Visitors reach their instances, and the launch page, through it.
	ProxyAddress string
	// MetricsAddress is where /metrics, /healthz and /readyz listen, as host:port; the
	// default is ":9090". It is for operators, and needs no key.
	MetricsAddress string
	// Pprof says whether MetricsAddress serves Go's profiles of the process too; the default
	// is false. Recording them costs time, and needs no key.
	Pprof bool
	// PublicHosts are the hosts by which browsers know the proxy, as host or host:port.
	// The first is the host of every instance's location, unless there is an
	// InstanceDomain; a wrong one gives every visitor a link that leads nowhere. At any
	// other host, pages launch nothing. None means the address of the Service that
	// ProxyService names, and that pages launch at every host.
	PublicHosts []string
	// InstanceDomain is the domain below which each instance has a host of its own, as
	// domain or domain:port in small letters. "" means that all instances are at the
	// public host, and share its origin.
	InstanceDomain string
	// CORSAllowOrigins are the origins whose pages can call the API from a browser, in
	// the form that browsers send, or anyOrigin for all. By default there are none.
	CORSAllowOrigins []string
	// FrameAncestors are the origins whose pages can show the page of a starting instance
	// and the notices of instances in a frame, besides the proxy's own origin, or
	// anyOrigin for all. By default there are none. Such a page can trick a visitor into
	// pressing the button that launches a new instance.
	FrameAncestors []string
	// HideCookies are the names of cookies that no instance sees or sets. A star at the
	// end stands for any ending. By default there are none. The cookie of a login in front
	// of the service lets anyone who has it act as the visitor.
	HideCookies []string
	// PagesDir is a directory of files that replace some of those of our pages; "" for none.
	PagesDir string
	// LaunchPage says whether the proxy serves /launch/<template>; the default is true.
	// With it, anyone who can reach the proxy can launch.
	LaunchPage bool
	// BinderHub says whether the proxy answers the clients of BinderHub; the default is true. It
	// needs the LaunchPage, because they launch as anyone can with that.
	BinderHub bool

	// The cluster.

	// Kubeconfig is the file that says how to reach the cluster from outside. "" means
	// that the process runs in a pod, and uses the pod's service account.
	Kubeconfig string
	// Namespace holds the Lease and the proxy's Service; it is never "". The default is
	// $POD_NAMESPACE, else the namespace of the pod that the process runs in, else
	// "binder".
	Namespace string
	// InstancesNamespace holds instances, PodTemplates and tombstones; the default is
	// "binder-instances". After a change, the service no longer sees the instances in
	// the old namespace, and never deletes them.
	InstancesNamespace string
	// ProxyService is the name of the Service in front of the proxy; the default is
	// "binder-proxy". Its load balancer's address is the host of every location, unless
	// there are PublicHosts.
	ProxyService string
	// LeaseName is the name of the Lease by which replicas elect a leader; the default
	// is "binder-deploy-kubernetes". Replicas that use different Leases lead at the same
	// time, and together make too many warm pods.
	LeaseName string
	// Identity is the name of this replica in the Lease: $POD_NAME, else the host's name
	// with random digits. It must differ between replicas. It is not a flag.
	Identity string

	// Keys.

	// InCluster says that the process runs in a pod. Other replicas then need the same
	// keys and secret, and strangers may reach the service, so none may be short or
	// missing.
	InCluster bool
	// APIKeys are the keys that authorised requests must carry one of; there is at least
	// one. The default is a random key, which no other replica knows and which a restart
	// changes.
	APIKeys []string
	// APIKeyGenerated says that the key is random: it must be shown once when the
	// process starts, and not in the log.
	APIKeyGenerated bool
	// APIKey is the key that was given by a flag or a variable, and APIKeyFile the file
	// that holds the keys. At most one of them is not "".
	APIKey, APIKeyFile string
	// Secret is what the ids of repeatable launches are made with; it is never "". All
	// replicas need the same. The default is random: after a restart, a repeated launch
	// is a new one.
	Secret string
	// SecretFile is the file that Secret was read from, or "".
	SecretFile string
	// RegistryAPIKey is the key that requests to the registry carry; "" means none. The
	// default is the first of APIKeys, if that is not random and the registry is asked by
	// https. The registry's operator learns it.
	RegistryAPIKey string
	// RegistryAPIKeyFile is the file that RegistryAPIKey was read from, or "".
	RegistryAPIKeyFile string

	// Templates.

	// RegistryURL is the base URL of a Binder registry for templates that are not in the
	// cluster. The default "" means that there is no registry. Whoever writes to the
	// registry decides which images run.
	RegistryURL string
	// PreloadHelperImage is the image that waits in pods that preload templates; the
	// default is registry.k8s.io/pause:3.10.1. Nodes must be able to pull it.
	PreloadHelperImage string

	// Lifetimes.

	// CullTimeout is how long an instance can be idle, unless its launch or its template
	// says otherwise. It is positive; the default is 1 hour. A timeout that is too short
	// ends instances of people who only read.
	CullTimeout time.Duration
	// MinCullTimeout is the shortest cull timeout that a launch can ask for. It is positive
	// and at most CullTimeout; the default is 1 minute. A twelfth of it is the least time
	// between two writes of an instance's activity.
	MinCullTimeout time.Duration
	// MaxCullTimeout is the longest cull timeout that a launch can ask for, and at least
	// CullTimeout; the default is 24 hours.
	MaxCullTimeout time.Duration
	// CullWarning is how long before its end clients that follow an instance are warned of
	// that; the default is 10 minutes, and 0 means never.
	CullWarning time.Duration
	// MaxAge is how long an instance can live, however active; 0 means no limit. The
	// default is 12 hours. A limit ends instances that are in use; without one, a program
	// that uses an instance keeps its place.
	MaxAge time.Duration
	// CullInterval is the time between two runs of the culler. It is positive; the
	// default is 30 seconds. An instance can outlive its end by this time.
	CullInterval time.Duration
	// MaxFailedShare is the share of the instances, from 0 to 1, that one run of the culler can
	// delete as failed; the default is 0.2. It can delete 10 in any case.
	MaxFailedShare float64
	// StartTimeout is how long an instance can take to become ready before it counts as
	// failed. It is positive; the default is 5 minutes. It includes the time that nodes
	// need to pull the image.
	StartTimeout time.Duration
	// ShutdownDelay is how long the service keeps serving after SIGTERM, while it reports
	// itself as not ready; the default is 5 seconds. If load balancers take longer to
	// notice, visitors see errors during a rollout.
	ShutdownDelay time.Duration
	// DrainTimeout is how long running requests can take to finish after ShutdownDelay;
	// the default is 20 seconds. The pod's terminationGracePeriodSeconds must be longer
	// than both together plus 10 seconds, or the last activity is not written.
	DrainTimeout time.Duration

	// Limits.

	// LaunchRate is how many instances a client can launch in an hour; the default is 20,
	// and 0 means no limit. Clients are told apart by their addresses.
	LaunchRate int
	// MaxInstancesPerClient is how many living instances a client can have; the default is
	// 10, and 0 means no limit.
	MaxInstancesPerClient int
	// MaxInstances is how many living instances there can be in all. The default 0 means
	// no limit.
	MaxInstances int
	// Queue lets launches wait for a place that are beyond the limits of all instances or of their
	// template, and MaxQueued is how many can wait for each; see QueueLength.
	Queue     bool
	MaxQueued int
	// PauseLaunches refuses all launches.
	PauseLaunches bool
	// MaxConnections is how many connections of visitors the proxy holds, and
	// MaxConnectionsPerClient how many of them one client can have. MaxConnectionsPerInstance
	// is how many requests and WebSockets can be under way at one instance. The default 0
	// means what the memory allows.
	MaxConnections, MaxConnectionsPerClient, MaxConnectionsPerInstance int
	// ProxyIdleTimeout is how long a visitor or an application can neither send nor take a
	// byte of a request or an answer. It is positive; the default is 5 minutes. Polls that
	// an application answers later than that fail. WebSockets can be idle for longer.
	ProxyIdleTimeout time.Duration
	// TrustedProxies are the networks of the proxies whose X-Forwarded-For is believed. By
	// default there are none. A network that visitors can send from lets them make up
	// addresses; one that is missing makes all visitors behind that proxy one client.
	TrustedProxies []netip.Prefix

	Webhook

	// Logging.

	// LogFormat is "json", "text" or the default "auto": text on a terminal, else JSON.
	LogFormat string
	// LogLevel is the lowest level that is logged; the default is slog.LevelInfo.
	LogLevel slog.Level

	// Other.

	// ConfigFile is the settings file of the Node server, in JSON; "" means none.
	ConfigFile string
	// Version says that the process should print its version and exit. No other field
	// is set then.
	Version bool
	// Warnings are to be logged once there is a log: keys of the settings file that have
	// no effect, and a registry that gets no key.
	Warnings []string
}

// serviceAccountNamespace is where the kubelet writes a pod's namespace.
const serviceAccountNamespace = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// Parse reads the command line, the environment and the settings file, in this order
// of precedence, and checks all settings. Its error names every mistake, except that
// reading the command line stops at the first. If the command line asks for help,
// Parse writes the help to out and returns flag.ErrHelp.
func Parse(args []string, from Environment, out io.Writer) (*Config, error) {
	c := &Config{}
	flags := c.Flags()
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			writeHelp(out)
			return nil, err
		}
		return nil, fmt.Errorf("%w; --help lists the flags", err)
	}
	if c.Version {
		return c, nil
	}
	m := &mistakes{}
	readEnvironment(flags, from.Env, m)
	c.readSettingsFile(flags, from.ReadFile, m)
	if flags.NArg() > 0 {
		m.add(fmt.Errorf("unexpected argument %q: there are only flags", flags.Arg(0)))
	}
	c.complete(from, m)
	c.validate(m)
	if len(m.errs) > 0 {
		return nil, errors.Join(m.errs...)
	}
	return c, nil
}

// mistakes collects errors, at most one for each flag: a value that cannot be read
// must not count as out of range as well.
type mistakes struct {
	errs  []error
	flags []string // that already have an error
}

// add records an error about some flags, unless it is nil or one of them has an error
// already.
func (m *mistakes) add(err error, flags ...string) {
	has := func(name string) bool { return slices.Contains(m.flags, name) }
	if err == nil || slices.ContainsFunc(flags, has) {
		return
	}
	m.errs = append(m.errs, err)
	m.flags = append(m.flags, flags...)
}

// complete fills in what depends on where the process runs.
func (c *Config) complete(from Environment, m *mistakes) {
	if c.Namespace == "" {
		c.Namespace, _ = from.Env("POD_NAMESPACE")
	}
	if c.Namespace == "" && c.Kubeconfig == "" {
		own, _ := from.ReadFile(serviceAccountNamespace) // absent outside a cluster
		c.Namespace = strings.TrimSpace(string(own))
	}
	c.Namespace = cmp.Or(c.Namespace, "binder")

	var err error
	c.Identity, err = identity(from)
	m.add(err)
	c.completeKeys(from, m)
	c.completeWebhook(from, m)
	completeList(m, "cors-allow-origin", c.CORSAllowOrigins, parseOrigin)
	completeList(m, "frame-ancestors", c.FrameAncestors, parseFrameAncestor)
	completeList(m, "hide-cookie", c.HideCookies, parseCookieName)
}

// identity returns the name of this replica in the Lease.
func identity(from Environment) (string, error) {
	if name, _ := from.Env("POD_NAME"); name != "" {
		return name, nil
	}
	var suffix [4]byte // two replicas can run on one host
	if _, err := io.ReadFull(from.Random, suffix[:]); err != nil {
		return "", fmt.Errorf("read random bytes for this replica's identity: %w", err)
	}
	host, _ := from.Hostname() // without it, the digits must do
	return host + "-" + hex.EncodeToString(suffix[:]), nil
}

var logFormats = []string{"auto", "json", "text"}

// validate checks that values are in range and agree with one another.
func (c *Config) validate(m *mistakes) {
	c.validateDurations(m)
	c.validateLimits(m)
	c.validateHosts(m)
	m.add(checkRegistryURL(c.RegistryURL), "registry-url")
	if c.PreloadHelperImage == "" || strings.ContainsFunc(c.PreloadHelperImage, unicode.IsSpace) {
		m.add(fmt.Errorf("--preload-helper-image is %q: it must be an image, such as registry.k8s.io/pause:3.10.1",
			c.PreloadHelperImage), "preload-helper-image")
	}
	if !slices.Contains(logFormats, c.LogFormat) {
		m.add(fmt.Errorf("--log-format is %q: it must be auto, json or text", c.LogFormat), "log-format")
	}
}
