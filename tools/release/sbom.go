package main

import (
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"time"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"

	"github.com/binder-project/binder-deploy-kubernetes/tools/goimage"
)

// writeSBOM writes the bill of materials of a binary with the given build information,
// which go version -m prints, and SHA-256 sum: Go's standard library and all modules that
// are linked in, in CycloneDX's format.
func writeSBOM(out io.Writer, info *debug.BuildInfo, sum [32]byte, source goimage.Source) error {
	main := component(cyclonedx.ComponentTypeApplication, info.Main.Path, source.Version)
	main.Hashes = &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}}
	main.Licenses = &cyclonedx.Licenses{{License: &cyclonedx.License{ID: "Apache-2.0"}}}

	components := []cyclonedx.Component{
		component(cyclonedx.ComponentTypeLibrary, "std", strings.TrimPrefix(info.GoVersion, "go")),
	}
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		linked := component(cyclonedx.ComponentTypeLibrary, module.Path, cmp.Or(module.Version, "(devel)"))
		var err error
		if linked.Hashes, err = moduleHashes(module); err != nil {
			return err
		}
		components = append(components, linked)
	}
	// Which module needs which is not in a binary.
	refs := []string{}
	for _, c := range components {
		refs = append(refs, c.BOMRef)
	}
	bill := cyclonedx.NewBOM()
	bill.Metadata = &cyclonedx.Metadata{Timestamp: source.Created.Format(time.RFC3339), Component: &main}
	bill.Components = &components
	bill.Dependencies = &[]cyclonedx.Dependency{{Ref: main.BOMRef, Dependencies: &refs}}
	return cyclonedx.NewBOMEncoder(out, cyclonedx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(bill, cyclonedx.SpecVersion1_6)
}

func component(kind cyclonedx.ComponentType, path, version string) cyclonedx.Component {
	// https://github.com/package-url/purl-spec: type golang. Versions have no characters
	// that must be escaped, but for the plus sign of "+incompatible".
	purl := "pkg:golang/" + path + "@" + strings.ReplaceAll(version, "+", "%2B")
	return cyclonedx.Component{BOMRef: purl, Type: kind, Name: path, Version: version, PackageURL: purl}
}

// moduleHashes returns the hash of a module that go.sum has, or nil if it has none because
// the module is a directory. "h1:" is a SHA-256 sum: https://go.dev/ref/mod#go-sum-files.
func moduleHashes(module *debug.Module) (*[]cyclonedx.Hash, error) {
	encoded, found := strings.CutPrefix(module.Sum, "h1:")
	if !found {
		return nil, nil
	}
	sum, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, fmt.Errorf("the sum of %s is %q: %w", module.Path, module.Sum, err)
	}
	return &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: hex.EncodeToString(sum)}}, nil
}
