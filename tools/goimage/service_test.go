package goimage

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// TestDescribe checks what is read from git, and a directory that git does not know.
func TestDescribe(t *testing.T) {
	root := t.TempDir()
	t.Setenv("GIT_CEILING_DIRECTORIES", filepath.Dir(root))
	t.Setenv("SOURCE_DATE_EPOCH", "")
	if got, err := Describe(t.Context(), root); err != nil || got != (Source{Version: "dev"}) {
		t.Errorf("outside of a repository: got %+v, %v", got, err)
	}
	t.Setenv("GIT_COMMITTER_DATE", "2026-11-29T13:00:00+01:00")
	for _, args := range [][]string{
		{"init", "--quiet"},
		{"-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgSign=false", "commit", "--quiet", "--allow-empty", "--message=x"},
		{"-c", "tag.gpgSign=false", "tag", "v1.2.3"},
	} {
		out, err := exec.Command("git", append([]string{"-C", root}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
	}
	noon := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	got, err := Describe(t.Context(), root)
	if err != nil || got.Version != "v1.2.3" || !regexp.MustCompile("^[0-9a-f]{40}$").MatchString(got.Revision) || got.Created != noon {
		t.Errorf("got %+v, %v", got, err)
	}
	if labels := Labels(got); labels["org.opencontainers.image.created"] != "2026-11-29T12:00:00Z" || labels["org.opencontainers.image.version"] != "v1.2.3" {
		t.Errorf("the labels are %v", labels)
	}
	t.Setenv("SOURCE_DATE_EPOCH", "0")
	if got, err := Describe(t.Context(), root); err != nil || got.Created.Unix() != 0 {
		t.Errorf("with SOURCE_DATE_EPOCH=0: got %+v, %v", got, err)
	}
	t.Setenv("SOURCE_DATE_EPOCH", "now")
	if got, err := Describe(t.Context(), root); err == nil || !strings.Contains(err.Error(), "SOURCE_DATE_EPOCH") {
		t.Errorf("with SOURCE_DATE_EPOCH=now: got %+v, %v", got, err)
	}
}

// TestDockerfile checks that the Dockerfile builds the binary with the same flags, and
// makes the same image of it, but for the certificates: it takes those of its base image.
func TestDockerfile(t *testing.T) {
	data, err := os.ReadFile("../../Dockerfile")
	noError(t, err)
	text := regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(string(data), "")
	text = regexp.MustCompile(`\s*\\\n\s*`).ReplaceAllString(text, " ")
	build, image, found := strings.Cut(text, "\nFROM scratch\n")
	if !found {
		t.Fatal("the last stage is not FROM scratch")
	}

	source := Source{Version: "$VERSION", Revision: "$REVISION", Created: time.Unix(1, 0).UTC()}
	command := fmt.Sprintf(`go build %s -ldflags "%s -X %s" -o /%s .`, strings.Join(BuildFlags(), " "),
		strings.Join(LinkerFlags(), " "), ServiceProgram("", source).Variables[0], ServiceName)
	if !strings.Contains(build, "CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH "+command+"\n") {
		t.Errorf("the Dockerfile does not run %s", command)
	}

	spec := ServiceSpec(v1.Platform{}, "", source)
	ports := ""
	for _, port := range spec.Ports {
		ports += " " + strings.TrimSuffix(port, "/tcp")
	}
	want := []string{
		"COPY --from=build /" + ServiceName + " /" + ServiceName,
		"COPY --from=build /" + CertificatesPath + " /" + CertificatesPath,
		"USER " + User,
		"EXPOSE" + ports,
		`ENTRYPOINT ["/` + ServiceName + `"]`,
		"ARG VERSION=dev REVISION CREATED",
	}
	created := source.Created.Format(time.RFC3339)
	for key, value := range spec.Labels {
		want = append(want, fmt.Sprintf("LABEL %s=%q", key, strings.Replace(value, created, "$CREATED", 1)))
	}
	got := slices.DeleteFunc(strings.Split(image, "\n"), func(line string) bool { return line == "" })
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the last stage of the Dockerfile is\n%s\nwant, in some order\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestCertificates checks that the file has root certificates that are valid today and for
// some time, and that Go reads it.
func TestCertificates(t *testing.T) {
	rest := Certificates()
	if !x509.NewCertPool().AppendCertsFromPEM(rest) {
		t.Error("Go reads no certificate")
	}
	valid := 0
	for block, rest := pem.Decode(rest); block != nil; block, rest = pem.Decode(rest) {
		certificate, err := x509.ParseCertificate(block.Bytes)
		noError(t, err)
		if !certificate.IsCA || !bytes.Equal(certificate.RawIssuer, certificate.RawSubject) {
			t.Errorf("%s is no root certificate", certificate.Subject)
		}
		if time.Until(certificate.NotAfter) > 30*24*time.Hour {
			valid++
		}
	}
	if valid < 100 {
		t.Errorf("%d root certificates are valid for another month: update golang.org/x/crypto/x509roots/fallback", valid)
	}
}
