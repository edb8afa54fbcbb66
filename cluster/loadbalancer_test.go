package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
)

const testTimeout = 10 * time.Second

// startLoadBalancer runs a load balancer until the test ends. It returns when the
// load balancer is ready.
func startLoadBalancer(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "lb.sock")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- runLoadBalancer(ctx, client, socket, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the load balancer returned %v", err)
		}
	})
	until(t, httpCheck(socketClient(socket), "http://loadbalancer/readyz"))
}

func until(t *testing.T, check func(context.Context) error) {
	t.Helper()
	if err := poll(t.Context(), testTimeout, check); err != nil {
		t.Fatal(err)
	}
}

// backend serves a fixed answer on a loopback address that stands for a
// Service's cluster IP.
func backend(t *testing.T, ip, answer string) (port int32) {
	t.Helper()
	listener, err := net.Listen("tcp", ip+":0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, answer) })}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return int32(listener.Addr().(*net.TCPAddr).Port)
}

func testService(name, clusterIP string, port int32) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.ServiceSpec{
			Type:      corev1.ServiceTypeLoadBalancer,
			ClusterIP: clusterIP,
			Ports:     []corev1.ServicePort{{Port: port, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(port)}},
		},
	}
}

func getBody(port int32, want string) func(context.Context) error {
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", port), nil)
		if err != nil {
			return err
		}
		response, err := plainClient().Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			return err
		}
		if got := string(body); got != want {
			return fmt.Errorf("port %d answers %q, want %q", port, got, want)
		}
		return nil
	}
}

func ingress(client kubernetes.Interface, name, want string) func(context.Context) error {
	return func(ctx context.Context) error {
		service, err := client.CoreV1().Services("default").Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		got := ""
		for _, address := range service.Status.LoadBalancer.Ingress {
			got += address.IP
		}
		if got != want {
			return fmt.Errorf("the ingress of %s is %q, want %q", name, got, want)
		}
		return nil
	}
}

// TestLoadBalancer checks that a Service is served until its type changes.
func TestLoadBalancer(t *testing.T) {
	port := backend(t, "127.0.0.2", "one")
	client := fake.NewClientset(testService("web", "127.0.0.2", port))
	startLoadBalancer(t, client)
	until(t, getBody(port, "one"))
	until(t, ingress(client, "web", loadBalancerAddress))

	services := client.CoreV1().Services("default")
	service, err := services.Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	service.Spec.Type = corev1.ServiceTypeClusterIP
	if _, err := services.Update(t.Context(), service, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, ingress(client, "web", ""))
	until(t, refused(port))
}

func refused(port int32) func(context.Context) error {
	return func(ctx context.Context) error {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			_ = conn.Close()
			return fmt.Errorf("port %d is still open", port)
		}
		return nil
	}
}

// TestLoadBalancerPortTaken checks that a second Service with the same port gets
// an Event, and gets the port once it is free.
func TestLoadBalancerPortTaken(t *testing.T) {
	port := backend(t, "127.0.0.2", "one")
	client := fake.NewClientset(testService("one", "127.0.0.2", port))
	startLoadBalancer(t, client)
	until(t, getBody(port, "one"))

	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.3:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "two") })}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	services := client.CoreV1().Services("default")
	if _, err := services.Create(t.Context(), testService("two", "127.0.0.3", port), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, func(ctx context.Context) error {
		events, err := client.CoreV1().Events("default").List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, event := range events.Items {
			if event.Reason == "PortTaken" && event.InvolvedObject.Name == "two" {
				return nil
			}
		}
		return fmt.Errorf("none of %d Events is PortTaken", len(events.Items))
	})
	until(t, getBody(port, "one"))
	until(t, ingress(client, "two", ""))

	if err := services.Delete(t.Context(), "one", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, getBody(port, "two"))
	until(t, ingress(client, "two", loadBalancerAddress))
}

// TestForwarderHalfClose checks that a client that has closed its write side
// still gets the answer.
func TestForwarderHalfClose(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		conn, err := server.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		request, _ := io.ReadAll(conn)
		fmt.Fprintf(conn, "got %s", request)
	}()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	_ = free.Close()
	f, err := newForwarder("a/b", address, server.Addr().String(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(testTimeout))
	fmt.Fprint(conn, "all of it")
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if string(answer) != "got all of it" {
		t.Errorf("answer is %q (%v)", answer, err)
	}
}

func TestForwards(t *testing.T) {
	lb := testService("a", "10.96.1.1", 80)
	lb.Spec.Ports = append(lb.Spec.Ports, corev1.ServicePort{Port: 53, Protocol: corev1.ProtocolUDP})
	plain := testService("b", "10.96.1.2", 80)
	plain.Spec.Type = corev1.ServiceTypeClusterIP
	headless := testService("c", corev1.ClusterIPNone, 80)
	for _, test := range []struct {
		name    string
		service *corev1.Service
		want    string
	}{
		{"TCP only", lb, "map[80:10.96.1.1:80]"},
		{"not a load balancer", plain, "map[]"},
		{"headless", headless, "map[]"},
	} {
		if got := fmt.Sprint(forwards(test.service)); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}
