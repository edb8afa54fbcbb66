package main

import "fmt"

// etcd stores the cluster's objects. It does not sync to disk: tests run faster,
// and the data need not survive the machine.
func (c *cluster) etcd() part {
	return part{
		name: "etcd",
		command: []string{
			c.bin("etcd"),
			"--name=" + firstName,
			"--data-dir=" + c.run("etcd"),
			"--listen-client-urls=https://127.0.0.1:2379",
			"--advertise-client-urls=https://127.0.0.1:2379",
			"--cert-file=" + c.pki("etcd.crt"),
			"--key-file=" + c.pki("etcd.key"),
			"--client-cert-auth",
			"--trusted-ca-file=" + c.pki(etcdCA+".crt"),
			"--listen-peer-urls=http://127.0.0.1:2380",
			"--initial-advertise-peer-urls=http://127.0.0.1:2380",
			"--initial-cluster=" + firstName + "=http://127.0.0.1:2380",
			"--listen-metrics-urls=http://127.0.0.1:2381",
			"--auto-compaction-mode=periodic",
			"--auto-compaction-retention=10m",
			"--unsafe-no-fsync",
			"--logger=zap",
			"--log-level=warn",
		},
		ports: []int{2379, 2380, 2381},
		ready: httpCheck(plainClient(), "http://127.0.0.1:2381/readyz"),
	}
}

// apiServer listens on all addresses because clients use 127.0.0.1 and pods use
// the bridge's address. The packet filter blocks other machines.
func (c *cluster) apiServer() part {
	audit := c.config("audit.yaml")
	return part{
		name: "kube-apiserver",
		command: []string{
			c.bin("kube-apiserver"),
			"--etcd-servers=https://127.0.0.1:2379",
			"--etcd-cafile=" + c.pki(etcdCA+".crt"),
			"--etcd-certfile=" + c.pki("etcd-client.crt"),
			"--etcd-keyfile=" + c.pki("etcd-client.key"),
			"--bind-address=0.0.0.0",
			fmt.Sprintf("--secure-port=%d", apiPort),
			"--advertise-address=" + bridgeAddress,
			"--tls-cert-file=" + c.pki("apiserver.crt"),
			"--tls-private-key-file=" + c.pki("apiserver.key"),
			"--client-ca-file=" + c.pki(clusterCA+".crt"),
			"--service-account-issuer=https://kubernetes.default.svc",
			"--service-account-key-file=" + c.pki("service-account.key"),
			"--service-account-signing-key-file=" + c.pki("service-account.key"),
			"--service-cluster-ip-range=" + serviceCIDR,
			"--authorization-mode=Node,RBAC",
			// In addition to the default plugins, which include PodSecurity,
			// ResourceQuota and LimitRanger.
			"--enable-admission-plugins=NodeRestriction",
			"--kubelet-client-certificate=" + c.pki("apiserver-kubelet.crt"),
			"--kubelet-client-key=" + c.pki("apiserver-kubelet.key"),
			"--kubelet-certificate-authority=" + c.pki(clusterCA+".crt"),
			// The name node1 does not resolve.
			"--kubelet-preferred-address-types=InternalIP",
			"--audit-policy-file=" + audit,
			"--audit-log-path=" + c.auditLog(),
			"--audit-log-maxsize=64", // MiB
			"--audit-log-maxbackup=1",
			"--profiling=false",
		},
		configs: []string{audit},
		ports:   []int{apiPort},
		ready:   c.adminCheck("/readyz?verbose"),
	}
}

// auditLog is the path of the API server's log of the service's requests.
func (c *cluster) auditLog() string { return c.log("audit") }

// auditPolicy makes the API server log who asked for what, and the response's code,
// of requests of the service. The end-to-end tests compare it with the rights that
// the manifests grant.
func (c *cluster) auditPolicy() ([]byte, error) {
	var users []string
	for _, namespace := range []string{"binder", "binder-e2e"} {
		users = append(users, "system:serviceaccount:"+namespace+":binder-deploy-kubernetes")
	}
	return encodeYAML("the audit log", map[string]any{
		"apiVersion": "audit.k8s.io/v1",
		"kind":       "Policy",
		"omitStages": []string{"RequestReceived"},
		"rules":      []map[string]any{{"level": "Metadata", "users": users}},
	})
}

func (c *cluster) controllerManager() part {
	const name = "kube-controller-manager"
	kubeconfig := c.config(name + ".kubeconfig")
	return part{
		name: name,
		command: []string{
			c.bin(name),
			"--kubeconfig=" + kubeconfig,
			"--authentication-kubeconfig=" + kubeconfig,
			"--authorization-kubeconfig=" + kubeconfig,
			"--bind-address=127.0.0.1",
			"--service-account-private-key-file=" + c.pki("service-account.key"),
			"--root-ca-file=" + c.pki(clusterCA+".crt"),
			"--cluster-signing-cert-file=" + c.pki(clusterCA+".crt"),
			"--cluster-signing-key-file=" + c.pki(clusterCA+".key"),
			"--use-service-account-credentials",
			"--leader-elect=false",
			"--profiling=false",
		},
		configs: []string{kubeconfig},
		ports:   []int{10257},
		ready:   httpCheck(unverifiedClient(), "https://127.0.0.1:10257/healthz"),
	}
}

func (c *cluster) scheduler() part {
	const name = "kube-scheduler"
	kubeconfig := c.config(name + ".kubeconfig")
	return part{
		name: name,
		command: []string{
			c.bin(name),
			"--kubeconfig=" + kubeconfig,
			"--authentication-kubeconfig=" + kubeconfig,
			"--authorization-kubeconfig=" + kubeconfig,
			"--bind-address=127.0.0.1",
			"--leader-elect=false",
			"--profiling=false",
		},
		configs: []string{kubeconfig},
		ports:   []int{10259},
		ready:   httpCheck(unverifiedClient(), "https://127.0.0.1:10259/healthz"),
	}
}
