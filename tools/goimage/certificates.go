package goimage

import (
	"bytes"
	"encoding/pem"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// CertificatesPath is where Go programs on Linux look for root certificates.
const CertificatesPath = "etc/ssl/certs/ca-certificates.crt"

// Certificates returns Mozilla's root certificates in PEM. They come from a Go module and
// not from this machine, so that the image does not depend on where it is built. Update
// golang.org/x/crypto/x509roots/fallback to update them.
//
// A root that Mozilla trusts under a condition only, such as until some date, is left out:
// a file cannot say the condition.
func Certificates() []byte {
	var file bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			file.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}))
		}
	}
	return file.Bytes()
}
