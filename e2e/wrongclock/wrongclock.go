// Package wrongclock builds an image of the service in which one replica's wall clock can be
// set wrong, while the machine's stays right.
//
// All processes of a machine have one wall clock: time namespaces cover only the others, and
// a static binary loads no library that could stand in between. So the program is built with
// another time.Now, which adds a number of seconds from a file. As when a real clock is set,
// the monotonic clock stays as it is, and with it timers, deadlines and the differences of
// times that were read by one process. Everything in the process is concerned, client-go and
// TLS too; what it does not write itself, such as a pod's creation time, is not.
//
// To build that from scratch takes minutes, because all packages depend on package runtime.
// The build cache keeps them, apart from the service's own.
package wrongclock

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
	"github.com/binder-project/binder-deploy-kubernetes/tools/goimage"
)

// file has the seconds, in a volume of the replica's pod: e2e/faults/manifests mounts it. It
// stays when the container is restarted.
const file = "/clock/ahead"

// The files that are added: to package runtime, and to the service's package main.
var (
	//go:embed overlay/runtime.go.txt
	runtimeFile []byte
	//go:embed overlay/main.go.txt
	mainFile []byte
)

// Set sets how far a replica's clock is ahead of the machine's, in whole seconds; it is behind
// if that is negative. The replica follows within a tenth of a second.
func Set(replica harness.Replica, ahead time.Duration) error {
	return replica.WriteFile(file, strconv.Itoa(int(ahead.Seconds())))
}

// WriteImage builds the image of the service in the working tree at root, with a name such as
// localhost/image:tag, and writes it to an archive. Its scratch files are beside the archive.
func WriteImage(ctx context.Context, root, image, archive string) error {
	overlay, err := writeOverlay(ctx, root, filepath.Dir(archive))
	if err != nil {
		return fmt.Errorf("make another time.Now: %w", err)
	}
	source, err := goimage.Describe(ctx, root)
	if err != nil {
		return err
	}
	program := goimage.ServiceProgram(root, source)
	program.Overlay = overlay
	return goimage.WriteService(ctx, program, source, image, archive)
}

// writeOverlay writes the files that replace others to dir, and returns the file for
// go build -overlay.
func writeOverlay(ctx context.Context, root, dir string) (path string, err error) {
	goroot, err := exec.CommandContext(ctx, "go", "-C", root, "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("find Go's source: %w", err)
	}
	source := filepath.Join(strings.TrimSpace(string(goroot)), "src", "runtime")
	original, err := os.ReadFile(filepath.Join(source, "time.go"))
	if err != nil {
		return "", fmt.Errorf("read Go's source: %w", err)
	}
	changed, err := callWrongNow(original)
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for _, added := range []struct {
		at, name string
		content  []byte
	}{
		{filepath.Join(source, "time.go"), "time.go", changed},
		{filepath.Join(source, "wrongclock.go"), "runtime.go", runtimeFile},
		{filepath.Join(root, "wrongclock.go"), "main.go", mainFile},
	} {
		replace[added.at] = filepath.Join(dir, added.name)
		if err := os.WriteFile(replace[added.at], added.content, 0o600); err != nil {
			return "", err
		}
	}
	data, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, data, 0o600)
}

// callWrongNow returns the source of runtime/time.go with wrongNow in place of the only call
// of time_now, which time.Now makes.
func callWrongNow(source []byte) ([]byte, error) {
	call := []byte("return time_now()")
	if n := bytes.Count(source, call); n != 1 {
		return nil, fmt.Errorf("this version of Go has %q %d times in runtime/time.go, not once", call, n)
	}
	return bytes.Replace(source, call, []byte("return wrongNow()"), 1), nil
}
