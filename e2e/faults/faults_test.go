//go:build faults

package faults

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
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
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/cert"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
	"github.com/binder-project/binder-deploy-kubernetes/e2e/wrongclock"
	"github.com/binder-project/binder-deploy-kubernetes/tools/goimage"
)

// suite is the service under test, injector stands between it and the API server, and seed is of
// all that is random. Only TestMain sets them, before the first test.
var (
	suite    *harness.Suite
	injector *Injector
	seed     uint64
)

// injectorAddress is on the node's address on the pod bridge: e2e/faults/manifests lets the
// replicas reach it.
const injectorAddress = "10.244.0.1:18443"

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
	random, err := number("BINDER_FAULTS_SEED", time.Now().UnixNano())
	if err != nil {
		return 1, err
	}
	seed = uint64(random)
	fmt.Fprintf(os.Stderr, "faults: BINDER_FAULTS_SEED=%d\n", seed)
	admin := cmp.Or(os.Getenv("BINDER_E2E_KUBECONFIG"), filepath.Join(root, ".cluster", "kubeconfig"))
	kube, err := harness.Connect(admin)
	if err != nil {
		return 1, fmt.Errorf("connect to the cluster: %w", err)
	}
	cluster, err := findCluster()
	if err != nil {
		return 1, err
	}
	if err := cluster.AddNode(ctx); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, cluster.RemoveNode(context.WithoutCancel(ctx))) }()
	if err := loadService(ctx, kube, root); err != nil {
		return 1, err
	}
	kubeconfig, err := startInjector(ctx, kube)
	if err != nil {
		return 1, err
	}
	suite, err = harness.Start(ctx, kube, root, os.Stderr, harness.Options{
		Manifests: "e2e/faults/manifests", Outages: true,
		Secrets: map[string]map[string]string{"binder-cluster": {"kubeconfig": kubeconfig}},
	})
	if err == nil {
		code = m.Run()
	}
	if err != nil || code != 0 {
		suite.PrintLogs(context.WithoutCancel(ctx))
	}
	return code, errors.Join(err, suite.Stop(context.WithoutCancel(ctx), false))
}

