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

// certLife is long: the cluster's certificates go with down.
const certLife = 5 * 365 * 24 * time.Hour

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// leaf describes a certificate of the cluster: who it names, and what for.
type leaf struct {
	name   string // of its files: <name>.crt and <name>.key
	ca     string // that signs it: the cluster's, or etcd's
	user   string
	groups []string
	server []string // addresses and host names that it serves; none: a client's
}

// The authorities. etcd has its own: whoever may talk to the API server, every
// holder of a certificate, must not be able to go past it.
const (
	clusterCA = "ca"
	etcdCA    = "etcd-ca"
)

// leaves returns all certificates of the cluster.
func leaves() []leaf {
	return []leaf{
		{name: "etcd", ca: etcdCA, user: "etcd", server: []string{"localhost", "127.0.0.1"}},
		{name: "etcd-client", ca: etcdCA, user: "kube-apiserver"},
		{name: "apiserver", ca: clusterCA, user: "kube-apiserver", server: []string{
			"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "127.0.0.1", apiService, bridgeAddress,
		}},
		{name: "kubelet", ca: clusterCA, user: "system:node:" + nodeName, groups: []string{"system:nodes"},
			server: []string{nodeName, "127.0.0.1", bridgeAddress}},
		{name: "apiserver-kubelet", ca: clusterCA, user: "kube-apiserver-kubelet", groups: []string{"system:masters"}},
		{name: "admin", ca: clusterCA, user: "admin", groups: []string{"system:masters"}},
		{name: "node", ca: clusterCA, user: "system:node:" + nodeName, groups: []string{"system:nodes"}},
		{name: "kube-controller-manager", ca: clusterCA, user: "system:kube-controller-manager"},
		{name: "kube-scheduler", ca: clusterCA, user: "system:kube-scheduler"},
		{name: "kube-proxy", ca: clusterCA, user: "system:kube-proxy"},
	}
}

// ensurePKI makes the cluster's keys and certificates unless they are there.
// Its directory appears as a whole or not at all.
func (c *cluster) ensurePKI() error {
	dir := c.run("pki")
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	next := dir + ".next"
	if err := errors.Join(os.RemoveAll(next), os.MkdirAll(next, 0o700)); err != nil {
		return fmt.Errorf("make the directory of keys: %w", err)
	}
	authorities := map[string]authority{}
	for _, name := range []string{clusterCA, etcdCA} {
		ca, err := newAuthority(next, name)
		if err != nil {
			return fmt.Errorf("make the authority %s: %w", name, err)
		}
		authorities[name] = ca
	}
	for _, l := range leaves() {
		if err := authorities[l.ca].issue(next, l); err != nil {
			return fmt.Errorf("make the certificate %s: %w", l.name, err)
		}
	}
	if err := newServiceAccountKey(next); err != nil {
		return fmt.Errorf("make the key of service accounts: %w", err)
	}
	if err := os.Rename(next, dir); err != nil {
		return fmt.Errorf("put the keys in place: %w", err)
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

// issue makes and writes a certificate and its key.
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

// template returns what the certificate says. A server's is good for a client
// too: etcd and the kubelet are both.
func (l leaf) template(now time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	cert := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: l.user, Organization: l.groups},
		NotBefore:    now.Add(-time.Hour), // for clocks that are set back a little
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

// newServiceAccountKey makes the pair that signs and verifies the tokens of
// service accounts.
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
