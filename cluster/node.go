package main

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeproxy "k8s.io/kube-proxy/config/v1alpha1"
	kubelet "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"
)

// maxPods exceeds Kubernetes' default of 110, for tests with many small pods.
const maxPods = 400

func (n node) kubelet() part {
	config, kubeconfig := n.config("kubelet.yaml"), n.config("node.kubeconfig")
	return part{
		name: n.own("kubelet"),
		command: []string{
			n.bin("kubelet"),
			"--config=" + config,
			"--kubeconfig=" + kubeconfig,
			"--hostname-override=" + n.name,
			"--node-ip=" + bridgeAddress,
			"--root-dir=" + n.state("kubelet"),
			"--cert-dir=" + n.state("kubelet", "pki"),
		},
		configs: []string{config, kubeconfig},
		ports:   []int{int(n.healthPort), int(n.port)},
		ready:   httpCheck(plainClient(), fmt.Sprintf("http://127.0.0.1:%d/healthz", n.healthPort)),
	}
}

// kubeletConfig returns the kubelet's configuration. Other settings have the
// kubelet's defaults.
func (n node) kubeletConfig() ([]byte, error) {
	yes, no, full := true, false, int32(100)
	pids := int64(4096)
	config := kubelet.KubeletConfiguration{
		TypeMeta:                 metav1.TypeMeta{APIVersion: kubelet.SchemeGroupVersion.String(), Kind: "KubeletConfiguration"},
		Address:                  bridgeAddress,
		Port:                     n.port,
		HealthzPort:              &n.healthPort,
		RegisterWithTaints:       n.taints,
		ContainerRuntimeEndpoint: "unix://" + n.socket(),
		Authentication: kubelet.KubeletAuthentication{
			X509:      kubelet.KubeletX509Authentication{ClientCAFile: n.pki(clusterCA + ".crt")},
			Webhook:   kubelet.KubeletWebhookAuthentication{Enabled: &yes},
			Anonymous: kubelet.KubeletAnonymousAuthentication{Enabled: &no},
		},
		Authorization:     kubelet.KubeletAuthorization{Mode: kubelet.KubeletAuthorizationModeWebhook},
		TLSCertFile:       n.pki(n.own("kubelet") + ".crt"),
		TLSPrivateKeyFile: n.pki(n.own("kubelet") + ".key"),
		// Work with cgroup v1 and v2, and with any init system.
		CgroupDriver:           "cgroupfs",
		CgroupRoot:             n.cgroupRoot,
		FailCgroupV1:           &no,
		FailSwapOn:             &no,
		EnforceNodeAllocatable: []string{"none"},
		MaxPods:                maxPods,
		PodPidsLimit:           &pids,
		SerializeImagePulls:    &no,
		// Never remove an image to free space: images cannot be pulled again.
		ImageGCHighThresholdPercent: &full,
		EvictionHard: map[string]string{
			"memory.available": "100Mi", "nodefs.available": "1%", "nodefs.inodesFree": "1%", "imagefs.available": "1%",
		},
		MakeIPTablesUtilChains: &no,
		PodLogsDir:             n.state("pod-logs"),
		VolumePluginDir:        n.state("kubelet", "volume-plugins"),
		EventRecordQPS:         &full,
		EventBurst:             200,
	}
	return encodeYAML("kubelet", config)
}

func (c *cluster) kubeProxy() part {
	config := c.config("kube-proxy.yaml")
	return part{
		name:    "kube-proxy",
		command: []string{c.bin("kube-proxy"), "--config=" + config},
		configs: []string{config, c.config("kube-proxy.kubeconfig")},
		ports:   []int{10249, 10256},
		ready:   httpCheck(plainClient(), "http://127.0.0.1:10256/healthz"),
	}
}

// kubeProxyConfig returns kube-proxy's configuration. It leaves the kernel's
// connection tracking settings unchanged.
func (c *cluster) kubeProxyConfig() ([]byte, error) {
	zero, unchanged := int32(0), metav1.Duration{}
	config := kubeproxy.KubeProxyConfiguration{
		TypeMeta:           metav1.TypeMeta{APIVersion: kubeproxy.SchemeGroupVersion.String(), Kind: "KubeProxyConfiguration"},
		Mode:               "nftables",
		HostnameOverride:   firstName,
		HealthzBindAddress: "127.0.0.1:10256",
		MetricsBindAddress: "127.0.0.1:10249",
		ClusterCIDR:        podCIDR,
		Conntrack: kubeproxy.KubeProxyConntrackConfiguration{
			MaxPerCore:            &zero,
			TCPEstablishedTimeout: &unchanged,
			TCPCloseWaitTimeout:   &unchanged,
		},
	}
	config.ClientConnection.Kubeconfig = c.config("kube-proxy.kubeconfig")
	return encodeYAML("kube-proxy", config)
}

func encodeYAML(name string, config any) ([]byte, error) {
	data, err := yaml.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("encode the configuration of %s: %w", name, err)
	}
	return data, nil
}

// writeConfigs writes the parts' configuration files.
func (c *cluster) writeConfigs() error {
	files := map[string]func() ([]byte, error){
		c.config("cni/10-binder.conflist"): c.cniConfig,
		c.config("kube-proxy.yaml"):        c.kubeProxyConfig,
		c.config("audit.yaml"):             c.auditPolicy,
	}
	for _, n := range c.nodes() {
		files[n.config("containerd.toml")] = n.containerdConfig
		files[n.config("kubelet.yaml")] = n.kubeletConfig
	}
	for path, render := range files {
		data, err := render()
		if err != nil {
			return err
		}
		if err := writeFile(path, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