// loadService builds the service's image and loads it into the cluster: with a clock that can be
// set, which takes minutes the first time, unless no fault sets it.
func loadService(ctx context.Context, kube *harness.Kube, root string) error {
	dir, err := os.MkdirTemp("", "binder-faults-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	write := writeImage
	if !testing.Short() {
		fmt.Fprintln(os.Stderr, "faults: building the service with a clock that can be set; the first time takes minutes…")
		write = wrongclock.WriteImage
	}
	archive := filepath.Join(dir, "image.tar")
	if err := write(ctx, root, serviceImage+":"+imageTag, archive); err != nil {
		return err
	}
	return kube.LoadImage(ctx, root, archive)
}

// writeImage builds the image of the service as it is.
func writeImage(ctx context.Context, root, image, archive string) error {
	source, err := goimage.Describe(ctx, root)
	if err != nil {
		return err
	}
	return goimage.WriteService(ctx, goimage.ServiceProgram(root, source), source, image, archive)
}

// startInjector starts the Injector, and returns the replicas' kubeconfig.
func startInjector(ctx context.Context, kube *harness.Kube) (kubeconfig string, err error) {
	const certificateName = "injector"
	// A day old, for a replica whose clock is behind.
	key, err := ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)
	if err != nil {
		return "", fmt.Errorf("make a key: %w", err)
	}
	certificate, err := cert.NewSelfSignedCACert(cert.Config{CommonName: certificateName, NotBefore: time.Now().AddDate(0, 0, -1)}, key)
	if err != nil {
		return "", fmt.Errorf("make a certificate: %w", err)
	}
	pair := tls.Certificate{Certificate: [][]byte{certificate.Raw}, PrivateKey: key}
	certificatePEM, err := cert.EncodeCertificates(certificate)
	if err != nil {
		return "", fmt.Errorf("encode the certificate: %w", err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", kube.Kubeconfig())
	if err != nil {
		return "", fmt.Errorf("read the cluster's kubeconfig: %w", err)
	}
	if injector, err = NewInjector(config, rand.New(rand.NewPCG(seed, 2))); err != nil {
		return "", err
	}
	listener, err := net.Listen("tcp", injectorAddress)
	if err != nil {
		return "", fmt.Errorf("listen for the replicas: %w", err)
	}
	go func() {
		if err := injector.Serve(ctx, listener, pair); err != nil {
			fmt.Fprintln(os.Stderr, "faults:", err)
		}
	}()
	replicas := clientcmdapi.NewConfig()
	replicas.Clusters["injector"] = &clientcmdapi.Cluster{Server: "https://" + injectorAddress, TLSServerName: certificateName, CertificateAuthorityData: certificatePEM}
	replicas.AuthInfos["replica"] = &clientcmdapi.AuthInfo{TokenFile: "/var/run/secrets/kubernetes.io/serviceaccount/token"}
	replicas.Contexts["injector"] = &clientcmdapi.Context{Cluster: "injector", AuthInfo: "replica"}
	replicas.CurrentContext = "injector"
	data, err := clientcmd.Write(*replicas)
	return string(data), err
}

// TestFaults makes every fault under the load, or those of the short form with -short. Each
// fault has a line in the report. BINDER_FAULTS_SEED repeats a run's timing, and
// BINDER_FAULTS_ROUNDS makes each fault as often.
func TestFaults(t *testing.T) {
	small := func(made *corev1.PodTemplate) { // so that hundreds fit on the node
		made.Template.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse("1m")
	}
	used := func(made *corev1.PodTemplate) {
		made.Annotations = map[string]string{"binder-project.org/idle-paths": "idle"}
		onSecondNode(&made.Template.Spec)
	}
	suite.CopyTemplate(t, "echo", template, small, used)
	suite.CopyTemplate(t, "echo", pooled, small, used, func(made *corev1.PodTemplate) {
		made.Annotations["binder-project.org/pool-size"] = fmt.Sprint(poolSize)
	})
	for _, name := range []string{simulated, recorded} {
		suite.CopyTemplate(t, "echo", name, small, harness.OnSimulatedNodes)
	}
	suite.CopyTemplate(t, "echo", queued, small, harness.OnSimulatedNodes, func(made *corev1.PodTemplate) {
		made.Annotations = map[string]string{maxInstances: fmt.Sprint(places)}
	})
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	w := startWorld(t)
	rounds, err := number("BINDER_FAULTS_ROUNDS", 3)
	require.NoError(t, err)
	if testing.Short() {
		rounds = 1
	}
	report := createReport(t)
	t.Cleanup(func() {
		fmt.Printf("faults: %d instances were claimed from the pool\n", w.Ledger.Claimed())
		require.Positive(t, w.Ledger.Claimed(), "no launch has claimed a warm pod")
	})
	fmt.Fprint(report, reportHeader)
	for _, fault := range All() {
		if testing.Short() && !fault.Short {
			continue
		}
		var line Line
		for round := range rounds {
			t.Run(fmt.Sprintf("%s/%d", fault.Name, round+1), func(t *testing.T) {
				of := fnv.New64a()
				fmt.Fprint(of, fault.Name, round)
				outcome, err := w.Run(ctx, fault, rand.New(rand.NewPCG(seed, of.Sum64())))
				require.NoError(t, err)
				problems := outcome.Problems(fault)
				line.Add(outcome, problems)
				for _, problem := range problems {
					t.Error(problem)
				}
			})
		}
		if line.Rounds > 0 {
			require.NoError(t, line.Write(report))
		}
	}
}

// number returns what an environment variable says, or another number if it is not set.
func number(variable string, otherwise int64) (int64, error) {
	text := os.Getenv(variable)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", variable, err)
	}
	return n, nil
}

// createReport returns where the report is written to: the standard output, and a file, if
// BINDER_FAULTS_REPORT names one.
func createReport(t *testing.T) io.Writer {
	path := os.Getenv("BINDER_FAULTS_REPORT")
	if path == "" {
		return os.Stdout
	}
	file, err := os.Create(path)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, file.Close()) })
	return io.MultiWriter(os.Stdout, file)
}

// startWorld starts the load, and ends it with the test.
func startWorld(t *testing.T) *World {
	ledger := NewLedger()
	load := NewLoad(suite, ledger, seed)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		load.Run(ctx)
	}()
	t.Cleanup(func() { <-ended })
	t.Cleanup(cancel)
	cluster, err := findCluster()
	require.NoError(t, err)
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	return &World{Suite: suite, Injector: injector, Ledger: ledger, Load: load, Cluster: cluster, Root: root}
}

// findCluster finds the local cluster by its real path, by which its own commands know it.
func findCluster() (Cluster, error) {
	dir, err := filepath.EvalSymlinks(cmp.Or(os.Getenv("BINDER_CLUSTER_DIR"), "../../.cluster"))
	if err == nil {
		dir, err = filepath.Abs(dir)
	}
	if err != nil {
		return Cluster{}, fmt.Errorf("find the cluster: %w", err)
	}
	return Cluster{Dir: dir}, nil
}
