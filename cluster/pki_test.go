package main

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"slices"
	"testing"
)

func testCluster(t *testing.T) *cluster {
	t.Helper()
	return &cluster{layout: layout{root: "..", dir: t.TempDir()}, progress: newProgress(t.Output())}
}

// TestPKI checks that each certificate is valid for its own authority and for
// each of its addresses, and not for the other authority.
func TestPKI(t *testing.T) {
	c := testCluster(t)
	if err := c.ensurePKI(); err != nil {
		t.Fatal(err)
	}
	pools := map[string]*x509.CertPool{clusterCA: readPool(t, c, clusterCA), etcdCA: readPool(t, c, etcdCA)}
	for _, l := range leaves() {
		pair, err := tls.LoadX509KeyPair(c.pki(l.name+".crt"), c.pki(l.name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(pair.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		if cert.Subject.CommonName != l.user || !slices.Equal(cert.Subject.Organization, l.groups) {
			t.Errorf("%s: got subject %s", l.name, cert.Subject)
		}
		for ca, pool := range pools {
			_, err := cert.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
			if good := err == nil; good != (ca == l.ca) {
				t.Errorf("%s against %s: %v", l.name, ca, err)
			}
		}
		for _, address := range l.server {
			if err := cert.VerifyHostname(address); err != nil {
				t.Errorf("%s: %v", l.name, err)
			}
		}
	}
	info, err := os.Stat(c.pki("admin.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the administrator's key: %v, %v; want mode 0600", info.Mode(), err)
	}
}

func readPool(t *testing.T, c *cluster, name string) *x509.CertPool {
	t.Helper()
	data, err := os.ReadFile(c.pki(name + ".crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		t.Fatalf("%s has no certificate", name)
	}
	return pool
}

// TestPKIIsKept checks that a second start keeps the keys that running parts use.
func TestPKIIsKept(t *testing.T) {
	c := testCluster(t)
	if err := c.ensurePKI(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(c.pki("ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.ensurePKI(); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(c.pki("ca.crt"))
	if err != nil || string(after) != string(before) {
		t.Errorf("the authority has changed (%v)", err)
	}
}
