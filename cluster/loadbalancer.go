package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	corev1listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	eventrecord "k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
)

// loadBalancerAddress is the address of all Services of type LoadBalancer.
const loadBalancerAddress = "127.0.0.1"

// loadBalancer is the part that serves Services of type LoadBalancer, as a cloud
// provider does. It runs this command.
func (c *cluster) loadBalancer() part {
	return part{
		name:    "loadbalancer",
		command: []string{c.bin("cluster"), "loadbalancer", "--dir=" + c.dir},
		configs: []string{c.kubeconfig()},
		ready:   httpCheck(socketClient(loadBalancerSocket()), "http://loadbalancer/readyz"),
	}
}

func loadBalancerCommand(c *cluster) *cobra.Command {
	return &cobra.Command{
		Use:   "loadbalancer",
		Short: "Serve Services of type LoadBalancer on " + loadBalancerAddress + " (up starts this)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.agentClient()
			if err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			return runLoadBalancer(cmd.Context(), client, loadBalancerSocket(), log)
		},
	}
}

// runLoadBalancer serves Services until ctx is done. It reports its readiness on
// a Unix socket.
func runLoadBalancer(ctx context.Context, client kubernetes.Interface, socket string, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	factory := informers.NewSharedInformerFactory(client, 0)
	services := factory.Core().V1().Services()

	events := eventrecord.NewBroadcaster(eventrecord.WithContext(ctx))
	defer events.Shutdown()
	events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})

	b := &balancer{
		client:     client,
		services:   services.Lister(),
		events:     events.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "loadbalancer"}),
		log:        log,
		address:    loadBalancerAddress,
		forwarders: map[int32]*forwarder{},
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[string](100*time.Millisecond, 5*time.Second)),
	}
	registration, err := services.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    b.enqueue,
		UpdateFunc: func(_, obj any) { b.enqueue(obj) },
		DeleteFunc: b.enqueue,
	})
	if err != nil {
		cancel()
		return fmt.Errorf("watch the Services: %w", err)
	}

	var working sync.WaitGroup
	defer working.Wait()
	defer factory.Shutdown()
	defer cancel()
	factory.StartWithContext(ctx)
	working.Go(func() { b.work(ctx) })
	return serveReadiness(ctx, socket, registration.HasSynced)
}

// serveReadiness answers /readyz on a Unix socket until ctx is done.
func serveReadiness(ctx context.Context, socket string, ready func() bool) error {
	if err := removeFile(socket); err != nil { // a killed process leaves its socket
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("listen for readiness checks: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !ready() {
			http.Error(w, "the Services have not been read yet", http.StatusServiceUnavailable)
		}
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve readiness: %w", err)
	}
	return nil
}

// balancer runs a forwarder for each port of a Service of type LoadBalancer.
// Only its one worker uses the map of forwarders.
type balancer struct {
	client     kubernetes.Interface
	services   corev1listers.ServiceLister
	events     eventrecord.EventRecorder
	log        *slog.Logger
	address    string
	forwarders map[int32]*forwarder // by port
	queue      workqueue.TypedRateLimitingInterface[string]
}

func (b *balancer) enqueue(obj any) {
	if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj); err == nil {
		b.queue.Add(key)
	}
}

// work takes Services from the queue until ctx is done, then closes all ports.
func (b *balancer) work(ctx context.Context) {
	stop := context.AfterFunc(ctx, b.queue.ShutDown)
	defer stop()
	for {
		key, shutdown := b.queue.Get()
		if shutdown {
			break
		}
		if err := b.sync(ctx, key); err != nil {
			b.log.Warn("sync failed, will retry", "service", key, "error", err)
			b.queue.AddRateLimited(key)
		} else {
			b.queue.Forget(key)
		}
		b.queue.Done(key)
	}
	for port := range b.forwarders {
		b.close(port)
	}
}

// sync opens and closes ports for one Service and writes its status.
func (b *balancer) sync(ctx context.Context, key string) error {
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return err
	}
	service, err := b.services.Services(namespace).Get(name)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	wanted := map[int32]string{} // target by port
	if err == nil && service.DeletionTimestamp == nil {
		wanted = forwards(service)
	}
	for port, f := range b.forwarders {
		if f.owner == key && wanted[port] != f.target {
			b.close(port)
		}
	}
	var errs []error
	for port, target := range wanted {
		if err := b.listen(key, port, target); err != nil {
			b.events.Eventf(service, corev1.EventTypeWarning, "PortTaken", "%v", err)
			errs = append(errs, err)
		}
	}
	if service != nil {
		errs = append(errs, b.publish(ctx, service, len(wanted) > 0 && len(errs) == 0))
	}
	return errors.Join(errs...)
}

// forwards returns the target address of each port of the Service. The map is
// empty unless the Service is of type LoadBalancer. UDP is not supported.
func forwards(service *corev1.Service) map[int32]string {
	targets := map[int32]string{}
	if service.Spec.Type != corev1.ServiceTypeLoadBalancer || net.ParseIP(service.Spec.ClusterIP) == nil {
		return targets
	}
	for _, port := range service.Spec.Ports {
		if port.Protocol == corev1.ProtocolTCP {
			targets[port.Port] = net.JoinHostPort(service.Spec.ClusterIP, fmt.Sprint(port.Port))
		}
	}
	return targets
}

func (b *balancer) listen(owner string, port int32, target string) error {
	if f, ok := b.forwarders[port]; ok {
		if f.owner != owner {
			return fmt.Errorf("port %d of %s is in use by the Service %s", port, b.address, f.owner)
		}
		return nil
	}
	f, err := newForwarder(owner, net.JoinHostPort(b.address, fmt.Sprint(port)), target, b.log)
	if err != nil {
		return err
	}
	b.forwarders[port] = f
	b.log.Info("listening", "service", owner, "port", port, "target", target)
	return nil
}

func (b *balancer) close(port int32) {
	b.forwarders[port].close()
	delete(b.forwarders, port)
	b.log.Info("stopped listening", "port", port)
}

// publish writes the address to the Service's status, where clients look for it.
// It removes the address if the Service is not served.
func (b *balancer) publish(ctx context.Context, service *corev1.Service, serving bool) error {
	var want corev1.LoadBalancerStatus
	if serving {
		want.Ingress = []corev1.LoadBalancerIngress{{IP: b.address, IPMode: new(corev1.LoadBalancerIPModeProxy)}}
	}
	if reflect.DeepEqual(service.Status.LoadBalancer.Ingress, want.Ingress) {
		return nil
	}
	changed := service.DeepCopy()
	changed.Status.LoadBalancer = want
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := b.client.CoreV1().Services(service.Namespace).UpdateStatus(ctx, changed, metav1.UpdateOptions{FieldManager: "loadbalancer"})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write the address into the Service's status: %w", err)
	}
	return nil
}
