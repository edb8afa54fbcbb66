package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

// certLife is long because down removes the certificates anyway.
const certLife = 5 * 365 * 24 * time.Hour

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// leaf describes a certificate of the cluster.
type leaf struct {
	name   string // its files are <name>.crt and <name>.key
	ca     string // the authority that signs it: clusterCA or etcdCA
	user   string
	groups []string
	server []string // addresses and host names of a server; empty for a client
}

// The authorities. etcd has its own, so that a client of the API server cannot
// bypass it and connect to etcd.
const (
	clusterCA = "ca"
	etcdCA    = "etcd-ca"
)

// leaves returns all certificates of the cluster.
func leaves() []leaf {
	all := []leaf{
		{name: "etcd", ca: etcdCA, user: "etcd", server: []string{"localhost", "127.0.0.1"}},
		{name: "etcd-client", ca: etcdCA, user: "kube-apiserver"},
		{name: "apiserver", ca: clusterCA, user: "kube-apiserver", server: []string{
			"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "127.0.0.1", apiService, bridgeAddress,
		}},
		{name: "apiserver-kubelet", ca: clusterCA, user: "kube-apiserver-kubelet", groups: []string{"system:masters"}},
		{name: "admin", ca: clusterCA, user: "admin", groups: []string{"system:masters"}},
		{name: "kube-controller-manager", ca: clusterCA, user: "system:kube-controller-manager"},
		{name: "kube-scheduler", ca: clusterCA, user: "system:kube-scheduler"},
		{name: "kube-proxy", ca: clusterCA, user: "system:kube-proxy"},
	}
	for _, n := range []node{firstNode(layout{}), secondNode(layout{})} {
		user, groups := "system:node:"+n.name, []string{"system:nodes"}
		all = append(all,
			leaf{name: n.own("kubelet"), ca: clusterCA, user: user, groups: groups, server: []string{n.name, "127.0.0.1", bridgeAddress}},
			leaf{name: n.own("node"), ca: clusterCA, user: user, groups: groups})
	}
	return all
}

// ensurePKI creates the cluster's keys and certificates unless they exist. It
// renames the complete directory into place, so that it is never half written.
func (c *cluster) ensurePKI() error {
	dir := c.run("pki")
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	next := dir + ".next"
	if err := errors.Join(os.RemoveAll(next), os.MkdirAll(next, 0o700)); err != nil {
		return fmt.Errorf("create the key directory: %w", err)
	}
	authorities := map[string]authority{}
	for _, name := range []string{clusterCA, etcdCA} {
		ca, err := newAuthority(next, name)
		if err != nil {
			return fmt.Errorf("create the authority %s: %w", name, err)
		}
		authorities[name] = ca
	}
	for _, l := range leaves() {
		if err := authorities[l.ca].issue(next, l); err != nil {
			return fmt.Errorf("create the certificate %s: %w", l.name, err)
		}
	}
	if err := newServiceAccountKey(next); err != nil {
		return fmt.Errorf("create the service account key: %w", err)
	}
	if err := os.Rename(next, dir); err != nil {
		return fmt.Errorf("install the keys: %w", err)
	}
	return nil
}

func newAuthority(dir, name string) (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, err
	}
	cert, err := certutil.NewSelfSignedCACert(certutil.Config{CommonName: "binder local cluster " + name}, key)
	if err != nil {
		return authority{}, err
	}
	return authority{cert: cert, key: key}, writePair(dir, name, cert.Raw, key)
}

// issue creates and writes a certificate and its key.
func (a authority) issue(dir string, l leaf) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template, err := l.template(time.Now())
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return err
	}
	return writePair(dir, l.name, der, key)
}

// template returns the certificate to sign. A server's certificate is also valid
// for a client, because etcd and the kubelet are both.
func (l leaf) template(now time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	cert := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: l.user, Organization: l.groups},
		NotBefore:    now.Add(-time.Hour), // in case the clock is set back
		NotAfter:     now.Add(certLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if len(l.server) > 0 {
		cert.ExtKeyUsage = append(cert.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, name := range l.server {
		if ip := net.ParseIP(name); ip != nil {
			cert.IPAddresses = append(cert.IPAddresses, ip)
		} else {
			cert.DNSNames = append(cert.DNSNames, name)
		}
	}
	return cert, nil
}

// newServiceAccountKey creates the key that signs and verifies service account
// tokens.
func newServiceAccountKey(dir string) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	private, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		return err
	}
	return keyutil.WriteKey(filepath.Join(dir, "service-account.key"), private)
}

func writePair(dir, name string, der []byte, key crypto.PrivateKey) error {
	private, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	pem, err := certutil.EncodeCertificates(cert)
	if err != nil {
		return err
	}
	return errors.Join(
		keyutil.WriteKey(filepath.Join(dir, name+".key"), private),
		certutil.WriteCert(filepath.Join(dir, name+".crt"), pem),
	)
}
