package main

import (
	"fmt"
	"os"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// writeKubeconfigs writes a kubeconfig for the administrator and one for each
// part that uses the API server, each with its own identity.
func (c *cluster) writeKubeconfigs() error {
	files := map[string]string{"admin": c.kubeconfig()}
	for _, part := range []string{"kube-controller-manager", "kube-scheduler", "kube-proxy"} {
		files[part] = c.config(part + ".kubeconfig")
	}
	for _, n := range c.nodes() {
		files[n.own("node")] = n.config("node.kubeconfig")
	}
	for user, path := range files {
		config, err := c.kubeconfigOf(user)
		if err != nil {
			return err
		}
		data, err := clientcmd.Write(*config)
		if err != nil {
			return fmt.Errorf("encode the kubeconfig of %s: %w", user, err)
		}
		if err := writeFile(path, data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// kubeconfigOf returns a user's kubeconfig. It embeds the keys and certificates,
// so that the file can be copied elsewhere.
func (c *cluster) kubeconfigOf(user string) (*clientcmdapi.Config, error) {
	var parts [3][]byte
	for i, name := range []string{clusterCA + ".crt", user + ".crt", user + ".key"} {
		data, err := os.ReadFile(c.pki(name))
		if err != nil {
			return nil, fmt.Errorf("create the kubeconfig of %s: %w", user, err)
		}
		parts[i] = data
	}
	const name = "binder-local"
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: apiURL, CertificateAuthorityData: parts[0]}
	config.AuthInfos[user] = &clientcmdapi.AuthInfo{ClientCertificateData: parts[1], ClientKeyData: parts[2]}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: user}
	config.CurrentContext = name
	return config, nil
}

// client returns a client with the administrator's rights.
func (c *cluster) client() (kubernetes.Interface, *rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig())
	if err != nil {
		return nil, nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	config.QPS = -1 // no limit; the API server has its own flow control
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, nil, fmt.Errorf("create an API client: %w", err)
	}
	return client, config, nil
}
