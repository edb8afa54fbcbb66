//go:build faults

package faults

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/cert"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// suite is the service under test, and between stands between it and the API server. Only
// TestMain sets them, before the first test.
var (
	suite   *harness.Suite
	between *Between
)

// betweenAddress is on the node's address on the pod bridge: e2e/faults/manifests lets the
// replicas reach it.
const betweenAddress = "10.244.0.1:18443"

func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.list").Value.String() != "" {
		os.Exit(m.Run()) // only prints the tests' names
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := run(ctx, m)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		code = 1
	}
	os.Exit(code)
}

func run(ctx context.Context, m *testing.M) (code int, err error) {
	root, err := filepath.Abs("../..")
	if err != nil {
		return 1, err
	}
	admin := cmp.Or(os.Getenv("BINDER_E2E_KUBECONFIG"), filepath.Join(root, ".cluster", "kubeconfig"))
	kube, err := harness.Connect(admin)
	if err != nil {
		return 1, fmt.Errorf("connect to the cluster: %w", err)
	}
	kubeconfig, err := startBetween(ctx, kube)
	if err != nil {
		return 1, err
	}
	suite, err = harness.Start(ctx, kube, root, os.Stderr, harness.Options{
		Manifests: "e2e/faults/manifests",
		Secrets:   map[string]map[string]string{"binder-cluster": {"kubeconfig": kubeconfig}},
	})
	if err == nil {
		code = m.Run()
	}
	if err != nil || code != 0 {
		suite.PrintLogs(context.WithoutCancel(ctx))
	}
	return code, errors.Join(err, suite.Stop(context.WithoutCancel(ctx), false))
}

// startBetween starts the Between, and returns the replicas' kubeconfig.
func startBetween(ctx context.Context, kube *harness.Kube) (kubeconfig string, err error) {
	host, _, err := net.SplitHostPort(betweenAddress)
	if err != nil {
		return "", err
	}
	certificate, key, err := cert.GenerateSelfSignedCertKey(host, []net.IP{net.ParseIP(host)}, nil)
	if err != nil {
		return "", fmt.Errorf("make a certificate: %w", err)
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return "", fmt.Errorf("read the certificate: %w", err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", kube.Kubeconfig())
	if err != nil {
		return "", fmt.Errorf("read the cluster's kubeconfig: %w", err)
	}
	if between, err = NewBetween(config, rand.New(rand.NewPCG(1, 2))); err != nil {
		return "", err
	}
	listener, err := net.Listen("tcp", betweenAddress)
	if err != nil {
		return "", fmt.Errorf("listen for the replicas: %w", err)
	}
	go func() {
		if err := between.Serve(ctx, listener, pair); err != nil {
			fmt.Fprintln(os.Stderr, "faults:", err)
		}
	}()
	replicas := clientcmdapi.NewConfig()
	replicas.Clusters["between"] = &clientcmdapi.Cluster{Server: "https://" + betweenAddress, CertificateAuthorityData: certificate}
	replicas.AuthInfos["replica"] = &clientcmdapi.AuthInfo{TokenFile: "/var/run/secrets/kubernetes.io/serviceaccount/token"}
	replicas.Contexts["between"] = &clientcmdapi.Context{Cluster: "between", AuthInfo: "replica"}
	replicas.CurrentContext = "between"
	data, err := clientcmd.Write(*replicas)
	return string(data), err
}

// TestFaults makes every fault under the load, or those of the short form with -short. Each
// round prints a line of the report. BINDER_FAULTS_SEED repeats a run's timing.
func TestFaults(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if given := os.Getenv("BINDER_FAULTS_SEED"); given != "" {
		var err error
		seed, err = strconv.ParseUint(given, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("BINDER_FAULTS_SEED=%d", seed)
	suite.CopyTemplate(t, "echo", template, func(made *corev1.PodTemplate) {
		if made.Annotations == nil {
			made.Annotations = map[string]string{}
		}
		made.Annotations["binder-project.org/idle-paths"] = "idle"
	})
	w := startWorld(t, seed)
	rounds := 3
	if testing.Short() {
		rounds = 1
	}
	report := os.Stdout
	WriteHeader(report)
	for _, fault := range All() {
		if testing.Short() && !fault.Short {
			continue
		}
		for round := range rounds {
			t.Run(fmt.Sprintf("%s/%d", fault.Name, round+1), func(t *testing.T) {
				of := fnv.New64a()
				fmt.Fprint(of, fault.Name, round)
				outcome, err := w.Run(t.Context(), fault, round+1, rand.New(rand.NewPCG(seed, of.Sum64())))
				outcome.Write(report)
				require.NoError(t, err)
				for _, problem := range outcome.Problems(fault) {
					t.Error(problem)
				}
			})
		}
	}
}

// startWorld starts the load, and ends it with the test.
func startWorld(t *testing.T, seed uint64) *World {
	ledger := NewLedger()
	load := NewLoad(suite, ledger, seed)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	require.NoError(t, load.WatchPods(ctx))
	go func() {
		defer close(ended)
		load.Run(ctx)
	}()
	t.Cleanup(func() { <-ended })
	t.Cleanup(cancel)
	// The cluster's own commands know it by its real path.
	dir, err := filepath.EvalSymlinks(cmp.Or(os.Getenv("BINDER_CLUSTER_DIR"), "../../.cluster"))
	require.NoError(t, err)
	dir, err = filepath.Abs(dir)
	require.NoError(t, err)
	return &World{
		Suite: suite, Between: between, Ledger: ledger, Load: load,
		Cluster: Cluster{Dir: dir},
	}
}
