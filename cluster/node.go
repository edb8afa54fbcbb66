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

func (c *cluster) kubelet() part {
	config, kubeconfig := c.config("kubelet.yaml"), c.config("node.kubeconfig")
	return part{
		name: "kubelet",
		command: []string{
			c.bin("kubelet"),
			"--config=" + config,
			"--kubeconfig=" + kubeconfig,
			"--hostname-override=" + nodeName,
			"--node-ip=" + bridgeAddress,
			"--root-dir=" + c.run("kubelet"),
			"--cert-dir=" + c.run("kubelet", "pki"),
		},
		configs: []string{config, kubeconfig},
		ports:   []int{10248, 10250},
		ready:   httpCheck(plainClient(), "http://127.0.0.1:10248/healthz"),
	}
}

// kubeletConfig returns the kubelet's configuration. Other settings have the
// kubelet's defaults.
func (c *cluster) kubeletConfig() ([]byte, error) {
	yes, no, full := true, false, int32(100)
	pids := int64(4096)
	config := kubelet.KubeletConfiguration{
		TypeMeta:                 metav1.TypeMeta{APIVersion: kubelet.SchemeGroupVersion.String(), Kind: "KubeletConfiguration"},
		Address:                  bridgeAddress,
		ContainerRuntimeEndpoint: "unix://" + containerdSocket(),
		Authentication: kubelet.KubeletAuthentication{
			X509:      kubelet.KubeletX509Authentication{ClientCAFile: c.pki(clusterCA + ".crt")},
			Webhook:   kubelet.KubeletWebhookAuthentication{Enabled: &yes},
			Anonymous: kubelet.KubeletAnonymousAuthentication{Enabled: &no},
		},
		Authorization:     kubelet.KubeletAuthorization{Mode: kubelet.KubeletAuthorizationModeWebhook},
		TLSCertFile:       c.pki("kubelet.crt"),
		TLSPrivateKeyFile: c.pki("kubelet.key"),
		// Work with cgroup v1 and v2, and with any init system.
		CgroupDriver:           "cgroupfs",
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
		PodLogsDir:             c.run("pod-logs"),
		VolumePluginDir:        c.run("kubelet", "volume-plugins"),
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
		HostnameOverride:   nodeName,
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
	for path, render := range map[string]func() ([]byte, error){
		c.config("containerd.toml"):        c.containerdConfig,
		c.config("cni/10-binder.conflist"): c.cniConfig,
		c.config("kubelet.yaml"):           c.kubeletConfig,
		c.config("kube-proxy.yaml"):        c.kubeProxyConfig,
		c.config("audit.yaml"):             c.auditPolicy,
	} {
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
